//! What is printed for people, and for programs.

use std::io::{IsTerminal, Write};

use larder::manager::{EventsView, Findings, Located, Moved, NodesView, RingView, State};
use serde::Serialize;
use serde_json::Value;

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Show {
    json: bool,
    colours: bool,
}

impl Show {
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            colours: !json && !plain && std::io::stdout().is_terminal(),
        }
    }

    fn painted(self, colour: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Prints one or the other. Whoever reads it may be gone: that is no error.
    pub(crate) fn print<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) {
        let text = match self.json {
            // What is shown can be written.
            true => serde_json::to_string(value).unwrap_or_default() + "\n",
            false => text(),
        };
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    /// A line each, with dots where one is within another.
    pub(crate) fn settings(self, settings: &Value) {
        self.print(settings, || lines("", settings));
    }

    pub(crate) fn nodes(self, view: &NodesView) {
        self.print(view, || {
            let width = view
                .nodes
                .iter()
                .map(|node| node.node.len())
                .max()
                .unwrap_or(0)
                .max(4);
            let mut text = format!(
                "{:width$}  {:8}  {:>7}  {:>9}  why\n",
                "node", "state", "share", "positions"
            );
            for node in &view.nodes {
                let colour = match node.state {
                    State::Up => "32",
                    State::Suspect | State::Draining => "33",
                    _ => "31",
                };
                let state = self.painted(colour, &format!("{:8}", node.state.as_str()));
                let why = node.why.as_deref().unwrap_or_default();
                let (name, share, positions) = (&node.node, node.share * 100.0, node.positions);
                text += &format!("{name:width$}  {state}  {share:>5.1} %  {positions:>9}  {why}");
                text.truncate(text.trim_end().len());
                text.push('\n');
            }
            text + &format!("epoch {}\n", view.epoch)
        });
    }

    pub(crate) fn moved(self, view: &Moved) {
        self.print(view, || {
            let mut text = format!(
                "{:.1} % of the keys {}\n",
                view.moved * 100.0,
                if view.epoch.is_some() {
                    "moved"
                } else {
                    "would move"
                }
            );
            for moved in &view.moves {
                let name =
                    |node: &Option<String>| node.clone().unwrap_or_else(|| "nowhere".to_owned());
                text += &format!(
                    "  {:>5.1} %  {} -> {}\n",
                    moved.share * 100.0,
                    name(&moved.from),
                    name(&moved.to)
                );
            }
            if let Some(epoch) = view.epoch {
                text += &format!("epoch {epoch}\n");
            }
            text
        });
    }

    pub(crate) fn ring(self, view: &RingView) {
        self.print(view, || {
            let labels = serde_json::to_value(view.labels).unwrap_or_default();
            let labels = labels.as_str().unwrap_or_default().to_owned();
            let edited = if view.edited { self.painted("31", ", edited by somebody who knows nothing of epochs") } else { String::new() };
            format!(
                "epoch      {}{edited}\nnodes      {}\npositions  {} ({labels}, {} a node), {} fields\nlookup     {}\nfullest    {:.3} times the mean\nPython     {} us of CPU to find a node, for each command of the SDK\n",
                view.epoch, view.nodes, view.positions, view.vnodes, view.fields, view.lookup, view.imbalance, view.python_reader_us
            )
        });
    }

    pub(crate) fn located(self, views: &[Located]) {
        self.print(&views, || {
            let lines = views.iter().map(|view| {
                let node = view.node.as_deref().unwrap_or("nowhere: there is no node");
                format!("{}\t{node}\n", view.key.escape_debug())
            });
            lines.collect()
        });
    }

    pub(crate) fn events(self, view: &EventsView) {
        self.print(view, || {
            let lines = view.events.iter().map(|event| {
                let at = httpdate::fmt_http_date(
                    std::time::UNIX_EPOCH + std::time::Duration::from_secs(event.event.at),
                );
                let (kind, node) = (
                    event.event.kind.as_str(),
                    event.event.node.as_deref().unwrap_or_default(),
                );
                let line = format!(
                    "{:>6}  {at}  {kind:18} {node} {}",
                    event.id,
                    event.event.text.escape_debug()
                );
                line.trim_end().to_owned() + "\n"
            });
            lines.collect()
        });
    }

    pub(crate) fn findings(self, view: &Findings) {
        self.print(view, || {
            let lines = view.findings.iter().map(|finding| match finding.is_error {
                true => format!("{}  {}\n", self.painted("31", "error  "), finding.text),
                false => format!("{}  {}\n", self.painted("33", "warning"), finding.text),
            });
            match view.findings.is_empty() {
                true => "all is well\n".to_owned(),
                false => lines.collect(),
            }
        });
    }
}

fn lines(name: &str, value: &Value) -> String {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(field, value)| match name {
                "" => lines(field, value),
                name => lines(&format!("{name}.{field}"), value),
            })
            .collect(),
        Value::Null => format!("{name} =\n"),
        value => format!("{name} = {value}\n"),
    }
}

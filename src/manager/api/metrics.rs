//! What a Prometheus reads: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::App;
use crate::error::Result;
use crate::manager::member::State as NodeState;
use crate::manager::view::{NodeView, NodesView};

const STATES: [NodeState; 5] = [
    NodeState::Up,
    NodeState::Suspect,
    NodeState::Out,
    NodeState::Draining,
    NodeState::Drained,
];

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let nodes = app.admin.nodes().await;
    let imbalance = match &nodes {
        Ok(_) => app.admin.ring().await.ok().map(|ring| ring.imbalance),
        Err(_) => None,
    };
    let status = app.status.borrow().clone();
    let mut text = Text::default();
    let is = |yes: bool| f64::from(u8::from(yes));
    text.gauge(
        "larder_manager_leads",
        "Whether this manager judges the nodes",
        is(status.leads),
    );
    text.gauge(
        "larder_manager_frozen",
        "Whether it judges nothing: half of the ring seems to fail, or it did not get to run",
        is(status.frozen.is_some()),
    );
    text.gauge(
        "larder_manager_redis_up",
        "Whether the manager Redis answers",
        is(nodes.is_ok()),
    );
    if let Some(imbalance) = imbalance {
        text.gauge(
            "larder_ring_imbalance",
            "What the fullest node has in times of the mean",
            imbalance,
        );
    }
    text.nodes(&nodes, &|name| status.failing.contains_key(name));
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        text.0,
    )
        .into_response()
}

/// Lines of metrics. Writing to a text cannot fail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn nodes(&mut self, view: &Result<NodesView>, fails: &dyn Fn(&str) -> bool) {
        let Ok(view) = view else { return };
        self.gauge(
            "larder_ring_epoch",
            "The epoch of the map",
            view.epoch as f64,
        );
        self.head("larder_ring_nodes", "Members of the ring, by state");
        for state in STATES {
            let count = view.nodes.iter().filter(|node| node.state == state).count();
            let _ = writeln!(
                self.0,
                "larder_ring_nodes{{state=\"{}\"}} {count}",
                state.as_str()
            );
        }
        let failing = "Whether a node failed when it was last probed by this manager";
        self.each(view, "failing", failing, &|node| {
            f64::from(u8::from(fails(&node.node)))
        });
        let share = "The part of all keys that a node has";
        self.each(view, "share", share, &|node| node.share);
        let flaps = "How often a node fell and came back, not long ago";
        self.each(view, "flaps", flaps, &|node| f64::from(node.flaps));
    }

    fn each(&mut self, view: &NodesView, what: &str, help: &str, value: &dyn Fn(&NodeView) -> f64) {
        let name = format!("larder_node_{what}");
        self.head(&name, help);
        for node in &view.nodes {
            let label = escaped(&node.node);
            let _ = writeln!(self.0, "{name}{{node=\"{label}\"}} {}", value(node));
        }
    }
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

//! What becomes of a ring.

use super::{By, Cluster, Labels};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::event::Kind;
use crate::manager::member::{Member, State, name_of, shown};
use crate::ringmap::{Layout, positions_for, python_positions};

impl Cluster {
    /// Puts a node on the ring: a new one, one that was taken off, or one that is drained. Another url of one that is there replaces its own.
    pub(in crate::manager) fn add(&mut self, url: &str, by: By) {
        let name = name_of(url);
        let known = self.members.get(&name).cloned();
        let is_there = |member: &Member| {
            let stays = matches!(member.state, State::Up | State::Suspect);
            stays && member.url == url
        };
        if known.as_ref().is_some_and(is_there) {
            return;
        }
        let kind = match (&known, by) {
            (Some(_), By::Health) => Kind::Returned,
            (Some(member), By::Person) if member.url != url && member.state.is_on() => {
                Kind::Changed
            }
            _ => Kind::Added,
        };
        let flaps = known.as_ref().map_or(0, |member| member.flaps);
        let before = known.map(|member| member.positions).unwrap_or_default();
        self.layout.join(&name, &before);
        self.members.insert(
            name.clone(),
            Member {
                flaps,
                ..Member::up(url)
            },
        );
        self.tell(kind, &name, "");
        self.place();
    }

    /// Takes a node off the ring, and forgets it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is none of this ring.
    pub(in crate::manager) fn remove(&mut self, name: &str) -> Result<()> {
        self.member(name)?;
        self.layout.leave(name);
        self.members.remove(name);
        self.tell(Kind::Removed, name, "");
        self.place();
        Ok(())
    }

    /// Takes a node off the ring that fails, and remembers where it was. One that somebody wants off the ring does not come back.
    pub(in crate::manager) fn eject(&mut self, name: &str, why: &str) -> Result<()> {
        let had = self.layout.leave(name);
        let member = self.member_mut(name)?;
        member.state = match member.state {
            State::Draining => State::Drained,
            _ => State::Out,
        };
        member.flaps = member.flaps.saturating_add(1);
        why.clone_into(&mut member.why);
        if member.positions.is_empty() {
            member.positions = had;
        }
        (member.part, member.step) = (None, None);
        self.tell(Kind::Ejected, name, why);
        self.place();
        Ok(())
    }

    /// A node fails, or does so no more.
    pub(in crate::manager) fn suspect(&mut self, name: &str, why: Option<&str>) -> Result<()> {
        let member = self.member_mut(name)?;
        let (state, kind) = match why {
            Some(_) => (State::Suspect, Kind::Suspected),
            None => (State::Up, Kind::Recovered),
        };
        member.state = state;
        why.unwrap_or_default().clone_into(&mut member.why);
        self.tell(kind, name, why.unwrap_or_default());
        Ok(())
    }

    /// A node is well for so long that its falls are nothing any more.
    pub(in crate::manager) fn forgive(&mut self, name: &str) -> Result<()> {
        let member = self.member_mut(name)?;
        member.flaps = member.flaps.saturating_sub(1);
        Ok(())
    }

    /// Begins to empty a node in so many steps, or takes the next of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is not on the ring, or is the only one there.
    pub(in crate::manager) fn drain(&mut self, name: &str, steps: Option<u32>) -> Result<()> {
        let alone = self.on() < 2;
        let member = self.member_mut(name)?;
        if !member.state.is_on() || alone {
            let why = "only a node that is on the ring with others can be drained";
            return Err(Error::new(ErrorKind::Config, why).with("node", shown(name)));
        }
        if let Some(steps) = steps {
            member.step = Some(1.0 / f64::from(steps.clamp(1, 1000)));
            member.part = Some(1.0);
        }
        let step = member.step.unwrap_or(1.0);
        // A little more, so that the sum of thirds is all.
        let part = member.part.unwrap_or(1.0) - step - 1e-9;
        let done = part <= 0.0;
        member.part = Some(part.max(0.0));
        member.state = if done {
            State::Drained
        } else {
            State::Draining
        };
        self.layout.close(name);
        let had = match done {
            true => self.layout.leave(name),
            false => self.layout.shrink(name, part),
        };
        let member = self.member_mut(name)?;
        if member.positions.is_empty() {
            member.positions = had;
        }
        if done {
            (member.part, member.step) = (None, None);
        }
        let kind = if done { Kind::Drained } else { Kind::Draining };
        self.tell(kind, name, &format!("{:.0} %", part.max(0.0) * 100.0));
        self.place();
        Ok(())
    }

    /// Chooses all positions anew.
    pub(in crate::manager) fn rebuild(&mut self) {
        self.labels = self.form.labels.unwrap_or(self.labels);
        self.per_node = self.form.per_node.unwrap_or(self.per_node);
        self.order = self.labels.order();
        let names: Vec<&str> = self.on_map().map(|(name, _)| name).collect();
        self.layout = Layout::of_all(&names, self.per_node);
        self.shrink_all();
        self.tell_all(
            Kind::Rebuilt,
            &format!(
                "{}, {} positions a node",
                self.labels.as_str(),
                self.per_node
            ),
        );
        self.place();
    }

    /// Positions that follow from the names of all who are there.
    pub(super) fn place(&mut self) {
        let urls: Vec<&str> = self.on_map().map(|(_, url)| url).collect();
        let chosen = match self.labels {
            Labels::Balanced => return,
            Labels::Xxh3 => positions_for(&urls, self.per_node),
            Labels::Crc32 => python_positions(&urls, self.per_node),
        };
        let chosen = chosen.into_iter().map(|(at, url)| (at, name_of(&url)));
        self.layout = Layout::of(chosen, self.per_node);
        self.shrink_all();
    }

    /// Takes from those that are drained what they have lost already.
    fn shrink_all(&mut self) {
        let parts = self.members.iter();
        let parts = parts.filter_map(|(name, member)| Some((name, member.part?)));
        for (name, _) in parts.clone() {
            self.layout.close(name);
        }
        for (name, part) in parts {
            self.layout.shrink(name, part);
        }
    }
}

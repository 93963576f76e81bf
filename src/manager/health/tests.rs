use super::*;

/// Members whose states are what the verdicts make of them, and what happened to the map.
struct Trial {
    health: Health,
    members: BTreeMap<String, Member>,
    now: Instant,
    began: Instant,
    changes: Vec<(Duration, String)>,
    told: Vec<Verdict>,
}

impl Trial {
    fn new(nodes: usize, settings: HealthSettings) -> Self {
        let member = |i| (format!("n{i}"), Member::up(format!("redis://n{i}:1/0")));
        let now = Instant::now();
        Self {
            health: Health::new(settings),
            members: (0..nodes).map(member).collect(),
            now,
            began: now,
            changes: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The manager does not get to run for so long.
    fn stop(&mut self, span: Duration) {
        let asked = self.now;
        self.now += span;
        let stopped = self.health.woken(self.now, seconds(1), asked);
        assert_eq!(stopped, Some(Verdict::Freeze(Freeze::Late)));
    }

    /// Goes on for so long; `fails` says of a node and a time since the beginning whether it fails then.
    fn go_on(&mut self, span: Duration, fails: impl Fn(&str, Duration) -> bool) {
        let end = self.now + span;
        while self.now < end {
            let since = self.now - self.began;
            let due = self.health.due(self.now, &self.members);
            let probe = |name: String| {
                let well = match fails(&name, since) {
                    true => Probe::Failed("down".to_owned()),
                    false => Probe::Well,
                };
                (name, well)
            };
            let probes = due.into_iter().map(probe).collect();
            let verdicts = self.health.judge(self.now, &self.members, probes);
            for verdict in verdicts {
                self.apply(&verdict, since);
                self.told.push(verdict);
            }
            self.now += self.health.next(self.now);
        }
    }

    fn apply(&mut self, verdict: &Verdict, since: Duration) {
        let was = verdict.node().map(|name| self.members[name].state);
        let mut set = |name: &String, state| {
            self.members.get_mut(name).unwrap().state = state;
        };
        match verdict {
            Verdict::Suspect(name, _) => set(name, State::Suspect),
            Verdict::Recover(name) => set(name, State::Up),
            Verdict::Eject(name, _) if was == Some(State::Draining) => {
                set(name, State::Drained);
            }
            Verdict::Eject(name, _) => {
                set(name, State::Out);
                self.members.get_mut(name).unwrap().flaps += 1;
                self.changes.push((since, format!("{name} out")));
            }
            Verdict::Return(name) => {
                set(name, State::Up);
                self.changes.push((since, format!("{name} in")));
            }
            Verdict::Forgive(name) => self.members.get_mut(name).unwrap().flaps -= 1,
            Verdict::Freeze(_) | Verdict::Thaw => {}
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_node_that_fails_is_taken_off_in_time_and_comes_back_after_a_while() {
    let mut trial = Trial::new(4, HealthSettings::default());
    trial.go_on(seconds(3600), |name, at| {
        name == "n2" && (600..900).contains(&at.as_secs())
    });
    let at = |change: &str| {
        trial
            .changes
            .iter()
            .find(|(_, text)| text == change)
            .unwrap()
            .0
    };
    // It is asked every ten seconds, and fails for thirty from the first time on.
    assert!(
        (30..=46).contains(&(at("n2 out").as_secs() - 600)),
        "{:?}",
        trial.changes
    );
    assert!(
        (8..=20).contains(&(at("n2 in").as_secs() - 900)),
        "{:?}",
        trial.changes
    );
    assert_eq!(trial.changes.len(), 2);
}

#[test]
fn short_outages_change_nothing() {
    let mut trial = Trial::new(4, HealthSettings::default());
    trial.go_on(HOUR, |name, at| name == "n2" && at.as_secs() % 120 < 20);
    assert_eq!(trial.changes, []);
}

#[test]
fn a_day_of_flapping_changes_the_map_a_few_times() {
    for (down, up) in [(1, 1), (40, 40), (60, 120), (300, 300)] {
        let mut trial = Trial::new(6, HealthSettings::default());
        trial.go_on(24 * HOUR, |name, at| {
            name == "n1" && at.as_secs() % (down + up) < down
        });
        let changes = trial.changes.len();
        println!(
            "24 hours, {down} s down, {up} s up: {changes} changes of the map, {} verdicts",
            trial.told.len()
        );
        assert!(changes <= 60, "{changes} for {down}/{up}");
        let early = trial
            .changes
            .iter()
            .filter(|(at, _)| *at < seconds(300))
            .count();
        assert!(early <= 3 || down > 1, "{early} in the first five minutes");
    }
}

#[test]
fn where_half_fail_at_once_nothing_is_done() {
    for failing in [2, 3, 4] {
        let mut trial = Trial::new(4, HealthSettings::default());
        let fails = |name: &str, at: Duration| {
            name[1..].parse::<usize>().unwrap() < failing && (60..4000).contains(&at.as_secs())
        };
        trial.go_on(2 * HOUR, fails);
        assert_eq!(trial.changes, [], "{failing}");
        let freezes = trial
            .told
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Freeze(_)));
        assert_eq!(freezes.count(), 1);
        assert_eq!(
            trial
                .told
                .iter()
                .filter(|verdict| **verdict == Verdict::Thaw)
                .count(),
            1
        );
    }
}

#[test]
fn no_more_than_a_third_is_taken_off_and_never_the_last() {
    // One after the other, so that never half of them fail for the first time at once.
    let fails =
        |name: &str, at: Duration| at.as_secs() > 100 * (1 + name[1..].parse::<u64>().unwrap());
    let mut trial = Trial::new(9, HealthSettings::default());
    trial.go_on(HOUR, fails);
    assert_eq!(trial.changes.len(), 3, "{:?}", trial.changes);
    let mut pair = Trial::new(2, HealthSettings::default());
    pair.go_on(HOUR, |name, _| name == "n0");
    assert_eq!(pair.changes, []);
    let settings = HealthSettings {
        min_nodes: 6,
        ..HealthSettings::default()
    };
    let mut many = Trial::new(6, settings);
    many.go_on(HOUR, |name, _| name == "n0");
    assert_eq!(many.changes, []);
}

#[test]
fn a_process_that_was_stopped_judges_nothing_for_a_while() {
    let mut trial = Trial::new(4, HealthSettings::default());
    trial.go_on(seconds(60), |_, _| false);
    let stopped = trial
        .health
        .woken(trial.now + seconds(100), seconds(2), trial.now);
    assert_eq!(stopped, Some(Verdict::Freeze(Freeze::Late)));
    trial.now += seconds(100);
    // All seem to have failed for long; they have not been asked.
    let from = trial.now - trial.began;
    trial.go_on(seconds(29), |name, _| name == "n0");
    assert_eq!(trial.changes, []);
    trial.go_on(HOUR, |name, at| name == "n0" && at < from + seconds(200));
    let (out, _) = trial.changes[0];
    assert!(
        out >= from + seconds(55),
        "{:?} after {from:?}",
        trial.changes
    );
    assert_eq!(
        trial
            .health
            .woken(trial.now + seconds(3), seconds(2), trial.now),
        None
    );
}

#[test]
fn who_is_drained_is_left_alone() {
    let mut trial = Trial::new(3, HealthSettings::default());
    trial.go_on(seconds(60), |_, _| false);
    // It fails while it is drained: it stays off.
    trial.members.get_mut("n0").unwrap().state = State::Draining;
    trial.go_on(HOUR, |name, _| name == "n0");
    assert_eq!(trial.members["n0"].state, State::Drained);
    assert_eq!(trial.told.len(), 1, "{:?}", trial.told);
    // And says nothing about the others, nor has anybody hurry.
    let before = trial.now;
    trial.go_on(seconds(1), |name, _| name == "n0");
    assert!(trial.now - before > seconds(5));
    assert_eq!(trial.health.frozen(), None);
    assert_eq!(
        trial.health.due(trial.now + HOUR, &trial.members),
        ["n1", "n2"]
    );
}

#[test]
fn what_lies_here_is_no_failure_of_a_node() {
    let mut trial = Trial::new(4, HealthSettings::default());
    for _ in 0..100 {
        trial.now += seconds(10);
        let probe = Probe::NotMade("no password".to_owned());
        let verdicts =
            trial
                .health
                .judge(trial.now, &trial.members, vec![("n0".to_owned(), probe)]);
        assert_eq!(verdicts, []);
    }
    assert_eq!(trial.health.failing("n0"), Some("no password"));
}

/// When a manager is no more cut off, a node that answers a little later than the others has the whole time.
#[test]
fn being_cut_off_is_no_ground_for_anything() {
    let settings = HealthSettings {
        remove_after: seconds(5),
        ..HealthSettings::default()
    };
    let mut trial = Trial::new(4, settings);
    trial.go_on(HOUR, |name, at| match name {
        "n0" => (60..200).contains(&at.as_secs()),
        "n1" => (60..204).contains(&at.as_secs()),
        _ => false,
    });
    assert!(trial.told.contains(&Verdict::Thaw), "{:?}", trial.told);
    assert_eq!(trial.changes, []);
}

/// Two of three are enough to see that the third is dead, whether or not both are on the ring.
#[test]
fn who_is_off_the_ring_and_well_is_a_witness() {
    let mut trial = Trial::new(3, HealthSettings::default());
    trial.go_on(HOUR, |name, at| match name {
        "n0" => (100..400).contains(&at.as_secs()),
        // While the first is off the ring still.
        "n1" => at.as_secs() > 390,
        _ => false,
    });
    assert_eq!(trial.members["n0"].state, State::Up, "{:?}", trial.told);
    assert_eq!(trial.members["n1"].state, State::Out, "{:?}", trial.told);
}

/// What took too long while nodes were asked is no failure of theirs.
#[test]
fn a_stop_counts_for_nobody() {
    let settings = HealthSettings {
        remove_after: seconds(20),
        ..HealthSettings::default()
    };
    let mut trial = Trial::new(4, settings);
    trial.go_on(seconds(60), |name, at| name == "n0" && at.as_secs() >= 50);
    trial.stop(seconds(12));
    // It answers again a little after the freeze.
    let end = trial.now - trial.began + seconds(32);
    trial.go_on(HOUR, |name, at| name == "n0" && at < end);
    assert_eq!(trial.changes, [], "{:?}", trial.told);
}

/// That this manager is cut off is told, though it stood still already for another reason.
#[test]
fn being_cut_off_after_a_stop_is_news() {
    let mut trial = Trial::new(4, HealthSettings::default());
    trial.go_on(seconds(60), |_, _| false);
    trial.stop(seconds(20));
    trial.go_on(HOUR, |_, _| true);
    trial.go_on(seconds(120), |_, _| false);
    let own = trial.told.iter().filter(|told| told.node().is_none());
    let own: Vec<_> = own.cloned().collect();
    assert_eq!(own, [Verdict::Freeze(Freeze::CutOff), Verdict::Thaw]);
}

/// The pause after one that was taken off begins when it is off, and no sooner: what could not be written keeps nobody on the ring.
#[test]
fn a_removal_that_was_not_written_counts_for_nothing() {
    let settings = HealthSettings {
        remove_after: seconds(20),
        pause: HOUR,
        ..HealthSettings::default()
    };
    let mut trial = Trial::new(9, settings);
    let judged = |trial: &mut Trial, fails: &[&str]| {
        let probe = |name: &String| match fails.contains(&name.as_str()) {
            true => Probe::Failed("down".to_owned()),
            false => Probe::Well,
        };
        let probes = trial.members.keys().map(|name| (name.clone(), probe(name)));
        let probes = probes.collect();
        trial.now += seconds(10);
        trial.health.judge(trial.now, &trial.members, probes)
    };
    for name in ["n0", "n1"] {
        trial.members.get_mut(name).unwrap().state = State::Suspect;
    }
    let ejects = |verdicts: Vec<Verdict>| -> Vec<String> {
        let ejected = verdicts.into_iter().filter_map(|verdict| match verdict {
            Verdict::Eject(name, _) => Some(name),
            _ => None,
        });
        ejected.collect()
    };
    let mut first = Vec::new();
    for _ in 0..5 {
        first = ejects(judged(&mut trial, &["n0", "n1"]));
    }
    // Neither this one nor those before were written: it is meant again, one at a time.
    assert_eq!(first, ["n0"]);
    assert_eq!(ejects(judged(&mut trial, &["n0", "n1"])), ["n0"]);
    // It was written, though the answer was lost: the other one waits.
    trial.members.get_mut("n0").unwrap().state = State::Out;
    for _ in 0..5 {
        assert!(ejects(judged(&mut trial, &["n0", "n1"])).is_empty());
    }
}

/// One that is dead goes, though another one hiccups all the time.
#[test]
fn hiccups_of_others_keep_no_dead_node_on_the_ring() {
    let mut trial = Trial::new(4, HealthSettings::default());
    let hiccups = |at: Duration| at.as_secs() % 25 < 2;
    trial.go_on(HOUR, |name, at| {
        name == "n0" && at > seconds(60) || name == "n1" && hiccups(at)
    });
    assert_eq!(trial.changes.len(), 1, "{:?}", trial.changes);
    assert!(trial.changes[0].0 < seconds(200), "{:?}", trial.changes);
}

#[test]
fn nodes_that_fell_together_do_not_come_back_together() {
    let settings = HealthSettings::default();
    let holds: Vec<Duration> = (0..5)
        .map(|i| hold(&settings, &format!("n{i}"), 1))
        .collect();
    assert!(
        holds
            .iter()
            .all(|held| (seconds(30)..=seconds(36)).contains(held))
    );
    assert!(holds.windows(2).any(|pair| pair[0] != pair[1]));
    assert!(hold(&settings, "n", 2) >= seconds(60) && hold(&settings, "n", 3) >= seconds(120));
    assert!(hold(&settings, "n", u32::MAX) <= seconds(4320));
}

//! Callers that share a compute, against each other and against writes.

use std::any::TypeId;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::SeqCst};
use loom::thread;
use tokio::time::Instant;

use crate::flight::{Flights, Form, Landing, Lead, Outcome, Seat, Storing, Tags, Terms};
use crate::value::Shared;

const KEY: &str = "k";
/// Nobody is impatient.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A store of one key, 0 while it has none, and what a compute finds.
struct World {
    flights: std::sync::Arc<Flights>,
    truth: AtomicU32,
    stored: AtomicU32,
    computes: AtomicU32,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            flights: std::sync::Arc::new(Flights::sharded(1)),
            truth: AtomicU32::new(1),
            stored: AtomicU32::new(0),
            computes: AtomicU32::new(0),
        })
    }

    fn join(&self) -> Seat {
        let number = TypeId::of::<u32>();
        self.flights.join(KEY, number, &Terms::patient(PATIENCE))
    }

    /// What one caller does as leader; `compute` answers nothing if it fails.
    fn led(&self, lead: Lead, compute: impl Fn(&Self) -> Option<u32>) -> Option<u32> {
        let found = self.stored.load(SeqCst);
        if found != 0 {
            lead.found(Landing::of(shared(found)));
            return Some(found);
        }
        let Some(value) = compute(self) else {
            lead.fail("it failed");
            return None;
        };
        if let Some(storing) = lead.land(Landing::of(shared(value))) {
            self.store(&storing, value);
        }
        Some(value)
    }

    /// For as long as the right to it is held.
    fn store(&self, _storing: &Storing, value: u32) {
        self.stored.store(value, SeqCst);
    }

    fn compute(&self) -> Option<u32> {
        self.computes.fetch_add(1, SeqCst);
        Some(self.truth.load(SeqCst))
    }

    /// What one caller gets, or why all have nothing.
    fn get_with(&self, compute: impl Fn(&Self) -> Option<u32>) -> Option<u32> {
        loop {
            let waiter = match self.join() {
                Seat::Lead(lead) => return self.led(lead, compute),
                Seat::Wait(waiter) => waiter,
                Seat::Full(_) => panic!("as many may wait as do"),
            };
            match block_on(waiter.wait(Terms::patient(PATIENCE))) {
                Outcome::Landed(landed) => return Some(number(landed)),
                Outcome::Lead(lead) => return self.led(lead, compute),
                Outcome::Failed(_) => return None,
                Outcome::Rejoin => {}
                Outcome::TimedOut => panic!("nobody is impatient"),
            }
        }
    }

    fn get(&self) -> u32 {
        self.get_with(Self::compute).unwrap()
    }

    fn write(&self, value: u32) {
        let mut writing = self.flights.write(KEY);
        block_on(writing.settled(far()));
        self.truth.store(value, SeqCst);
        self.stored.store(value, SeqCst);
    }

    fn clear(&self) {
        let mut clearing = self.flights.clear("");
        block_on(clearing.settled(far()));
        self.truth.store(2, SeqCst);
        self.stored.store(0, SeqCst);
    }
}

fn shared(value: u32) -> Shared {
    std::sync::Arc::new(value)
}

fn number(landed: Landing) -> u32 {
    *landed.value.downcast().unwrap()
}

fn far() -> Instant {
    Instant::now() + PATIENCE
}

/// Tries every order of two; of more, those in which a thread is stopped in the middle of something three times at most, or
/// twice.
fn check(threads: usize, of: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = match threads {
        ..3 => None,
        3 => Some(3),
        _ => Some(2),
    };
    model.check(of);
}

/// What each of these does at once with the others, and what holds after all.
fn all<const N: usize>(at_once: [fn(&World); N], then: fn(&World)) {
    check(N, move || {
        let world = World::new();
        let (last, others) = at_once.split_last().unwrap();
        let others: Vec<_> = others
            .iter()
            .map(|other| {
                let (world, other) = (Arc::clone(&world), *other);
                thread::spawn(move || other(&world))
            })
            .collect();
        last(&world);
        others.into_iter().for_each(|other| other.join().unwrap());
        then(&world);
        assert_eq!(world.flights.len(), 0, "nothing is left of a flight");
    });
}

fn gets_the_first(world: &World) {
    assert_eq!(world.get(), 1);
}

/// From before a write or after it.
fn gets(world: &World) {
    assert!([1, 2].contains(&world.get()));
}

fn writes(world: &World) {
    world.write(2);
}

#[test]
fn callers_share_one_compute() {
    all([gets_the_first, gets_the_first], |world| {
        assert_eq!(world.computes.load(SeqCst), 1);
        assert_eq!(world.stored.load(SeqCst), 1);
    });
}

/// It was dropped before it computed, whether it led or waited: whoever is left gets the value, and nobody waits for ever.
#[test]
fn who_goes_away_leaves_the_others_a_leader() {
    let goes_away = |world: &World| drop(world.join());
    all([goes_away, gets_the_first, gets_the_first], |world| {
        assert_eq!(world.computes.load(SeqCst), 1);
    });
}

/// One that takes over from a leader who computes, and goes away: that leader hears of a write still.
#[test]
fn who_takes_over_and_goes_away_hides_no_write_from_the_other() {
    let takes_over = |world: &World| {
        let impatient = Terms::patient(Duration::ZERO);
        drop(world.flights.join(KEY, TypeId::of::<u32>(), &impatient));
    };
    all([takes_over, gets, writes], |world| {
        assert_eq!(world.stored.load(SeqCst), 2);
    });
}

/// As before, by one who waited already and may have been told to lead.
#[test]
fn who_is_told_to_lead_and_goes_away_leaves_it_to_others() {
    let goes_away = |world: &World| match world.join() {
        Seat::Lead(lead) => drop(lead),
        Seat::Full(_) => panic!("as many may wait as do"),
        Seat::Wait(waiter) => {
            let mut wait = pin!(waiter.wait(Terms::patient(PATIENCE)));
            block_on(poll_fn(|cx| {
                drop(wait.as_mut().poll(cx));
                Poll::Ready(())
            }));
        }
    };
    all([goes_away, goes_away, gets_the_first], |world| {
        assert_eq!(world.computes.load(SeqCst), 1);
    });
}

fn fails(world: &World) -> Option<u32> {
    world.computes.fetch_add(1, SeqCst);
    None
}

/// The first leader's failure is its own; the next has its turn.
#[test]
fn a_failure_is_tried_again_by_another() {
    let tries = |world: &World| {
        world.get_with(fails);
    };
    all([tries, gets_the_first], |world| {
        assert!((1..=2).contains(&world.computes.load(SeqCst)));
        assert_eq!(world.stored.load(SeqCst), 1);
    });
}

/// Four in one flight: two try, and the others are told.
#[test]
fn a_second_failure_is_told_to_all() {
    check(4, || {
        let world = World::new();
        let Seat::Lead(lead) = world.join() else {
            panic!("nobody led before");
        };
        let waits = |_| {
            let Seat::Wait(waiter) = world.join() else {
                panic!("one leads");
            };
            let world = Arc::clone(&world);
            thread::spawn(
                move || match block_on(waiter.wait(Terms::patient(PATIENCE))) {
                    Outcome::Lead(lead) => assert_eq!(world.led(lead, fails), None),
                    Outcome::Failed(_) => {}
                    _ => panic!("there is no value"),
                },
            )
        };
        let waiting = [0, 1, 2].map(waits);
        lead.fail("it failed");
        waiting.into_iter().for_each(|one| one.join().unwrap());
        assert_eq!(world.computes.load(SeqCst), 1);
        assert_eq!(world.flights.len(), 0);
    });
}

#[test]
fn nobody_is_stranded_in_a_flight_that_was_cut_off_and_lost_its_leader() {
    let goes_away = |world: &World| drop(world.join());
    all([goes_away, gets, writes], |world| {
        assert_eq!(world.stored.load(SeqCst), 2);
    });
}

#[test]
fn no_compute_from_before_a_write_is_stored_or_told_after_it() {
    let writes_and_gets = |world: &World| {
        world.write(2);
        assert_eq!(world.get(), 2);
    };
    all([gets, writes_and_gets], |world| {
        assert_eq!(world.stored.load(SeqCst), 2);
    });
}

#[test]
fn nor_by_one_who_joined_it() {
    all([gets, gets, writes], |world| {
        assert_eq!(world.stored.load(SeqCst), 2);
    });
}

#[test]
fn no_compute_from_before_a_clear_is_stored_or_told_after_it() {
    let clears = |world: &World| {
        world.clear();
        assert_eq!(world.get(), 2);
    };
    // What began while it ended may not be stored, and is right.
    all([gets, clears], |world| {
        assert_ne!(world.stored.load(SeqCst), 1);
    });
}

/// What is copied from elsewhere, such as a value that another tier had.
#[test]
fn no_copy_is_stored_across_a_write() {
    let copies = |world: &World| {
        if let Some(storing) = world.flights.store(KEY) {
            let found = world.truth.load(SeqCst);
            world.store(&storing, found);
        }
    };
    all([copies, writes], |world| {
        assert_eq!(world.stored.load(SeqCst), 2);
    });
}

/// A tag was invalidated. What is stored dies with it elsewhere; here it is that nobody is told who asks after that.
#[test]
fn nobody_joins_a_flight_that_was_closed() {
    let asks = |world: &World| {
        if let Seat::Lead(lead) = world.join() {
            lead.expect(Tags::Any);
            let value = world.truth.load(SeqCst);
            drop(lead.land(Landing::of(shared(value))));
        }
    };
    let invalidates = |world: &World| {
        world.truth.store(2, SeqCst);
        world.flights.close("", "tag");
        match world.join() {
            Seat::Lead(_) => {}
            Seat::Full(_) => panic!("as many may wait as do"),
            Seat::Wait(waiter) => {
                let waited = block_on(waiter.wait(Terms::patient(PATIENCE)));
                if let Outcome::Landed(landed) = waited {
                    assert_eq!(number(landed), 2);
                }
            }
        }
    };
    all([asks, invalidates], |_| {});
}

/// A leader with a value past its life offers it and ends with it.
fn offers(world: &World) {
    let Seat::Lead(lead) = world.join() else {
        return;
    };
    lead.offer(shared(7), far());
    drop(lead.land(Landing::stale(shared(7))));
}

/// A caller who takes such values is never left waiting.
#[test]
fn a_stale_value_reaches_those_who_take_it() {
    let takes: fn(&World) = |world| {
        let kind = TypeId::of::<u32>();
        let mut terms = Terms::patient(PATIENCE);
        (terms.takes.stale, terms.soft) = (true, Some(Duration::ZERO));
        match world.flights.join(KEY, kind, &terms) {
            Seat::Lead(lead) => drop(lead),
            Seat::Full(_) => panic!("as many may wait as do"),
            Seat::Wait(waiter) => match block_on(waiter.wait(terms)) {
                Outcome::Landed(landed) => {
                    assert_eq!((landed.form, number(landed)), (Form::Stale, 7))
                }
                Outcome::Lead(lead) => drop(lead),
                Outcome::Rejoin => {}
                Outcome::Failed(_) | Outcome::TimedOut => panic!("nobody fails"),
            },
        }
    };
    all([offers, takes], |_| {});
}

/// And one who does not is never given it.
#[test]
fn a_stale_value_reaches_nobody_else() {
    let refuses: fn(&World) = |world| match world.join() {
        Seat::Lead(lead) => drop(lead),
        Seat::Full(_) => panic!("as many may wait as do"),
        Seat::Wait(waiter) => match block_on(waiter.wait(Terms::patient(PATIENCE))) {
            Outcome::Landed(landed) => panic!("{} is stale", number(landed)),
            Outcome::Lead(lead) => drop(lead),
            Outcome::Rejoin | Outcome::Failed(_) | Outcome::TimedOut => {}
        },
    };
    all([offers, refuses], |_| {});
}

/// A leader that computes a value anew hands out the present one: who asks meanwhile has it at once, before the leader lands or
/// whatever becomes of it.
#[test]
fn who_asks_while_a_value_is_computed_anew_has_the_present_one() {
    let refreshes: fn(&World) = |world| {
        if let Seat::Lead(lead) = world.join() {
            lead.hand_out(shared(7), far());
            drop(lead.land(Landing::of(shared(8))));
        }
    };
    let asks: fn(&World) = |world| match world.join() {
        Seat::Lead(lead) => drop(lead),
        Seat::Full(_) => panic!("as many may wait as do"),
        Seat::Wait(waiter) => match block_on(waiter.wait(Terms::patient(PATIENCE))) {
            Outcome::Landed(landed) => assert!([7, 8].contains(&number(landed))),
            Outcome::Lead(lead) => drop(lead),
            Outcome::Rejoin => {}
            Outcome::Failed(_) | Outcome::TimedOut => panic!("nobody fails"),
        },
    };
    all([refreshes, asks], |_| {});
}

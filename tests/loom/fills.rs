//! A copy is put into memory against all that may happen to its key meanwhile.

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Mutex, RwLock};
use loom::thread;

use crate::gate::{Clears, Gate, Stripe};

/// A store of one key, the memory above it, and what stands between them. 0 is nothing.
struct World {
    clears: RwLock<Clears>,
    stripe: Mutex<Stripe>,
    stored: AtomicU32,
    memory: AtomicU32,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            clears: RwLock::new(Clears::default()),
            stripe: Mutex::new(Stripe::default()),
            stored: AtomicU32::new(1),
            memory: AtomicU32::new(0),
        })
    }

    fn gate(&self) -> Gate<'_> {
        Gate {
            clears: &self.clears,
            stripe: &self.stripe,
        }
    }

    fn evict(&self) {
        self.memory.store(0, Ordering::SeqCst);
    }

    fn fill(&self) {
        let stamp = self.gate().stamp();
        let found = self.stored.load(Ordering::SeqCst);
        if stamp.quiet {
            let put = || self.memory.store(found, Ordering::SeqCst);
            self.gate().insert(stamp, 0, put);
        }
    }

    fn write(&self, value: u32) {
        self.gate().enter(|| self.evict());
        self.stored.store(value, Ordering::SeqCst);
        self.gate().leave();
    }

    /// By others: it is told of afterwards.
    fn foreign(&self, value: u32) {
        self.stored.store(value, Ordering::SeqCst);
        self.gate().written(|| self.evict());
    }

    fn clear(&self) {
        Clears::begin(&self.clears);
        self.evict();
        self.stored.store(0, Ordering::SeqCst);
        Clears::end(&self.clears);
    }

    /// Nobody is at work any more: memory has nothing, or what is stored.
    fn is_right(&self) {
        let found = self.memory.load(Ordering::SeqCst);
        assert!(found == 0 || found == self.stored.load(Ordering::SeqCst));
    }
}

/// Two threads at once, and what memory holds after both.
fn both(one: fn(&World), other: fn(&World)) {
    loom::model(move || {
        let world = World::new();
        let there = Arc::clone(&world);
        let apart = thread::spawn(move || other(&there));
        one(&world);
        apart.join().unwrap();
        world.is_right();
    });
}

#[test]
fn a_fill_against_a_write() {
    both(World::fill, |world| {
        world.write(2);
        // Its process reads on.
        let found = world.memory.load(Ordering::SeqCst);
        assert!(found == 0 || found == 2, "read your writes");
    });
}

#[test]
fn a_fill_against_a_push() {
    both(World::fill, |world| world.foreign(2));
}

#[test]
fn a_fill_against_a_clear() {
    both(World::fill, |world| {
        world.clear();
        assert_eq!(world.memory.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn fills_and_writes() {
    both(
        |world| {
            world.fill();
            world.fill();
        },
        |world| {
            world.write(2);
            world.foreign(3);
        },
    );
}

#[test]
fn two_writers_and_a_fill() {
    loom::model(|| {
        let world = World::new();
        let (one, other) = (Arc::clone(&world), Arc::clone(&world));
        let one = thread::spawn(move || one.write(2));
        let other = thread::spawn(move || other.write(3));
        world.fill();
        one.join().unwrap();
        other.join().unwrap();
        world.is_right();
    });
}

/// Each keeps what it stored, if nobody else may have come later.
#[test]
fn of_two_writers_that_keep_their_values_none_keeps_the_older() {
    fn keep(world: &World, value: u32) {
        world.gate().enter(|| world.evict());
        let stamp = world.gate().stamp();
        world.stored.store(value, Ordering::SeqCst);
        let put = || world.memory.store(value, Ordering::SeqCst);
        world.gate().insert(stamp, 1, put);
        world.gate().leave();
    }
    both(|world| keep(world, 2), |world| keep(world, 3));
}

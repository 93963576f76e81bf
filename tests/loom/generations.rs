//! A generation is asked for against invalidations.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::register::{Known, Register};

/// What the server has, and what the process knows of it.
#[derive(Default)]
struct World {
    server: AtomicU64,
    register: Register,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self::default();
        world.server.store(1, Ordering::SeqCst);
        Arc::new(world)
    }

    /// Asks and learns; at what time, by a clock that goes on with each asking.
    fn ask(&self, asked: u64) {
        let after = self.register.changes();
        let now = self.server.load(Ordering::SeqCst);
        let known = Known {
            now,
            plain: asked == 2,
            asked,
            origin: asked * 10,
        };
        self.register.learn(after, known);
    }

    fn invalidate(&self) {
        self.register.invalidate();
        self.server.fetch_add(1, Ordering::SeqCst);
        self.register.invalidate();
    }
}

#[test]
fn after_an_invalidation_nothing_from_before_is_known() {
    loom::model(|| {
        let world = World::new();
        let asking = Arc::clone(&world);
        let asking = thread::spawn(move || asking.ask(1));
        world.invalidate();
        let known = world.register.known();
        assert!(known.is_none_or(|known| known.now == 2), "{known:?}");
        asking.join().unwrap();
        let known = world.register.known();
        assert!(known.is_none_or(|known| known.now == 2), "{known:?}");
    });
}

/// Others tell: after it took place.
#[test]
fn nor_after_others_have_told_of_one() {
    loom::model(|| {
        let world = World::new();
        let asking = Arc::clone(&world);
        let asking = thread::spawn(move || asking.ask(1));
        world.server.fetch_add(1, Ordering::SeqCst);
        world.register.invalidate();
        asking.join().unwrap();
        let known = world.register.known();
        assert!(known.is_none_or(|known| known.now == 2), "{known:?}");
    });
}

/// A reader without a lock: a generation is never found together with a later time of asking, or with a later place.
#[test]
fn what_is_found_was_asked_for_no_earlier_than_it_says() {
    loom::model(|| {
        let world = World::new();
        world.ask(1);
        let learning = Arc::clone(&world);
        let learning = thread::spawn(move || {
            learning.server.fetch_add(1, Ordering::SeqCst);
            learning.ask(2);
        });
        if let Some(known) = world.register.known() {
            assert!(known.asked <= known.now, "{known:?}");
            assert!(known.origin <= known.now * 10, "{known:?}");
        }
        learning.join().unwrap();
    });
}

#[test]
fn what_was_forgotten_is_never_known_again() {
    loom::model(|| {
        let world = World::new();
        let asking = Arc::clone(&world);
        let asking = thread::spawn(move || asking.ask(1));
        world.register.forget();
        assert!(world.register.known().is_none());
        asking.join().unwrap();
        assert!(world.register.known().is_none());
    });
}

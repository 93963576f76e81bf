//! A source that ends, and begins again, against readers of its copies.

use loom::sync::Arc;
use loom::thread;

use crate::slot::Slot;

/// As a hit does.
fn is_trusted(slot: &Slot, copied: u64) -> bool {
    let (proven, state) = slot.look();
    state >> 32 == copied >> 32 && proven != 0
}

fn heard() -> Arc<Slot> {
    let slot = Slot::default();
    slot.void();
    slot.prove(1);
    Arc::new(slot)
}

#[test]
fn a_copy_from_before_the_end_is_void_after_it() {
    loom::model(|| {
        let slot = heard();
        let copied = slot.state();
        let ending = Arc::clone(&slot);
        let ending = thread::spawn(move || ending.end());
        // Meanwhile either may be so, but once it is void it stays so.
        let first = is_trusted(&slot, copied);
        let second = is_trusted(&slot, copied);
        assert!(first || !second);
        ending.join().unwrap();
        assert!(!is_trusted(&slot, copied));
    });
}

/// A copy that was read before the source is heard anew is void for good, whatever sign of life comes.
#[test]
fn a_copy_from_a_gap_is_void_once_the_source_is_heard() {
    loom::model(|| {
        let slot = heard();
        slot.end();
        let copied = slot.state();
        let beginning = Arc::clone(&slot);
        let beginning = thread::spawn(move || {
            beginning.void();
            beginning.prove(2);
        });
        assert!(!is_trusted(&slot, copied));
        beginning.join().unwrap();
        assert!(!is_trusted(&slot, copied));
        assert!(is_trusted(&slot, slot.state()));
    });
}

/// A view that is set and an epoch that rises lose nothing of each other, and a sign of life never goes back.
#[test]
fn epoch_view_and_sign_of_life_are_kept() {
    loom::model(|| {
        let slot = heard();
        let epoch = slot.state() >> 32;
        let other = Arc::clone(&slot);
        let other = thread::spawn(move || {
            other.set_view(7);
            other.prove(3);
        });
        slot.void();
        slot.set_view(5);
        slot.prove(2);
        other.join().unwrap();
        assert_eq!(slot.state(), (epoch + 1) << 32 | 7);
        assert_eq!(slot.proven(), 3);
    });
}

/// The next who takes the slot finds no copy of the former alive.
#[test]
fn a_copy_of_a_source_that_left_stays_void() {
    loom::model(|| {
        let slot = heard();
        slot.set_view(9);
        let copied = slot.state();
        let leaving = Arc::clone(&slot);
        let leaving = thread::spawn(move || {
            leaving.leave();
            // The next one begins.
            leaving.void();
            leaving.prove(5);
        });
        let first = is_trusted(&slot, copied);
        let second = is_trusted(&slot, copied);
        assert!(first || !second);
        leaving.join().unwrap();
        assert!(!is_trusted(&slot, copied));
        assert_eq!(slot.state() & u64::from(u32::MAX), 0);
    });
}

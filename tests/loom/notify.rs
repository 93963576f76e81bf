//! `tokio::sync::Notify`, as far as flights use it, over loom's locks.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Somebody was told before anybody waited.
    permit: bool,
    waiting: Vec<Place>,
    places: usize,
}

#[derive(Debug)]
struct Place {
    number: usize,
    told: Told,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Alone,
    WithAll,
}

/// One who waits. Enabled or polled, it has a place.
pub(crate) struct Notified<'n> {
    notify: &'n Notify,
    place: Option<usize>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            place: None,
        }
    }

    pub(crate) fn notify_waiters(&self) {
        let mut inner = self.0.lock().unwrap();
        let untold = inner.waiting.iter_mut();
        let wakers: Vec<_> = untold
            .filter(|place| place.told == Told::Nothing)
            .filter_map(|place| {
                place.told = Told::WithAll;
                place.waker.take()
            })
            .collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn notify_one(&self) {
        let mut inner = self.0.lock().unwrap();
        let mut untold = inner.waiting.iter_mut();
        let Some(place) = untold.find(|place| place.told == Told::Nothing) else {
            inner.permit = true;
            return;
        };
        place.told = Told::Alone;
        let waker = place.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Notified<'_> {
    /// Takes a place: whoever is told from now on may be this one.
    pub(crate) fn enable(mut self: Pin<&mut Self>) -> bool {
        self.look(None)
    }

    fn look(&mut self, waker: Option<&Waker>) -> bool {
        let mut inner = self.notify.0.lock().unwrap();
        let Some(number) = self.place else {
            let told = if std::mem::take(&mut inner.permit) {
                Told::WithAll
            } else {
                Told::Nothing
            };
            inner.places += 1;
            let number = inner.places;
            inner.waiting.push(Place {
                number,
                told,
                waker: waker.cloned(),
            });
            self.place = Some(number);
            return told != Told::Nothing;
        };
        let mut places = inner.waiting.iter_mut();
        let place = places.find(|place| place.number == number).unwrap();
        if place.told == Told::Nothing {
            place.waker = waker.cloned().or(place.waker.take());
            return false;
        }
        // It has come to it: nothing is passed on.
        place.told = Told::WithAll;
        true
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.look(Some(cx.waker())) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(number) = self.place else { return };
        let mut inner = self.notify.0.lock().unwrap();
        let at = inner
            .waiting
            .iter()
            .position(|place| place.number == number);
        let place = inner.waiting.swap_remove(at.unwrap());
        drop(inner);
        // It was told and never looked: the next one is told instead.
        if place.told == Told::Alone {
            self.notify.notify_one();
        }
    }
}

//! Functions that are not async.

use std::sync::{Arc, Barrier};

use larder::{Error, Moka, memoize};

use crate::{CACHE, Runs};

static PRIMES: Runs = Runs::new();

#[memoize(cache = CACHE, ttl = "10m")]
fn prime(nth: u32) -> u32 {
    PRIMES.next();
    let is_prime = |n: &u32| (2..*n).all(|d| !n.is_multiple_of(d));
    let nth = usize::try_from(nth).unwrap();
    (2..).filter(is_prime).nth(nth).unwrap()
}

#[test]
fn it_runs_without_a_runtime() {
    assert_eq!((prime(3), prime(3)), (7, 7));
    assert_eq!(PRIMES.count(), 1);
    assert!(prime::delete(3).unwrap());
    assert_eq!(prime(3), 7);
    assert_eq!(prime::refresh(3), 7);
    assert_eq!(PRIMES.count(), 3);
    prime::delete_all().unwrap();
    assert!(!prime::delete(3).unwrap());
    assert_eq!(prime::uncached(3), 7);
}

#[tokio::test]
async fn it_runs_on_a_runtime() {
    assert_eq!(halved(&CACHE, 4).unwrap(), 2);
    assert_eq!(halved(&CACHE, 4).unwrap(), 2);
    assert!(halved(&CACHE, 5).is_err());
}

#[memoize]
fn halved(cache: &Moka, number: u32) -> Result<u32, Error> {
    let _ = cache;
    if number % 2 == 1 {
        return Err(Error::new(larder::ErrorKind::Compute, "odd"));
    }
    Ok(number / 2)
}

static SLOW: Runs = Runs::new();

#[memoize(cache = CACHE, skip(began))]
fn slow(number: u32, began: &Barrier) -> u32 {
    // All threads have called by then, or are about to.
    began.wait();
    std::thread::sleep(std::time::Duration::from_millis(50));
    SLOW.next() + number
}

#[test]
fn threads_share_one_compute() {
    let began = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|at| {
            let began = Arc::clone(&began);
            std::thread::spawn(move || {
                if at > 0 {
                    began.wait();
                }
                slow(10, &began)
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 11);
    }
    assert_eq!(SLOW.count(), 1);
}

/// A turn that does not come is not waited for without end, and the function runs all the same.
#[test]
fn a_bound_on_computes_strands_no_thread() {
    use std::sync::LazyLock;
    use std::time::Duration;

    static ONE: LazyLock<Moka> = LazyLock::new(|| {
        let patience = Duration::from_millis(50);
        Moka::builder()
            .max_computes(1)
            .leader_patience(patience)
            .build()
    });

    #[memoize(cache = ONE)]
    fn sum_to(number: u64) -> u64 {
        if number == 0 {
            0
        } else {
            number + sum_to(number - 1)
        }
    }

    assert_eq!(sum_to(3), 6);
}

//! A store's counters for the recorder of the `metrics` crate.

use crate::backend::Backend;
use crate::stats::Stats;

/// Hands a snapshot of a store's counters to the recorder of the `metrics` crate, as absolute values.
///
/// Names are `larder_` and the counter's name of [`Stats`], and `larder_refusals` with a label `reason`; all carry the
/// label `cache`. Call it as often as you want figures: once a scrape, or on a timer.
///
/// ```
/// use larder::{Moka, metrics::export};
/// let cache = Moka::new(1000);
/// export("users", &cache);
/// ```
pub fn export(name: &str, store: &(impl Backend + ?Sized)) {
    record(name, &store.core().stats());
}

fn record(cache: &str, stats: &Stats) {
    for (name, value) in stats.named() {
        ::metrics::counter!(format!("larder_{name}"), "cache" => cache.to_owned()).absolute(value);
    }
    for (reason, value) in &stats.refusals {
        ::metrics::counter!("larder_refusals", "cache" => cache.to_owned(), "reason" => *reason)
            .absolute(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::null::Null;
    use crate::cache::Cache;
    use ::metrics::{
        Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<HashMap<String, u64>>>);

    struct One(Kept, String);

    impl CounterFn for One {
        fn increment(&self, _: u64) {}
        fn absolute(&self, value: u64) {
            self.0.0.lock().unwrap().insert(self.1.clone(), value);
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: Vec<_> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            Counter::from_arc(Arc::new(One(
                self.clone(),
                format!("{} {}", key.name(), labels.join(" ")),
            )))
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test]
    async fn counters_are_exported_with_their_labels() {
        let (kept, cache) = (Kept::default(), Null::new());
        cache.get::<u8>("k").await.unwrap();
        ::metrics::with_local_recorder(&kept, || export("users", &cache));
        let kept = kept.0.lock().unwrap();
        assert_eq!(kept["larder_misses cache=users"], 1);
        assert_eq!(kept["larder_refusals cache=users reason=checksum"], 0);
    }
}

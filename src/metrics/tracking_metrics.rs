//! Metrics of hits, and the ratios of the newest deliveries.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use metrics::{Counter, counter};

use super::catalogue::{ALL, BOUNCE_RATIO, CLICK_THROUGH_RATIO, DELIVERED_RATIO, HITS, OPEN_RATIO};
use crate::domain::tracking::{Statistics, rate};

type Ratio = fn(&Statistics) -> Option<f64>;

/// The ratios of the newest deliveries, as text for `/metrics`. The clones share the text.
///
/// The recorder cannot hold them: it never forgets a series.
#[derive(Clone, Default)]
pub struct DeliveryRatios(Arc<Mutex<String>>);

impl DeliveryRatios {
    /// Shows the ratios of exactly these deliveries. An unknown ratio is left out.
    pub fn show(&self, deliveries: &[(String, Statistics)]) {
        let ratios: [(&str, Ratio); 4] = [
            (OPEN_RATIO, |s| s.open_rate),
            (CLICK_THROUGH_RATIO, |s| s.click_through_rate),
            (DELIVERED_RATIO, |s| rate(s.delivered, s.delivered + s.failed)),
            (BOUNCE_RATIO, |s| rate(s.failed, s.delivered + s.failed)),
        ];
        let mut text = String::new();
        for (name, ratio) in ratios {
            let known: Vec<(&str, f64)> = deliveries
                .iter()
                .filter_map(|(id, figures)| Some((id.as_str(), ratio(figures)?)))
                .collect();
            if known.is_empty() {
                continue;
            }
            let help =
                ALL.iter().find(|metric| metric.name == name).map_or("", |metric| metric.help);
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (id, ratio) in known {
                let _ = writeln!(text, "{name}{{delivery=\"{id}\"}} {ratio}");
            }
            text.push('\n');
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// The text in the Prometheus format.
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The counters of hits: type, class, counter. Each is looked up once.
static HIT_COUNTERS: OnceLock<Vec<(&'static str, &'static str, Counter)>> = OnceLock::new();

/// Creates the counters with the value 0, with each of their labels.
pub(super) fn set_first_values() {
    let classes = |kind| {
        ["human", "apple_proxy", "machine", "uncounted", "unrecorded", "forged", "expired"].map(
            |class| {
                let counter = counter!(HITS, "type" => kind, "class" => class);
                counter.absolute(0);
                (kind, class, counter)
            },
        )
    };
    HIT_COUNTERS.get_or_init(|| {
        ["open", "click", "mirror", "opt_out"].into_iter().flat_map(classes).collect()
    });
}

/// Counts a hit.
pub fn tracking_hit(kind: &'static str, class: &'static str) {
    let mut counters = HIT_COUNTERS.get().into_iter().flatten();
    match counters.find(|counted| (counted.0, counted.1) == (kind, class)) {
        Some((_, _, counter)) => counter.increment(1),
        None => counter!(HITS, "type" => kind, "class" => class).increment(1),
    }
}

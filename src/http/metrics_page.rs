//! The text of `/metrics`, rendered at most so many times a second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::metrics::DeliveryRatios;

/// The renderings within a second. Further requests get the last text, which is at most a second
/// old. Everybody may ask for the metrics, so a flood must cost little.
const RENDERINGS: u32 = 20;

/// Renders the metrics. Cheap to clone.
#[derive(Clone)]
pub struct MetricsPage {
    pub handle: PrometheusHandle,
    /// The ratios of the newest deliveries.
    pub ratios: DeliveryRatios,
    last: Arc<Mutex<Option<Rendered>>>,
}

/// The last text, and the renderings of the second that began at `since`.
struct Rendered {
    text: Bytes,
    since: Instant,
    renderings: u32,
}

impl MetricsPage {
    /// The page over these metrics.
    pub fn new(handle: PrometheusHandle, ratios: DeliveryRatios) -> Self {
        Self { handle, ratios, last: Arc::default() }
    }

    /// The text of all metrics.
    pub fn text(&self) -> Bytes {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (since, renderings) = match &*last {
            Some(last) if now.duration_since(last.since) < Duration::from_secs(1) => {
                if last.renderings >= RENDERINGS {
                    return last.text.clone();
                }
                (last.since, last.renderings + 1)
            }
            _ => (now, 1),
        };
        let text = Bytes::from(self.handle.render() + &self.ratios.text());
        *last = Some(Rendered { text: text.clone(), since, renderings });
        text
    }
}

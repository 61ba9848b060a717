//! Installs the recorder, with the buckets, help texts and first values of the metrics.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    catalogue::{ALL, BUILD, Kind, LOGIN_FAILURES, Metric},
    delivery_metrics, operation_metrics, request_metrics, tracking_metrics,
};

/// The upper bounds of the buckets of all histograms, in seconds.
const BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
];

/// Installs the recorder of this process. The result renders the metrics.
///
/// # Errors
/// A recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL.iter().filter(|m| m.kind == Kind::Histogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), BUCKETS)?;
    }
    let handle = builder.install_recorder()?;
    for Metric { name, kind, help } in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
    set_first_values();
    Ok(handle)
}

/// Counters must exist before their first event: otherwise Prometheus misses the first increase.
fn set_first_values() {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    counter!(LOGIN_FAILURES).absolute(0);
    delivery_metrics::set_first_values();
    operation_metrics::set_first_values();
    request_metrics::set_first_values();
    tracking_metrics::set_first_values();
}

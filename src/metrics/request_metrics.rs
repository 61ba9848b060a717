//! Metrics of HTTP requests, by route.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::{Counter, Histogram, counter, gauge, histogram};

use super::catalogue::{CERTIFICATE_GOOD, HTTP_REQUESTS, HTTP_SECONDS, TURNED_AWAY};

/// Counts a request.
///
/// `route` must be the pattern and never the path, and `method` one of a few words. Otherwise
/// the labels would have an unbounded number of values.
pub fn http_request(route: &str, method: &'static str, status: u16, took: Duration) {
    RequestSeries::new(route, method, status).count(took);
}

/// Counts a connection or request that a limit of `[server]` turned away.
pub fn turned_away(limit: &'static str) {
    counter!(TURNED_AWAY, "limit" => limit).increment(1);
}

/// Shows whether the files of the certificate could be used when they were read last.
pub fn certificate(good: bool) {
    gauge!(CERTIFICATE_GOOD).set(f64::from(u8::from(good)));
}

/// Sets the metrics to their first values.
pub(super) fn set_first_values() {
    certificate(true);
    for limit in [
        "connections",
        "connections_per_address",
        "requests_per_principal",
        "streams",
        "streams_per_principal",
    ] {
        counter!(TURNED_AWAY, "limit" => limit).absolute(0);
    }
}

/// The series of one route, method and status.
struct RequestSeries {
    requests: Counter,
    seconds: Histogram,
}

impl RequestSeries {
    fn new(route: &str, method: &'static str, status: u16) -> Self {
        let requests = counter!(
            HTTP_REQUESTS,
            "route" => route.to_owned(),
            "method" => method,
            "status" => status.to_string()
        );
        Self { requests, seconds: histogram!(HTTP_SECONDS, "route" => route.to_owned()) }
    }

    fn count(&self, took: Duration) {
        self.requests.increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

/// Counts many requests of few routes, and looks each series up once.
#[derive(Default)]
pub struct RequestMetrics(Mutex<HashMap<(&'static str, &'static str, u16), RequestSeries>>);

impl RequestMetrics {
    /// Counts a request; see [`http_request`] for the labels.
    pub fn answered(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        series
            .entry((route, method, status))
            .or_insert_with(|| RequestSeries::new(route, method, status))
            .count(took);
    }
}

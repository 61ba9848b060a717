//! HTTP requests by route.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::{Counter, Histogram, counter, histogram};

use super::catalogue::{HTTP_REQUESTS, HTTP_SECONDS};

/// `route` is the pattern, never the path, and `method` one of a few: their values are bounded.
pub fn http_request(route: &str, method: &'static str, status: u16, took: Duration) {
    Answered::new(route, method, status).in_time(took);
}

struct Answered {
    requests: Counter,
    seconds: Histogram,
}

impl Answered {
    fn new(route: &str, method: &'static str, status: u16) -> Self {
        let requests = counter!(HTTP_REQUESTS, "route" => route.to_owned(), "method" => method, "status" => status.to_string());
        Self { requests, seconds: histogram!(HTTP_SECONDS, "route" => route.to_owned()) }
    }

    fn in_time(&self, took: Duration) {
        self.requests.increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

/// The same for many requests of few routes: each series is looked up once.
#[derive(Default)]
pub struct RequestMetrics(Mutex<HashMap<(&'static str, &'static str, u16), Answered>>);

impl RequestMetrics {
    pub fn answered(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        series
            .entry((route, method, status))
            .or_insert_with(|| Answered::new(route, method, status))
            .in_time(took);
    }
}

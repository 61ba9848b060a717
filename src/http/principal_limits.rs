//! How much of the admin API one principal may hold at a time: requests and event streams.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::StatusCode;

use super::problem::{Problem, RouteError};
use crate::{config::ServerSettings, metrics};

/// What a principal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Request,
    Stream,
}

/// The requests and event streams that principals hold now. Cheap to clone.
#[derive(Clone)]
pub struct PrincipalLimits(Arc<Limits>);

struct Limits {
    /// Requests and streams of each principal that holds any.
    held: Mutex<HashMap<String, (usize, usize)>>,
    requests_of_principal: usize,
    streams_of_principal: usize,
    streams: usize,
}

impl PrincipalLimits {
    /// The limits of the settings. At most half of all connections may be event streams, but one
    /// always may.
    pub fn new(server: &ServerSettings) -> Self {
        Self(Arc::new(Limits {
            held: Mutex::default(),
            requests_of_principal: server.requests_per_principal,
            streams_of_principal: server.streams_per_principal,
            streams: server.streams.min(server.connections / 2).max(1),
        }))
    }

    /// Lets a principal hold one more request.
    ///
    /// # Errors
    /// 429 if it holds `server.requests_per_principal` already.
    pub fn request(&self, principal: &str) -> Result<PrincipalPermit, RouteError> {
        self.hold(principal, Held::Request)
    }

    /// Lets a principal hold one more event stream.
    ///
    /// # Errors
    /// 429 if it holds `server.streams_per_principal` already. 503 if all principals together hold
    /// `server.streams`, or half of all connections.
    pub fn stream(&self, principal: &str) -> Result<PrincipalPermit, RouteError> {
        self.hold(principal, Held::Stream)
    }

    fn hold(&self, principal: &str, what: Held) -> Result<PrincipalPermit, RouteError> {
        let limits = &self.0;
        let mut held = limits.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (requests, streams) = held.get(principal).copied().unwrap_or_default();
        match what {
            Held::Request if requests >= limits.requests_of_principal => {
                return Err(full(
                    StatusCode::TOO_MANY_REQUESTS,
                    "requests_per_principal",
                    "this principal has too many requests at a time",
                ));
            }
            Held::Stream if streams >= limits.streams_of_principal => {
                return Err(full(
                    StatusCode::TOO_MANY_REQUESTS,
                    "streams_per_principal",
                    "this principal has too many event streams at a time",
                ));
            }
            Held::Stream
                if held.values().map(|(_, streams)| streams).sum::<usize>() >= limits.streams =>
            {
                return Err(full(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "streams",
                    "there are too many event streams at a time",
                ));
            }
            Held::Request | Held::Stream => {}
        }
        let own = held.entry(principal.to_owned()).or_default();
        match what {
            Held::Request => own.0 += 1,
            Held::Stream => own.1 += 1,
        }
        Ok(PrincipalPermit { limits: self.clone(), principal: principal.to_owned(), what })
    }
}

fn full(status: StatusCode, limit: &'static str, why: &str) -> RouteError {
    metrics::turned_away(limit);
    Problem::new(status, format!("server.{limit}: {why}")).into()
}

/// The right to hold one request or event stream, until it is dropped.
pub struct PrincipalPermit {
    limits: PrincipalLimits,
    principal: String,
    what: Held,
}

impl Drop for PrincipalPermit {
    fn drop(&mut self) {
        let mut held = self.limits.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = held.get_mut(&self.principal) else { return };
        match self.what {
            Held::Request => own.0 = own.0.saturating_sub(1),
            Held::Stream => own.1 = own.1.saturating_sub(1),
        }
        if *own == (0, 0) {
            held.remove(&self.principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits(settings: &str) -> PrincipalLimits {
        let config = Config::from_toml(&format!("[server]\n{settings}")).expect("good settings");
        PrincipalLimits::new(&config.server)
    }

    #[test]
    fn a_principal_holds_its_share_and_no_more() {
        let limits = limits("requests_per_principal = 2\nstreams_per_principal = 1\nstreams = 2");
        let first = limits.request("ann").expect("within the limit");
        let _second = limits.request("ann").expect("within the limit");
        assert!(limits.request("ann").is_err() && limits.request("bob").is_ok());
        drop(first);
        assert!(limits.request("ann").is_ok());
        let _streams = ["ann", "bob"].map(|who| limits.stream(who).expect("within the limit"));
        assert!(limits.stream("ann").is_err() && limits.stream("cid").is_err());
    }

    #[test]
    fn who_holds_nothing_is_forgotten_and_half_of_the_connections_stay_free() {
        let limits = limits("connections = 6\nstreams_per_principal = 9");
        let streams: Vec<_> = (0..3).map(|_| limits.stream("ann").expect("a stream")).collect();
        assert!(limits.stream("bob").is_err());
        drop(streams);
        assert!(limits.0.held.lock().expect("no panic").is_empty());
    }
}

//! Failed log-ins: how many a client network may make, and which of them get a log line.
//!
//! A wrong token is answered at once and holds nothing. A good token is always taken, from whatever
//! address it comes: otherwise a neighbour's wrong tokens would lock everybody out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::listen::ClientNetwork;

/// The time over which failures are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The networks that are remembered. When the table is full, a new network counts as one that
/// failed too often.
const NETWORKS: usize = 10_000;
/// The log lines of one network within a window, and those of all networks.
const LINES_OF_NETWORK: u32 = 5;
const LINES: u32 = 30;
/// The failures that are recorded in the log of operations within an hour. That log is never
/// shortened, so strangers must not fill it.
const RECORDED: u32 = 60;
const HOUR: Duration = Duration::from_secs(3600);

/// What becomes of a failed log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureVerdict {
    /// How long the client should wait, if it failed too often: it is answered with 429.
    pub wait: Option<Duration>,
    /// Whether the failure gets a log line.
    pub logged: bool,
    /// Whether the failure is recorded in the log of operations. Only one with a line is.
    pub recorded: bool,
    /// Whether it is the first failure without a line since [`LoginFailures::take_unlogged`]. The
    /// caller calls that a [`WINDOW`] later, and one line says how many there were.
    pub first_unlogged: bool,
}

/// The failures of each client network. The clones share the table.
#[derive(Clone, Default)]
pub struct LoginFailures(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    networks: HashMap<ClientNetwork, Failures>,
    /// The lines of the present window, and when it began.
    lines: u32,
    began: Option<Instant>,
    unlogged: u64,
    /// The recorded failures of the present hour, and when it began.
    recorded: u32,
    hour: Option<Instant>,
}

/// The failures of one network within its window.
#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    began: Instant,
}

impl LoginFailures {
    /// Counts a failure of `network`, which may make `most` within a minute. With 0 it may make
    /// any number.
    pub fn count(&self, network: ClientNetwork, most: u32, now: Instant) -> FailureVerdict {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (table.lines, table.began) = (0, Some(now));
        }
        let (count, left) = table.failures_of(network, now);
        let logged = count <= LINES_OF_NETWORK && table.lines < LINES;
        if table.hour.is_none_or(|hour| now.duration_since(hour) >= HOUR) {
            (table.recorded, table.hour) = (0, Some(now));
        }
        let recorded = logged && table.recorded < RECORDED;
        table.recorded += u32::from(recorded);
        if logged {
            table.lines += 1;
        } else {
            table.unlogged += 1;
        }
        FailureVerdict {
            wait: (most > 0 && count > most).then_some(left),
            logged,
            recorded,
            first_unlogged: !logged && table.unlogged == 1,
        }
    }

    /// The failures since the last call that got no log line.
    pub fn take_unlogged(&self) -> u64 {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).unlogged)
    }
}

impl Table {
    /// The failures of the network in its window, with this one, and the rest of the window.
    fn failures_of(&mut self, network: ClientNetwork, now: Instant) -> (u32, Duration) {
        let is_over = |failures: &Failures| now.duration_since(failures.began) >= WINDOW;
        if self.networks.len() >= NETWORKS && !self.networks.contains_key(&network) {
            self.networks.retain(|_, failures| !is_over(failures));
            if self.networks.len() >= NETWORKS {
                return (u32::MAX, WINDOW);
            }
        }
        let fresh = Failures { count: 0, began: now };
        let own = self.networks.entry(network).or_insert(fresh);
        if is_over(own) {
            *own = fresh;
        }
        own.count = own.count.saturating_add(1);
        (own.count, WINDOW.saturating_sub(now.duration_since(own.began)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(number: u32) -> ClientNetwork {
        ClientNetwork::of(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_network_that_fails_too_often_must_wait_and_is_forgotten_after_a_minute() {
        let (failures, now) = (LoginFailures::default(), Instant::now());
        let waits = |network, now| {
            [(); 4].map(|()| failures.count(network, 3, now).wait.map(|wait| wait.as_secs()))
        };
        assert_eq!(waits(network(1), now), [None, None, None, Some(60)]);
        assert_eq!(waits(network(2), now), [None, None, None, Some(60)]);
        let later = now + Duration::from_secs(20);
        assert_eq!(failures.count(network(1), 3, later).wait, Some(Duration::from_secs(40)));
        assert_eq!(waits(network(1), now + WINDOW), [None, None, None, Some(60)]);
        assert!((0..100).all(|_| failures.count(network(3), 0, now).wait.is_none()));
    }

    #[test]
    fn a_flood_gets_few_lines_and_one_that_counts_the_rest() {
        let (failures, now) = (LoginFailures::default(), Instant::now());
        let verdicts = |network| (0..50).map(move |_| network).collect::<Vec<_>>();
        let of_one: Vec<_> = verdicts(network(1))
            .into_iter()
            .map(|network| failures.count(network, 3, now))
            .collect();
        assert_eq!(of_one.iter().filter(|verdict| verdict.logged).count(), 5);
        assert_eq!(of_one.iter().filter(|verdict| verdict.first_unlogged).count(), 1);
        assert_eq!((failures.take_unlogged(), failures.take_unlogged()), (45, 0));
        let recorded = |from: u32| {
            let minutes = from..from + 10;
            minutes
                .flat_map(|minute| (0..30).map(move |i| (minute, i)))
                .map(|(minute, i)| (network(10_000 + i), now + WINDOW * (minute + 1)))
                .filter(|(network, at)| failures.count(*network, 3, *at).recorded)
                .count()
        };
        let of_many = (2..1000).filter(|i| failures.count(network(*i), 3, now).logged).count();
        assert_eq!(of_many, 25);
        assert!(failures.count(network(5000), 3, now + WINDOW).logged);
        assert!(recorded(1) < 60 && recorded(20) == 0 && recorded(100) == 60);
    }

    #[test]
    fn the_number_of_remembered_networks_is_limited() {
        let (failures, now) = (LoginFailures::default(), Instant::now());
        for i in 0..NETWORKS as u32 {
            failures.count(network(i), 3, now);
        }
        assert_eq!(failures.count(network(1 << 30), 3, now).wait, Some(WINDOW));
        assert_eq!(failures.0.lock().expect("no panic").networks.len(), NETWORKS);
        assert_eq!(failures.count(network(1 << 30), 3, now + WINDOW).wait, None);
        assert_eq!(failures.0.lock().expect("no panic").networks.len(), 1);
    }
}

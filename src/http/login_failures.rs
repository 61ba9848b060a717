//! Failed log-ins: each failure of a peer is answered later than the one before.
//!
//! A good token never waits, from whatever address it comes. A failure that waits for its answer
//! counts among `server.connections`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The longest pause before an answer.
const LONGEST: Duration = Duration::from_secs(5);
/// After this time without a failure a peer starts again at the first pause.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// The peers that are remembered. When the table is full, a new peer gets the longest pause.
const PEERS: usize = 10_000;

/// How often each peer failed, and when it failed last. The clones share the table.
#[derive(Clone, Default)]
pub struct LoginFailures(Arc<Mutex<HashMap<IpAddr, (u32, Instant)>>>);

impl LoginFailures {
    /// Counts a failure of `peer`. Returns how long the answer must wait.
    ///
    /// The first failure waits for `first`, each further one twice as long, at most 5 s.
    pub fn pause(&self, peer: IpAddr, first: Duration, now: Instant) -> Duration {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS {
            peers.retain(|_, (_, last)| now.duration_since(*last) < FORGOTTEN);
        }
        if peers.len() >= PEERS && !peers.contains_key(&peer) {
            return if first.is_zero() { first } else { LONGEST };
        }
        let (count, last) = peers.entry(peer).or_insert((0, now));
        if now.duration_since(*last) >= FORGOTTEN {
            *count = 0;
        }
        let pause = first.saturating_mul(1 << (*count).min(16)).min(LONGEST);
        (*count, *last) = (count.saturating_add(1), now);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    #[test]
    fn each_failure_of_a_peer_is_answered_later_up_to_a_limit_and_forgotten() {
        let (failures, now) = (LoginFailures::default(), Instant::now());
        let [ann, bob] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let pauses: Vec<_> = (0..8).map(|_| failures.pause(ann, FIRST, now).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(failures.pause(bob, FIRST, now), FIRST);
        assert_eq!(failures.pause(ann, FIRST, now + FORGOTTEN), FIRST);
        assert_eq!(failures.pause(bob, Duration::ZERO, now), Duration::ZERO);
    }

    #[test]
    fn the_number_of_remembered_peers_is_limited() {
        let (failures, now) = (LoginFailures::default(), Instant::now());
        let peer = |i: u32| IpAddr::from(i.to_be_bytes());
        for i in 0..PEERS as u32 {
            failures.pause(peer(i), FIRST, now);
        }
        assert_eq!(failures.pause(peer(1 << 30), FIRST, now), LONGEST);
        assert_eq!(failures.0.lock().unwrap().len(), PEERS);
        assert_eq!(failures.pause(peer(1 << 30), FIRST, now + FORGOTTEN), FIRST);
        assert_eq!(failures.0.lock().unwrap().len(), 1);
    }
}

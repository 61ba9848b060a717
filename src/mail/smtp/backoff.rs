//! After a fault new connections wait: short at first, growing, capped; shared by all callers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Turns, MutexGuard as Turn},
    time::{Instant, sleep_until},
};

use super::fault::RelayFault;

const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Backoff {
    state: Mutex<State>,
    turns: Turns<()>,
}

#[derive(Default)]
struct State {
    /// In a row, without a success between.
    faults: u32,
    /// All ever; tells whether one happened while somebody waited.
    seen: u64,
    last: Option<(RelayFault, Instant)>,
    /// A connection was opened since.
    opened: bool,
}

impl Backoff {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free to go while there is no fault; after one, callers go one at a time, each after the pause.
    ///
    /// # Errors
    /// The fault of another caller's attempt: waiting again would only add up.
    pub async fn turn(&self) -> Result<Option<Turn<'_, ()>>, RelayFault> {
        let seen = {
            let state = self.state();
            if state.faults == 0 {
                return Ok(None);
            }
            state.seen
        };
        let turn = self.turns.lock().await;
        let until = {
            let state = self.state();
            match &state.last {
                _ if state.faults == 0 => return Ok(None),
                Some((fault, _)) if state.seen != seen => return Err(fault.clone()),
                Some((_, at)) => *at + pause(state.faults),
                None => return Ok(Some(turn)),
            }
        };
        sleep_until(until).await;
        Ok(Some(turn))
    }

    /// A connection was opened; what it is good for is seen when something is sent.
    pub fn opened(&self) {
        self.state().opened = true;
    }

    /// Whether a connection was opened after the last fault.
    pub fn has_opened(&self) -> bool {
        self.state().opened
    }

    /// Whether there was no success since the last fault.
    pub fn is_on(&self) -> bool {
        self.faults() > 0
    }

    /// Outages in a row, without a success between.
    pub fn faults(&self) -> u32 {
        self.state().faults
    }

    /// Whether it is the first in a row.
    pub fn fault(&self, fault: &RelayFault) -> bool {
        let (mut state, now) = (self.state(), Instant::now());
        let is_first = state.faults == 0;
        state.seen += 1;
        state.opened = false;
        // twenty connections that break together are one outage, and the first of them began the pause
        let same_outage = state
            .last
            .as_ref()
            .is_some_and(|(_, at)| state.faults > 0 && now < *at + pause(state.faults));
        if !same_outage {
            state.faults = state.faults.saturating_add(1);
            state.last = Some((fault.clone(), now));
        }
        is_first
    }

    /// A transaction that the server answered; whether there was a fault before.
    pub fn success(&self) -> bool {
        std::mem::take(&mut self.state().faults) > 0
    }
}

/// 100 ms, 200 ms, ... 10 s.
fn pause(faults: u32) -> Duration {
    let doublings = faults.saturating_sub(1).min(10);
    (FIRST * (1 << doublings)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_that_break_together_are_one_outage() {
        let backoff = Backoff::default();
        for _ in 0..20 {
            backoff.fault(&RelayFault::new("transaction", "connection reset"));
        }
        let began = Instant::now();
        assert!(backoff.turn().await.is_ok());
        assert!(began.elapsed() < FIRST * 2, "{:?}", began.elapsed());
        backoff.fault(&RelayFault::new("connect", "refused"));
        assert_eq!(
            backoff.state().faults,
            2,
            "a failed attempt after the pause makes the next one longer"
        );
    }

    #[test]
    fn the_pause_grows_and_is_capped() {
        let pauses: Vec<u128> =
            [1, 2, 3, 7, 8, 1000, u32::MAX].map(|faults| pause(faults).as_millis()).into();
        assert_eq!(pauses, [100, 200, 400, 6400, 10_000, 10_000, 10_000]);
    }

    #[tokio::test]
    async fn who_waited_for_a_turn_gets_the_fault_of_the_one_before() {
        let backoff = Backoff::default();
        assert!(matches!(backoff.turn().await, Ok(None)));
        backoff.fault(&RelayFault::new("connect", "first"));
        let started = Instant::now();
        let first = backoff.turn().await.expect("its turn");
        assert!(started.elapsed() >= Duration::from_millis(90));
        let (second, ()) = tokio::join!(backoff.turn(), async {
            tokio::task::yield_now().await;
            backoff.fault(&RelayFault::new("connect", "second"));
            drop(first);
        });
        assert_eq!(second.err().map(|fault| fault.what), Some("second".into()));
        backoff.success();
        assert!(matches!(backoff.turn().await, Ok(None)));
    }
}

//! Back-off: after a fault, new connections to a relay wait longer and longer, up to a limit.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as AttemptLock, MutexGuard as AttemptPermit},
    time::{Instant, sleep_until},
};

use super::fault::RelayFault;

/// The pause after the first fault.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The faults of one relay, shared by all who open connections to it.
#[derive(Default)]
pub struct Backoff {
    state: Mutex<State>,
    attempts: AttemptLock<()>,
}

#[derive(Default)]
struct State {
    /// Outages in a row, without a success between them.
    faults: u32,
    /// All faults since the start. If it changes while a caller waits, there was another fault.
    seen: u64,
    /// The first fault of the last outage, and its instant.
    last: Option<(RelayFault, Instant)>,
    /// A connection was opened after the last fault.
    opened: bool,
}

impl Backoff {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a connection may be opened.
    ///
    /// Without a fault it returns at once. After a fault and its pause, one caller at a time may
    /// try. The permit lasts for the attempt.
    ///
    /// # Errors
    ///
    /// The first fault of the last outage, if another fault came in the meantime. This caller does
    /// not wait again, so that pauses do not add up.
    pub async fn wait(&self) -> Result<Option<AttemptPermit<'_, ()>>, RelayFault> {
        let seen = {
            let state = self.state();
            if state.faults == 0 {
                return Ok(None);
            }
            state.seen
        };
        let permit = self.attempts.lock().await;
        let until = {
            let state = self.state();
            match &state.last {
                _ if state.faults == 0 => return Ok(None),
                Some((fault, _)) if state.seen != seen => return Err(fault.clone()),
                Some((_, at)) => *at + pause(state.faults),
                None => return Ok(Some(permit)),
            }
        };
        sleep_until(until).await;
        Ok(Some(permit))
    }

    /// Records an open connection. Only a transaction shows whether the relay takes mail.
    pub fn record_open(&self) {
        self.state().opened = true;
    }

    /// Whether a connection was opened after the last fault.
    pub fn has_opened(&self) -> bool {
        self.state().opened
    }

    /// Whether there was a fault, and no success since.
    pub fn is_active(&self) -> bool {
        self.faults() > 0
    }

    /// Outages in a row, without a success between them.
    pub fn faults(&self) -> u32 {
        self.state().faults
    }

    /// Records a fault.
    pub fn record_fault(&self, fault: &RelayFault) {
        let (mut state, now) = (self.state(), Instant::now());
        state.seen += 1;
        state.opened = false;
        // Connections that break together are one outage. The first of them began the pause.
        let same_outage = state
            .last
            .as_ref()
            .is_some_and(|(_, at)| state.faults > 0 && now < *at + pause(state.faults));
        if !same_outage {
            state.faults = state.faults.saturating_add(1);
            state.last = Some((fault.clone(), now));
        }
    }

    /// Records a transaction that the server answered.
    pub fn record_success(&self) {
        self.state().faults = 0;
    }
}

/// The pause after so many faults: 100 ms, 200 ms, ... 10 s.
fn pause(faults: u32) -> Duration {
    let doublings = faults.saturating_sub(1).min(10);
    (FIRST_PAUSE * (1 << doublings)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_that_break_together_are_one_outage() {
        let backoff = Backoff::default();
        for _ in 0..20 {
            backoff.record_fault(&RelayFault::new("transaction", "connection reset"));
        }
        let began = Instant::now();
        assert!(backoff.wait().await.is_ok());
        assert!(began.elapsed() < FIRST_PAUSE * 2, "{:?}", began.elapsed());
        backoff.record_fault(&RelayFault::new("connect", "refused"));
        assert_eq!(
            backoff.state().faults,
            2,
            "a failed attempt after the pause makes the next pause longer"
        );
    }

    #[test]
    fn the_pause_grows_and_is_capped() {
        let pauses: Vec<u128> =
            [1, 2, 3, 7, 8, 1000, u32::MAX].map(|faults| pause(faults).as_millis()).into();
        assert_eq!(pauses, [100, 200, 400, 6400, 10_000, 10_000, 10_000]);
    }

    #[tokio::test]
    async fn a_waiting_caller_gets_the_fault_of_the_attempt_before() {
        let backoff = Backoff::default();
        assert!(matches!(backoff.wait().await, Ok(None)));
        backoff.record_fault(&RelayFault::new("connect", "first"));
        let started = Instant::now();
        let first = backoff.wait().await.expect("a permit");
        assert!(started.elapsed() >= Duration::from_millis(90));
        let (second, ()) = tokio::join!(backoff.wait(), async {
            tokio::task::yield_now().await;
            backoff.record_fault(&RelayFault::new("connect", "second"));
            drop(first);
        });
        assert_eq!(second.err().map(|fault| fault.what), Some("second".into()));
        backoff.record_success();
        assert!(matches!(backoff.wait().await, Ok(None)));
    }
}

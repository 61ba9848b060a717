//! Metrics of the relays: transactions, acceptances and connections.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};

use super::catalogue::{
    ACCEPTED_DIFFERENCE, IN_DOUBT_BOUND, RELAY_ACCEPTED, RELAY_CONNECTIONS, RELAY_FAULTS,
    RELAY_OPENED, RELAY_UP, TRANSACTION_SECONDS, TRANSACTIONS,
};

/// The values of the label `outcome` of [`TRANSACTIONS`].
const OUTCOMES: [&str; 6] =
    ["accepted", "tested", "deferred", "refused", "in_doubt", "not_started"];

/// The transaction metrics of one relay.
///
/// Each series is looked up once, because there is a transaction for every message.
pub struct TransactionMetrics {
    outcomes: [Counter; OUTCOMES.len()],
    seconds: [Histogram; OUTCOMES.len()],
}

impl TransactionMetrics {
    /// The metrics of the relay with this name.
    pub fn of(relay: &str) -> Self {
        let outcomes = OUTCOMES.map(
            |outcome| counter!(TRANSACTIONS, "relay" => relay.to_owned(), "outcome" => outcome),
        );
        outcomes.iter().for_each(|outcome| outcome.absolute(0));
        let seconds = OUTCOMES.map(|outcome| {
            histogram!(TRANSACTION_SECONDS, "relay" => relay.to_owned(), "outcome" => outcome)
        });
        Self { outcomes, seconds }
    }

    /// Counts a transaction that has ended.
    pub fn ended(&self, outcome: &str, took: Duration) {
        if let Some(at) = OUTCOMES.iter().position(|word| *word == outcome) {
            self.outcomes[at].increment(1);
            self.seconds[at].record(took.as_secs_f64());
        }
    }
}

/// The figures of one relay.
#[derive(Debug, Clone, Copy)]
pub struct RelayFigures {
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Connections opened since the start.
    pub opened: u64,
    /// Connections and sessions that have failed since the start.
    pub faults: u64,
    /// Connections that are open now.
    pub open: usize,
    /// False if the relay has failed more than once in a row.
    pub is_up: bool,
}

/// Shows the figures of a relay.
pub fn relay(name: &str, figures: RelayFigures) {
    let gauge = |metric| gauge!(metric, "relay" => name.to_owned());
    gauge(RELAY_ACCEPTED).set(figures.accepted as f64);
    gauge(RELAY_OPENED).set(figures.opened as f64);
    gauge(RELAY_FAULTS).set(figures.faults as f64);
    gauge(RELAY_CONNECTIONS).set(figures.open as f64);
    gauge(RELAY_UP).set(f64::from(u8::from(figures.is_up)));
}

/// Shows the difference between the messages that all relays accepted and those recorded.
pub fn acceptances(accepted: u64, recorded: u64) {
    gauge!(ACCEPTED_DIFFERENCE).set(accepted as f64 - recorded as f64);
}

/// Shows how many recipients a crash of this process can leave in doubt at most.
pub fn in_doubt_bound(recipients: usize) {
    gauge!(IN_DOUBT_BOUND).set(recipients as f64);
}

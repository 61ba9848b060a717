//! How much computing the dry run of a preparation took, and its limit.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::config::PreparationSettings;

/// The computing time of all messages tried so far.
#[derive(Debug, Default)]
pub(super) struct DryRunEffort {
    taken: Duration,
    messages: u64,
    /// The preparation was stopped or the daemon ends, so not all messages were tried.
    pub(super) stopped: bool,
}

impl DryRunEffort {
    pub(super) fn add(&mut self, taken: Duration, messages: u64) {
        self.taken += taken;
        self.messages += messages;
    }

    /// Says how far the messages so far exceed the limit; `None` if they do not.
    ///
    /// Only messages that were tried raise the limit, so a costly template fails early.
    pub(super) fn excess(&self, settings: &PreparationSettings) -> Option<String> {
        let allowed = u128::from(settings.computing_ms)
            + u128::from(self.messages) * u128::from(settings.computing_us_per_message) / 1000;
        (self.taken.as_millis() > allowed).then(|| {
            format!(
                "takes too much computing: {} messages took {} ms, {} ms each on average; \
                 the limits are preparation.computing_ms = {} and \
                 computing_us_per_message = {}",
                self.messages,
                self.taken.as_millis(),
                self.taken.as_millis() / u128::from(self.messages.max(1)),
                settings.computing_ms,
                settings.computing_us_per_message
            )
        })
    }
}

/// The computing time of this thread so far.
pub(super) fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_grows_with_the_messages_that_were_tried() {
        let settings = PreparationSettings {
            chunk_size: 1,
            allowed_senders: Vec::new(),
            proof_addresses: Vec::new(),
            message_limit_kib: 1,
            line_limit_kib: 1,
            errors_shown: 1,
            proofs_per_hour: 1,
            computing_ms: 1000,
            computing_us_per_message: 2000,
        };
        let mut effort = DryRunEffort::default();
        effort.add(Duration::from_millis(1000), 1);
        assert_eq!(effort.excess(&settings), None);
        effort.add(Duration::from_millis(99), 1);
        assert!(effort.excess(&settings).is_some_and(|text| text.contains("549 ms each")));
        effort.add(Duration::ZERO, 48);
        assert_eq!(effort.excess(&settings), None);
    }
}

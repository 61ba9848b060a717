//! The time slice of a chunk job: how long the job may claim recipients.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep};

/// A job waits this many slices for its first connection: other deliveries may come first.
const FIRST_WAIT: u32 = 10;

/// The time slice of one job.
pub(super) struct JobSlice {
    length: Duration,
    end: Pin<Box<Sleep>>,
    /// True once the job has had its first connection.
    is_connected: bool,
    pub is_over: bool,
}

impl JobSlice {
    pub(super) fn new(length: Duration) -> Self {
        let end = Box::pin(sleep(FIRST_WAIT * length));
        Self { length, end, is_connected: false, is_over: false }
    }

    /// Waits for the end of the slice. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        self.end.as_mut().await;
    }

    /// Starts the slice anew from now.
    pub(super) fn restart(&mut self) {
        let left = if self.is_connected { self.length } else { FIRST_WAIT * self.length };
        self.end.as_mut().reset(Instant::now() + left);
    }

    /// Begins the slice with the first connection. Later connections change nothing.
    pub(super) fn note_connection(&mut self) {
        if !self.is_connected {
            self.is_connected = true;
            self.restart();
        }
    }
}

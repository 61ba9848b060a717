//! The answer to a connection that gets no slot.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_util::task::TaskTracker;

use super::listener_slots::NoSlot;
use crate::{http::problem::Problem, metrics};

/// The connections that are answered at a time. Further ones are closed without an answer.
const ANSWERED_AT_A_TIME: usize = 64;
/// How long such a connection may take to read its answer.
const LIMIT: Duration = Duration::from_secs(1);

/// Answers the connections of a listener that get no slot.
pub struct TurnedAway {
    permits: Arc<Semaphore>,
    /// Whether the clients can read an answer without TLS.
    plain: bool,
}

impl TurnedAway {
    /// With TLS (`plain` is false) such connections are closed at once: no client can read an
    /// answer before its handshake.
    pub fn new(plain: bool) -> Self {
        Self { permits: Arc::new(Semaphore::new(ANSWERED_AT_A_TIME)), plain }
    }

    /// Answers with the limit that was reached, and closes.
    pub fn answer(&self, mut stream: TcpStream, why: NoSlot, tasks: &TaskTracker) {
        let (status, limit, detail) = match why {
            NoSlot::OfNetwork => (
                StatusCode::TOO_MANY_REQUESTS,
                "connections_per_address",
                "server.connections_per_address: this address has too many requests at a time",
            ),
            NoSlot::OfListener => (
                StatusCode::SERVICE_UNAVAILABLE,
                "connections",
                "server.connections: there are too many requests at a time",
            ),
        };
        metrics::turned_away(limit);
        if !self.plain {
            return;
        }
        let Ok(permit) = self.permits.clone().try_acquire_owned() else { return };
        let answer = Problem::new(status, detail).to_bytes();
        tasks.spawn(async move {
            let told = async {
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                // Closing with unread input would reset the connection, and with it the answer.
                let mut unread = [0; 1024];
                while stream.read(&mut unread).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = tokio::time::timeout(LIMIT, told).await;
            drop(permit);
        });
    }
}

//! The heartbeat of the store: shows how far the store has come, and whether it is behind.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    domain::instant,
    live::Live,
    metrics,
    store::{
        StoreError,
        hold::{HoldStore, StoreHold},
    },
};

/// How often each daemon writes the heartbeat.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the heartbeat of the store.
#[derive(Clone)]
pub struct StoreHeartbeat {
    pub holds: HoldStore,
    pub config: Live<Config>,
}

impl StoreHeartbeat {
    /// Writes the heartbeat each second until `end`, also while the daemon drains.
    ///
    /// A heartbeat that is older than the files of the store shows that these were replaced.
    pub async fn keep(&self, end: CancellationToken) {
        let mut known = None;
        while end.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            if let Err(error) = self.beat(&mut known).await {
                tracing::debug!(%error, "the heartbeat of the store cannot be written");
            }
        }
    }

    /// Writes the heartbeat, and logs each hold of the store once.
    async fn beat(&self, known: &mut Option<StoreHold>) -> Result<(), StoreError> {
        self.holds.beat(self.config.now().send.silence()).await?;
        let hold = self.holds.current().await?;
        metrics::store_held(hold.is_some());
        if let Some(found) = hold.filter(|_| hold != *known) {
            tracing::error!(
                since = %instant(found.since),
                why = found.why.word(),
                "the store is held: it may be behind, and nothing is sent until a person releases \
                 it (POST /api/v1/store/release)"
            );
        }
        *known = hold;
        Ok(())
    }
}

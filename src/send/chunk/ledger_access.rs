//! The access of a ledger writer to Redis: batches that are repeated until answered, and beats.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::{
    leased_chunk::LeasedChunk,
    replay::{LeaseHolder, Replay},
};
use crate::{
    clock::unix_now,
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    domain::delivery::DeliveryState,
    metrics,
    store::{
        Redis,
        chunks::{Batch, BatchAnswer, LeaseVerdict, LedgerStore},
    },
};

/// Pause before a call is repeated after Redis did not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// The handles that each ledger writer needs. Cheap to clone.
#[derive(Clone)]
pub struct LedgerAccess {
    pub deliveries: Deliveries,
    pub ledgers: LedgerStore,
    pub redis: Redis,
    pub holder: LeaseHolder,
    /// The number of acceptances that this process has recorded, and of accepted proofs.
    pub acceptances: Arc<AtomicU64>,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

/// The answer to a beat.
pub(super) enum BeatAnswer {
    Renewed,
    /// The lease may still hold: the next beat shows it.
    Unknown,
    /// The lease is lost for this reason.
    Lost(&'static str),
}

impl LedgerAccess {
    /// Writes a batch, and repeats that until Redis answers: an acceptance must not be forgotten.
    ///
    /// `valid_until` is the end of the validity period in Unix seconds.
    ///
    /// Returns `None` if no repetition can help, for example with a damaged ledger. The reported
    /// recipients are in doubt as soon as the chunk changes its holder.
    pub(super) async fn write_batch(
        &self,
        leased: &LeasedChunk,
        batch: &Batch,
        valid_until: u32,
    ) -> Option<BatchAnswer> {
        let at = &leased.at;
        loop {
            let now = unix_now();
            // after the validity period nobody is sent to again
            let resend_after_s = leased.resend_after_s.filter(|_| now < valid_until);
            let mut written =
                self.ledgers.write_batch(at, &leased.lease, batch, now, resend_after_s).await;
            if let Ok(answer) = &written
                && answer.lease == LeaseVerdict::RolledBack
            {
                match self.holder.replay(leased).await {
                    Ok(Replay::Nothing) => {}
                    // the next try applies the batch, or Redis takes its late reports
                    Ok(_) => continue,
                    Err(error) => written = Err(error),
                }
            }
            match written {
                Ok(answer) => return Some(answer),
                Err(error) if !error.may_pass() => {
                    tracing::error!(
                        delivery.id = %at.delivery,
                        chunk = at.chunk,
                        %error,
                        "a batch of records is lost"
                    );
                    return None;
                }
                Err(error) => {
                    metrics::store_retry();
                    tracing::debug!(
                        delivery.id = %at.delivery,
                        chunk = at.chunk,
                        %error,
                        "a batch of records is sent again"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Sends a beat, so that other daemons see that the holder lives.
    pub(super) async fn renew_lease(&self, leased: &LeasedChunk) -> BeatAnswer {
        let at = &leased.at;
        let renewed = match self.ledgers.renew_lease(at, &leased.lease).await {
            Ok(LeaseVerdict::Ok) => Ok(BeatAnswer::Renewed),
            Ok(LeaseVerdict::RolledBack) => {
                self.holder.replay(leased).await.map(|replay| match replay {
                    Replay::PutBack => BeatAnswer::Unknown,
                    Replay::InDoubt | Replay::Nothing => BeatAnswer::Lost("Redis rolled back"),
                })
            }
            Ok(_) => Ok(BeatAnswer::Lost("another worker holds it, or it is gone")),
            Err(error) => Err(error),
        };
        renewed.unwrap_or_else(|error| {
            tracing::debug!(
                delivery.id = %at.delivery,
                chunk = at.chunk,
                %error,
                "the lease was not renewed"
            );
            BeatAnswer::Unknown
        })
    }

    /// Returns true if Redis says that the delivery is not in progress: paused, stopped or gone.
    pub(super) async fn was_halted(&self, leased: &LeasedChunk) -> bool {
        let state = self.deliveries.store.state(&leased.at.delivery).await;
        state.is_ok_and(|state| state != Some(DeliveryState::InProgress))
    }

    /// Waits until Redis promises not to forget the lease.
    pub(super) async fn await_durability(&self) {
        while self.redis.await_durability().await.is_err() {
            tokio::time::sleep(PAUSE).await
        }
    }
}

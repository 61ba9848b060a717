//! TODO head

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::time::MissedTickBehavior;

use super::{liveness::Liveness, redis_state::RedisState};
use crate::{
    config::Config,
    daemon::Daemon,
    metrics,
    send::chunk::LeaseHolder,
    store::{Durability, Redis, StoreError},
};

#[derive(Clone)]
pub struct RedisPulse {
    pub redis: Redis,
    pub holder: LeaseHolder,
    pub liveness: Liveness,
    pub state: RedisState,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

impl RedisPulse {
    /// Asks Redis all the time whether it takes writes, until the shutdown: see [`crate::send::recover::liveness`]. That it answers is not
    /// enough, for without memory it answers and refuses every holder's beat. Another run of
    /// it may have forgotten something.
    pub async fn pulse(&self) {
        let mut beat = tokio::time::interval(self.config.send.lease() / 8);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = String::new();
        while self.daemon.shutdown.run_until_cancelled(beat.tick()).await.is_some() {
            let asked = Instant::now();
            let answer = self.redis.check_writes().await;
            let takes_writes = answer.is_ok();
            self.note_redis(answer);
            if !takes_writes {
                continue;
            }
            metrics::redis_round_trip(asked.elapsed());
            self.liveness.answered(Instant::now());
            let Ok(run) = self.redis.run_id().await else { continue };
            if known == run {
                continue;
            }
            if !known.is_empty() {
                metrics::redis_restarted();
                if let Err(error) = self.holder.replay_given_back().await {
                    tracing::warn!(%error, "what Redis may have forgotten is looked at again");
                    continue;
                }
                self.observe_durability().await;
            }
            known = run;
        }
    }

    /// Says once when Redis takes no writes, and once when it does again.
    pub(crate) fn note_redis(&self, answer: Result<(), StoreError>) {
        let writable = answer.is_ok();
        metrics::redis(writable || answer.as_ref().is_err_and(StoreError::is_refusal), writable);
        if self.state.writable.swap(writable, Ordering::Relaxed) == writable {
            return;
        }
        match answer {
            Ok(()) => tracing::warn!("Redis takes writes again: what waited goes on"),
            Err(error) => {
                tracing::error!(%error, "Redis takes no writes: nothing is sent until it does")
            }
        }
    }

    /// The task: asks what Redis promises, and says so when that has changed.
    pub async fn observe_durability(&self) -> bool {
        let before = self.redis.last_durability();
        match self.redis.durability().await {
            Ok(now) => {
                metrics::redis_durability(now.word(), &Durability::WORDS);
                if before.is_some_and(|before| before != now) {
                    tracing::warn!("what Redis promises has changed: {now}");
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "Redis does not say what it promises");
                false
            }
        }
    }
}

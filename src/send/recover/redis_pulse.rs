//! The pulse of Redis: writes, restarts and the promised durability.

use std::{sync::Arc, time::Instant};

use tokio::time::MissedTickBehavior;

use super::{liveness::Liveness, redis_state::RedisState};
use crate::{
    config::Config,
    daemon::Daemon,
    metrics,
    send::chunk::LeaseHolder,
    store::{Durability, Redis, StoreError},
};

/// Watches Redis for this daemon.
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
    /// Checks eight times per lease whether Redis takes writes, until the shutdown.
    ///
    /// [`Liveness`] needs these answers. An answer alone does not suffice: a Redis without memory
    /// answers, but refuses the beat of every holder. After a restart of Redis, the chunks that
    /// were given back lately are replayed, because Redis may have forgotten them.
    pub async fn pulse(&self) {
        let mut tick = tokio::time::interval(self.config.send.lease() / 8);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known_run = String::new();
        while self.daemon.shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let asked = Instant::now();
            let answer = self.redis.check_writes().await;
            let takes_writes = answer.is_ok();
            self.note_writable(answer);
            if !takes_writes {
                continue;
            }
            metrics::redis_round_trip(asked.elapsed());
            self.liveness.note_answer(Instant::now());
            let Ok(run) = self.redis.run_id().await else { continue };
            if known_run == run {
                continue;
            }
            if !known_run.is_empty() {
                metrics::redis_restarted();
                if let Err(error) = self.holder.replay_given_back().await {
                    tracing::warn!(%error, "the replay after the restart of Redis is tried again");
                    continue;
                }
                self.observe_durability().await;
            }
            known_run = run;
        }
    }

    /// Logs once when Redis takes no writes, and once when it takes writes again.
    fn note_writable(&self, answer: Result<(), StoreError>) {
        let writable = answer.is_ok();
        metrics::redis(writable || answer.as_ref().is_err_and(StoreError::is_refusal), writable);
        if self.state.set_writable(writable) == writable {
            return;
        }
        match answer {
            Ok(()) => tracing::warn!("Redis takes writes again: sending goes on"),
            Err(error) => {
                tracing::error!(%error, "Redis takes no writes: nothing is sent until it does")
            }
        }
    }

    /// The task: reads the durability that Redis promises, and logs a change.
    ///
    /// Returns false if Redis does not answer.
    pub async fn observe_durability(&self) -> bool {
        let before = self.redis.last_durability();
        match self.redis.durability().await {
            Ok(now) => {
                metrics::redis_durability(now.word(), &Durability::WORDS);
                if before.is_some_and(|before| before != now) {
                    tracing::warn!("the durability that Redis promises has changed: {now}");
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the durability that Redis promises cannot be read");
                false
            }
        }
    }
}

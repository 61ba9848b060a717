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
    /// [`Liveness`] needs these answers. An answer alone does not suffice: a Redis whose memory is
    /// full answers, but refuses the beat of every holder. After a restart of Redis, the chunks
    /// that were given back lately are replayed, because Redis may have forgotten them.
    pub async fn pulse(&self) {
        let mut tick = tokio::time::interval(self.config.send.lease() / 8);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut known_run, mut outage) = (String::new(), None);
        while self.daemon.shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let asked = Instant::now();
            let answer = self.redis.check_writes().await;
            let takes_writes = answer.is_ok();
            self.note_writable(answer, &mut outage);
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
                    error.log_failed_pass("the replay after the restart of Redis is tried again");
                    continue;
                }
                self.observe_durability().await;
            }
            known_run = run;
        }
    }

    /// Logs one line when an outage begins, and one when it ends. `outage` is its beginning.
    fn note_writable(&self, answer: Result<(), StoreError>, outage: &mut Option<Instant>) {
        let writable = answer.is_ok();
        metrics::redis(writable || answer.as_ref().is_err_and(StoreError::is_refusal), writable);
        self.state.set_writable(writable);
        let address = self.redis.address();
        match (answer, *outage) {
            (Err(error), None) => {
                *outage = Some(Instant::now());
                tracing::error!(
                    address,
                    %error,
                    "Redis takes no writes: nothing is sent until it does"
                );
            }
            (Ok(()), Some(began)) => {
                *outage = None;
                let seconds = began.elapsed().as_secs_f64();
                tracing::warn!(address, seconds, "Redis takes writes again: sending goes on");
            }
            _ => {}
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

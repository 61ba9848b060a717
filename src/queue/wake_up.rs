//! What wakes the workers.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{PollSnapshot, PollStrategy};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    enqueue::{Queue, QueueName, locked},
    orphan_recovery::now_s,
};

impl Queue {
    /// Rings the bells of the queues that have work, for all workers of this process in one round trip: a fetch by apalis
    /// costs several times as much.
    pub(super) async fn watch(self, shutdown: CancellationToken) {
        let mut look = interval(Duration::from_millis(self.inner.settings.poll_ms));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(look.tick()).await.is_some() {
            let names = locked(&self.inner.watched).clone();
            let mut pipe = redis::pipe();
            for name in &names {
                pipe.llen(name.key("active"));
                pipe.zrangebyscore_limit(name.key("scheduled"), "-inf", now_s(), 0, 1);
            }
            let answers: redis::RedisResult<Vec<redis::Value>> =
                pipe.query_async(&mut self.conn()).await;
            // The workers notice by themselves when Redis is away.
            let Ok(answers) = answers else { continue };
            for (name, pair) in names.iter().zip(answers.chunks_exact(2)) {
                let waiting = matches!(pair[0], redis::Value::Int(1..));
                let due = matches!(&pair[1], redis::Value::Array(ids) if !ids.is_empty());
                if due {
                    let _ = self.promote(*name).await;
                }
                if waiting || due {
                    self.ring(*name);
                }
            }
        }
    }

    /// Wakes the worker at every ring of the queue's bell, and again a little later: a ring that comes while a fetch is on
    /// its way would be lost.
    pub(super) fn rings(&self, name: QueueName) -> WakeUps {
        let (queue, index) = (self.clone(), name.index());
        let rings = stream::unfold((queue, false), move |(queue, again)| async move {
            if again {
                sleep(Duration::from_millis(5)).await;
            } else {
                queue.inner.bells[index].notified().await;
            }
            Some(((), (queue, !again)))
        });
        WakeUps(rings.boxed())
    }
}

/// The rings of one queue's bell.
pub(super) struct WakeUps(BoxStream<'static, ()>);

impl PollStrategy for WakeUps {
    /// Polled until it waits: a stream that has just answered wakes nobody, and its next ring would go unheard.
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut rung = false;
        while self.0.poll_next_unpin(cx).is_ready() {
            rung = true;
        }
        if rung { Poll::Ready(Some(())) } else { Poll::Pending }
    }
}

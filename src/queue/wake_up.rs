//! Wake-ups: the signals that tell a worker that its queue may have work.

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

use super::{enqueue::Queue, lock::locked, queue_name::QueueName};
use crate::clock::unix_now;

/// How long after a wake-up the second one follows.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

impl Queue {
    /// Polls the queues of this process, and wakes the workers of those that have work.
    ///
    /// All queues share one round trip. A fetch by apalis costs several times as much.
    pub(super) async fn poll(self, shutdown: CancellationToken) {
        let mut poll = interval(Duration::from_millis(self.inner.settings.poll_ms));
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(poll.tick()).await.is_some() {
            let names = locked(&self.inner.polled).clone();
            let mut pipe = redis::pipe();
            for name in &names {
                pipe.llen(name.key("active"));
                pipe.zrangebyscore_limit(name.key("scheduled"), "-inf", unix_now(), 0, 1);
            }
            let answers: redis::RedisResult<Vec<redis::Value>> =
                pipe.query_async(&mut self.conn()).await;
            // If Redis is away, the workers notice that by themselves.
            let Ok(answers) = answers else { continue };
            for (name, pair) in names.iter().zip(answers.chunks_exact(2)) {
                let waiting = matches!(pair[0], redis::Value::Int(1..));
                let due = matches!(&pair[1], redis::Value::Array(ids) if !ids.is_empty());
                if due {
                    let _ = self.promote(*name).await;
                }
                if waiting || due {
                    self.wake(*name);
                }
            }
        }
    }

    /// The wake-ups of a queue's worker.
    ///
    /// Each signal wakes the worker twice, the second time a little later: a wake-up that comes
    /// during a fetch would be lost.
    pub(super) fn wake_ups(&self, name: QueueName) -> WakeUps {
        let (queue, index) = (self.clone(), name.index());
        let wake_ups = stream::unfold((queue, false), move |(queue, again)| async move {
            if again {
                sleep(AGAIN_AFTER).await;
            } else {
                queue.inner.wake_ups[index].notified().await;
            }
            Some(((), (queue, !again)))
        });
        WakeUps(wake_ups.boxed())
    }
}

/// The wake-ups of one queue, as apalis takes them.
pub(super) struct WakeUps(BoxStream<'static, ()>);

impl PollStrategy for WakeUps {
    /// Polls the stream until it is pending. Only a pending stream has registered the waker.
    /// Without that, the next signal would wake nobody.
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut woken = false;
        while self.0.poll_next_unpin(cx).is_ready() {
            woken = true;
        }
        if woken { Poll::Ready(Some(())) } else { Poll::Pending }
    }
}

//! Writes hits into the tracking log in batches, and acknowledges each hit when it is durable.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    followed_link::{FollowedLink, LinkError, Visit},
    known_deliveries::SentDelivery,
};
use crate::{
    clock::unix_now,
    daemon::Daemon,
    domain::tracking::{Hit, MachineRules, NO_AGENT, NO_LINK, UserAgent},
    live::Live,
    mail::links::LinkPurpose,
    metrics,
    store::{Redis, tracking::TrackingStore},
};

/// Most hits that wait to be recorded. Further requests wait until there is room.
const WAITING: usize = 10_000;
/// Most hits in one batch.
const BATCH: usize = 1000;
/// Most bytes of a user agent; a longer one is cut to so many characters.
const LONGEST_AGENT: usize = 300;

/// The end of the channel on which hits arrive; [`HitRecorder::record_hits`] reads it.
pub struct HitReceiver(mpsc::Receiver<HitArrival>);

/// The other end of the channel; [`HitRecorder`] holds it.
#[derive(Clone)]
pub struct HitSender(mpsc::Sender<HitArrival>);

struct HitArrival {
    sent: Arc<SentDelivery>,
    preparation: u32,
    hit: Hit,
    agent: String,
    /// Gets true if the hit was recorded, or if its tracking log is gone.
    done: oneshot::Sender<bool>,
}

/// The channel on which hits wait to be recorded.
pub fn hit_channel() -> (HitSender, HitReceiver) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (HitSender(sender), HitReceiver(receiver))
}

/// Records hits.
#[derive(Clone)]
pub struct HitRecorder {
    pub sender: HitSender,
    pub rules: Live<MachineRules>,
    pub tracking: TrackingStore,
    pub redis: Redis,
    pub daemon: Daemon,
}

impl HitRecorder {
    /// Records a hit, and returns when no crash can undo that. Hits that do not count are not
    /// recorded: see [`FollowedLink::is_uncounted`].
    ///
    /// # Errors
    /// [`LinkError::Unrecorded`] if Redis did not take the hit, or if the daemon ends. The request
    /// may be repeated.
    pub async fn record_hit(&self, found: &FollowedLink, visit: Visit) -> Result<(), LinkError> {
        let kind = found.purpose.kind();
        if found.is_uncounted() {
            metrics::tracking_hit(kind.word(), "uncounted");
            return Ok(());
        }
        let agent = visit.agent.as_deref().map_or(UserAgent::None, UserAgent::Is);
        let rules = self.rules.now();
        let label = rules.label(kind, visit.signs, agent, visit.from);
        let hit = Hit {
            recipient: found.holder.recipient,
            at_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
            kind,
            label,
            rules: rules.version,
            link: if let LinkPurpose::Click(link) = found.purpose { link } else { NO_LINK },
            signs: visit.signs,
            agent: NO_AGENT,
            from: visit.from,
        };
        let (done, recorded) = oneshot::channel();
        let mut agent = visit.agent.unwrap_or_default();
        if agent.len() > LONGEST_AGENT {
            agent = agent.chars().take(LONGEST_AGENT).collect();
        }
        let arrival = HitArrival {
            sent: found.sent.clone(),
            preparation: found.holder.preparation,
            hit,
            agent,
            done,
        };
        self.sender.0.send(arrival).await.map_err(|_| LinkError::Unrecorded)?;
        if !recorded.await.unwrap_or(false) {
            return Err(LinkError::Unrecorded);
        }
        metrics::tracking_hit(kind.word(), label.class().word());
        Ok(())
    }

    /// The task: records hits in batches until `end`. While one batch is on its way to Redis the
    /// next one gathers. After `end` it records the hits that wait, and then returns. Later hits
    /// are neither recorded nor acknowledged.
    pub async fn record_hits(&self, mut hits: HitReceiver, end: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                arrived = hits.0.recv_many(&mut batch, BATCH) => if arrived == 0 { return },
                () = end.cancelled() => return,
            }
            let mut deliveries: HashMap<u32, (Arc<SentDelivery>, Vec<HitArrival>)> = HashMap::new();
            for arrival in batch.drain(..) {
                let of_one = deliveries.entry(arrival.preparation);
                of_one.or_insert_with(|| (arrival.sent.clone(), Vec::new())).1.push(arrival);
            }
            join_all(
                deliveries.into_values().map(|(sent, arrived)| self.record_batch(sent, arrived)),
            )
            .await;
        }
    }

    async fn record_batch(&self, sent: Arc<SentDelivery>, arrived: Vec<HitArrival>) {
        let hits: Vec<(Hit, &str)> =
            arrived.iter().map(|arrival| (arrival.hit, arrival.agent.as_str())).collect();
        let answer = self.tracking.record_hits(&sent.mailing, &hits, unix_now()).await;
        let redis = self.redis.clone();
        // the next batch need not wait until this one is durable
        self.daemon.tracker.spawn(async move {
            let recorded = match answer {
                Ok(_) => redis.await_durability().await,
                Err(error) => Err(error),
            };
            if let Err(error) = &recorded {
                error.log_failed_pass("hits are not recorded, and their requests get an error");
            }
            for arrival in arrived {
                // the caller may be gone
                let _ = arrival.done.send(recorded.is_ok());
            }
        });
    }
}

//! Hits on their way into the log: recorded in groups, acknowledged once that cannot be undone.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::tracked_links::{FollowedLink, LinkError, SentDelivery, Visit};
use crate::{
    clock::unix_now,
    daemon::Daemon,
    domain::tracking::{Hit, MachineRules, NO_AGENT, NO_LINK, UserAgent},
    mail::links::LinkPurpose,
    metrics,
    store::{Redis, tracking::TrackingStore},
};

/// Hits that wait to be recorded at the most; who comes then waits outside.
const WAITING: usize = 10_000;
/// Hits in one group.
const GROUP: usize = 1000;
/// A longer user agent is cut.
const LONGEST_AGENT: usize = 300;

/// Where hits go to be recorded.
#[derive(Clone)]
pub struct HitRecorder(mpsc::Sender<HitArrival>);

/// The other end of it.
pub struct HitArrivals(mpsc::Receiver<HitArrival>);

struct HitArrival {
    sent: Arc<SentDelivery>,
    preparation: u32,
    hit: Hit,
    agent: String,
    /// Told whether it was recorded.
    done: oneshot::Sender<bool>,
}

impl HitRecorder {
    pub fn new() -> (Self, HitArrivals) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), HitArrivals(receiver))
    }
}

#[derive(Clone)]
pub struct HitRecording {
    pub recorder: HitRecorder,
    pub rules: Arc<MachineRules>,
    pub tracking: TrackingStore,
    pub redis: Redis,
    pub daemon: Daemon,
}

impl HitRecording {
    /// Records a hit; it returns once that cannot be undone. Of proofs and previews nothing is recorded.
    ///
    /// # Errors
    /// If Redis does not take it: whoever asked may ask again.
    pub async fn record_hit(&self, found: &FollowedLink, visit: Visit) -> Result<(), LinkError> {
        let kind = found.purpose.kind();
        if found.is_uncounted() {
            metrics::tracking_hit(kind.word(), "uncounted");
            return Ok(());
        }
        let agent = visit.agent.as_deref().map_or(UserAgent::None, UserAgent::Is);
        let label = self.rules.label(kind, visit.signs, agent, visit.from);
        let hit = Hit {
            recipient: found.holder.recipient,
            at_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
            kind,
            label,
            rules: self.rules.version,
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
        self.recorder.0.send(arrival).await.map_err(|_| LinkError::Unrecorded)?;
        if !recorded.await.unwrap_or(false) {
            return Err(LinkError::Unrecorded);
        }
        metrics::tracking_hit(kind.word(), label.class().word());
        Ok(())
    }

    /// The task: records what arrives, in groups: while one is on its way the next one gathers. What comes after the end is not
    /// recorded, and not acknowledged.
    pub async fn record_hits(&self, mut arrivals: HitArrivals, end: CancellationToken) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            tokio::select! {
                biased;
                arrived = arrivals.0.recv_many(&mut group, GROUP) => if arrived == 0 { return },
                () = end.cancelled() => return,
            }
            let mut deliveries: HashMap<u32, (Arc<SentDelivery>, Vec<HitArrival>)> = HashMap::new();
            for arrival in group.drain(..) {
                let of_one = deliveries.entry(arrival.preparation);
                of_one.or_insert_with(|| (arrival.sent.clone(), Vec::new())).1.push(arrival);
            }
            join_all(
                deliveries.into_values().map(|(sent, arrived)| self.record_group(sent, arrived)),
            )
            .await;
        }
    }

    async fn record_group(&self, sent: Arc<SentDelivery>, arrived: Vec<HitArrival>) {
        let hits: Vec<(Hit, &str)> =
            arrived.iter().map(|arrival| (arrival.hit, arrival.agent.as_str())).collect();
        let answer = self.tracking.record_hits(&sent.mailing, &hits, unix_now()).await;
        let redis = self.redis.clone();
        // those of the next group need not wait until this one cannot be undone
        self.daemon.tracker.spawn(async move {
            let recorded = match answer {
                Ok(_) => redis.await_durability().await,
                Err(error) => Err(error),
            };
            if let Err(error) = &recorded {
                tracing::warn!(delivery.id = %sent.mailing.delivery, %error, "hits are not recorded: they are not acknowledged");
            }
            for arrival in arrived {
                // who asked may be gone
                let _ = arrival.done.send(recorded.is_ok());
            }
        });
    }
}

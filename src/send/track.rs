//! What comes back from recipients: opens, clicks, mirror pages and opt-outs are recorded before they are answered.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Context, Refusal, preview::Letter, unix_now};
use crate::{
    domain::tracking::{Hit, HitKind, Link, NO_AGENT, NO_LINK, rules::Agent},
    mail::{
        rewrite::web_address,
        template::{Stamp, Template},
        token::{Holder, Purpose, Token},
    },
    metrics,
    store::{StoreError, hits::Mailing},
};

/// What is known of a delivery is asked again after so long.
const FRESH: Duration = Duration::from_secs(60);
/// Deliveries that are remembered at the most.
const KEPT: usize = 1000;
/// Hits that wait to be recorded at the most; who comes then waits outside.
const WAITING: usize = 10_000;
/// Hits in one group.
const GROUP: usize = 1000;
/// A longer user agent is cut.
const LONGEST_AGENT: usize = 300;

/// A request to the public listener, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    pub from: IpAddr,
    pub agent: Option<String>,
    /// Bits of `tracking::signs`.
    pub signs: u8,
}

/// Why a link is not followed.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    /// Nobody signed it.
    #[error("the link is forged")]
    Forged,
    /// Its delivery is gone, or was released too long ago.
    #[error("the link is too old")]
    Expired,
    #[error("{0}")]
    Unavailable(#[from] StoreError),
    #[error("it is not recorded")]
    Unrecorded,
}

/// What a good token stands for.
#[derive(Debug, Clone)]
pub struct Found {
    pub sent: Arc<Sent>,
    pub holder: Holder,
    pub purpose: Purpose,
}

impl Found {
    /// What comes back of proofs and previews counts for nothing.
    pub fn is_uncounted(&self) -> bool {
        self.holder.is_proof || !self.sent.is_counted
    }
}

/// A delivery as its links need it.
#[derive(Debug)]
pub struct Sent {
    pub mailing: Mailing,
    pub links: Vec<Link>,
    /// None if it is a preview. With waves it is the last one's time: links age from then on.
    pub released_at: Option<Timestamp>,
    /// Whether its hits are recorded: it was released, and its tracking log is not closed.
    is_counted: bool,
    known_at: Instant,
}

/// Deliveries that links led to lately, by the number of their preparation.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<HashMap<u32, Arc<Sent>>>>);

/// Where hits go to be recorded.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Arrival>);

/// The other end of it.
pub struct Arrivals(mpsc::Receiver<Arrival>);

struct Arrival {
    mailing: Mailing,
    hit: Hit,
    agent: String,
    /// Told whether it was recorded.
    done: oneshot::Sender<bool>,
}

impl Recorder {
    pub fn new() -> (Self, Arrivals) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), Arrivals(receiver))
    }
}

impl Context {
    /// What a token stands for.
    ///
    /// # Errors
    /// If it is forged, or what it stands for is gone.
    pub async fn find_sent(&self, kind: HitKind, text: &str) -> Result<Found, Miss> {
        let found = self.look_up(kind, text).await;
        match &found {
            Err(Miss::Forged) => metrics::tracking_hit(kind.word(), "forged"),
            Err(Miss::Expired) => metrics::tracking_hit(kind.word(), "expired"),
            _ => {}
        }
        found
    }

    async fn look_up(&self, kind: HitKind, text: &str) -> Result<Found, Miss> {
        let token = Token::read(text, kind).ok_or(Miss::Forged)?;
        let sent = self.sent(token.holder.preparation).await?.ok_or(Miss::Expired)?;
        let Mailing { delivery, generation, .. } = &sent.mailing;
        if !self.tokens.signer(delivery, *generation, token.holder).has_signed(&token) {
            return Err(Miss::Forged);
        }
        let days = SignedDuration::from_hours(24 * i64::from(self.config.public.link_days));
        let is_old = sent.released_at.is_some_and(|at| Timestamp::now().duration_since(at) > days);
        if is_old && kind != HitKind::OptOut {
            return Err(Miss::Expired);
        }
        Ok(Found { sent, holder: token.holder, purpose: token.purpose })
    }

    /// The delivery of a preparation, if that is still what is or will be sent.
    async fn sent(&self, preparation: u32) -> Result<Option<Arc<Sent>>, StoreError> {
        let known = || self.sent_lately.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sent) = known().get(&preparation).filter(|sent| sent.known_at.elapsed() < FRESH) {
            return Ok(Some(sent.clone()));
        }
        let Some(mailing) = self.store.mailing(preparation).await? else { return Ok(None) };
        let Some(delivery) = self.store.delivery(&mailing.delivery).await? else { return Ok(None) };
        let document = &delivery.document;
        let Some(plan) = document.plan.as_ref().filter(|plan| plan.generation == mailing.generation) else { return Ok(None) };
        if document.cleaned.is_some() {
            return Ok(None);
        }
        let links = self.links(&delivery, plan).await?;
        let released_at = document.release.as_ref().and_then(|release| plan.last_due.max(Some(release.confirmed_at)));
        let is_counted = released_at.is_some() && document.tracking_cleaned_at.is_none();
        let sent = Arc::new(Sent { mailing, links, released_at, is_counted, known_at: Instant::now() });
        if sent.released_at.is_none() {
            // a preview: the next look may find it released, and from then on everything counts
            return Ok(Some(sent));
        }
        let mut known = known();
        if known.len() >= KEPT {
            known.retain(|_, sent| sent.known_at.elapsed() < FRESH);
        }
        if known.len() < KEPT {
            known.insert(preparation, sent.clone());
        }
        Ok(Some(sent))
    }

    /// Records a hit; it returns once that cannot be undone. Of proofs and previews nothing is recorded.
    ///
    /// # Errors
    /// If Redis does not take it: whoever asked may ask again.
    pub async fn record_hit(&self, found: &Found, visit: Visit) -> Result<(), Miss> {
        let kind = found.purpose.kind();
        if found.is_uncounted() {
            metrics::tracking_hit(kind.word(), "uncounted");
            return Ok(());
        }
        let agent = visit.agent.as_deref().map_or(Agent::None, Agent::Is);
        let label = self.rules.label(kind, visit.signs, agent, visit.from);
        let hit = Hit {
            recipient: found.holder.recipient,
            at_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
            kind,
            label,
            rules: self.rules.version,
            link: if let Purpose::Click(link) = found.purpose { link } else { NO_LINK },
            signs: visit.signs,
            agent: NO_AGENT,
            from: visit.from,
        };
        let (done, recorded) = oneshot::channel();
        let agent = visit.agent.unwrap_or_default().chars().take(LONGEST_AGENT).collect();
        let arrival = Arrival { mailing: found.sent.mailing.clone(), hit, agent, done };
        self.recorder.0.send(arrival).await.map_err(|_| Miss::Unrecorded)?;
        if !recorded.await.unwrap_or(false) {
            return Err(Miss::Unrecorded);
        }
        metrics::tracking_hit(kind.word(), label.class().word());
        Ok(())
    }

    /// The task: records what arrives, in groups: while one is on its way the next one gathers. What comes after the end is not
    /// recorded, and not acknowledged.
    pub async fn record_hits(&self, mut arrivals: Arrivals, end: CancellationToken) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            tokio::select! {
                biased;
                arrived = arrivals.0.recv_many(&mut group, GROUP) => if arrived == 0 { return },
                () = end.cancelled() => return,
            }
            let mut deliveries: HashMap<Mailing, Vec<Arrival>> = HashMap::new();
            for arrival in group.drain(..) {
                deliveries.entry(arrival.mailing.clone()).or_default().push(arrival);
            }
            join_all(deliveries.into_iter().map(|(mailing, arrived)| self.record_group(mailing, arrived))).await;
        }
    }

    async fn record_group(&self, mailing: Mailing, arrived: Vec<Arrival>) {
        let hits: Vec<(Hit, &str)> = arrived.iter().map(|arrival| (arrival.hit, arrival.agent.as_str())).collect();
        let answer = self.store.record_hits(&mailing, &hits, unix_now()).await;
        let context = self.clone();
        // those of the next group need not wait until this one cannot be undone
        self.tracker.spawn(async move {
            let recorded = match answer {
                Ok(_) => context.store.durable().await,
                Err(error) => Err(error),
            };
            if let Err(error) = &recorded {
                tracing::warn!(delivery.id = %mailing.delivery, %error, "hits are not recorded: they are not acknowledged");
            }
            for arrival in arrived {
                // who asked may be gone
                let _ = arrival.done.send(recorded.is_ok());
            }
        });
    }
}

impl Context {
    /// Where a link leads: what the delivery's own table says, with the fields of the recipient where it has any.
    ///
    /// # Errors
    /// [`Miss::Expired`] if there is no such link, or it leads nowhere.
    pub async fn target_of(&self, found: &Found) -> Result<String, Miss> {
        let Purpose::Click(number) = found.purpose else { return Err(Miss::Forged) };
        let link = found.sent.links.get(usize::from(number)).ok_or(Miss::Expired)?;
        if !link.merged {
            return web_address(&link.url).ok_or(Miss::Expired);
        }
        let (template, Letter { recipient, .. }) = self.letter_of(found).await?;
        template.target(number, &recipient).ok_or(Miss::Expired)
    }

    /// The mirror page: the message as its recipient got it.
    ///
    /// # Errors
    /// [`Miss::Expired`] if it is gone.
    pub async fn mirror_of(&self, found: &Found) -> Result<String, Miss> {
        let (template, Letter { recipient, stamp, .. }) = self.letter_of(found).await?;
        let Mailing { delivery, generation, .. } = &found.sent.mailing;
        // what is in a proof's stays one
        let signer = Some(self.tokens.signer(delivery, *generation, found.holder));
        template.mirror(&recipient, &Stamp { signer, ..stamp }).map_err(|_| Miss::Expired)
    }

    pub(super) async fn letter_of(&self, found: &Found) -> Result<(Arc<Template>, Letter), Miss> {
        let delivery = self.store.delivery(&found.sent.mailing.delivery).await?.ok_or(Miss::Expired)?;
        let plan = delivery.document.plan.as_ref().ok_or(Miss::Expired)?;
        let template = self.prepared_template(&delivery, plan)?;
        match self.letter(&delivery, plan, u64::from(found.holder.recipient), None).await {
            Ok(letter) => Ok((template, letter)),
            Err(Refusal::Unavailable(error)) if error.may_pass() => Err(error.into()),
            Err(_) => Err(Miss::Expired),
        }
    }
}

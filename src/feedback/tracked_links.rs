//! What comes back from recipients: opens, clicks, mirror pages and opt-outs are recorded before they are answered.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    deliveries::{Context, Refusal},
    domain::tracking::{HitKind, TrackedLink},
    mail::{
        links::{LinkPurpose, LinkToken, TokenHolder, web_address},
        template::{MessageStamp, Template},
    },
    metrics,
    report::RecipientMessage,
    store::{StoreError, tracking::PreparationRef},
};

/// What is known of a delivery is asked again after so long.
const FRESH: Duration = Duration::from_secs(60);
/// Deliveries that are remembered at the most.
const KEPT: usize = 1000;
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
pub enum LinkError {
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
pub struct FollowedLink {
    pub sent: Arc<SentDelivery>,
    pub holder: TokenHolder,
    pub purpose: LinkPurpose,
}

impl FollowedLink {
    /// What comes back of proofs and previews counts for nothing.
    pub fn is_uncounted(&self) -> bool {
        self.holder.is_proof || !self.sent.is_counted
    }
}

/// A delivery as its links need it.
#[derive(Debug)]
pub struct SentDelivery {
    pub mailing: PreparationRef,
    pub links: Vec<TrackedLink>,
    /// None if it is a preview. With waves it is the last one's time: links age from then on.
    pub released_at: Option<Timestamp>,
    /// Whether its hits are recorded: it was released, and its tracking log is not closed.
    is_counted: bool,
    known_at: Instant,
}

/// Deliveries that links led to lately, by the number of their preparation.
#[derive(Clone, Default)]
pub struct KnownDeliveries(Arc<Mutex<HashMap<u32, Arc<SentDelivery>>>>);

impl KnownDeliveries {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<SentDelivery>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// What a token stands for.
    ///
    /// # Errors
    /// If it is forged, or what it stands for is gone.
    pub async fn find_sent(&self, kind: HitKind, text: &str) -> Result<FollowedLink, LinkError> {
        let found = self.look_up(kind, text).await;
        match &found {
            Err(LinkError::Forged) => metrics::tracking_hit(kind.word(), "forged"),
            Err(LinkError::Expired) => metrics::tracking_hit(kind.word(), "expired"),
            _ => {}
        }
        found
    }

    async fn look_up(&self, kind: HitKind, text: &str) -> Result<FollowedLink, LinkError> {
        let token = LinkToken::read(text, kind).ok_or(LinkError::Forged)?;
        let sent = self.sent(token.holder.preparation).await?.ok_or(LinkError::Expired)?;
        let PreparationRef { delivery, generation, .. } = &sent.mailing;
        if !self.tokens.signer(delivery, *generation, token.holder).has_signed(&token) {
            return Err(LinkError::Forged);
        }
        let days = SignedDuration::from_hours(24 * i64::from(self.config.public.link_days));
        let is_old = sent.released_at.is_some_and(|at| Timestamp::now().duration_since(at) > days);
        if is_old && kind != HitKind::OptOut {
            return Err(LinkError::Expired);
        }
        Ok(FollowedLink { sent, holder: token.holder, purpose: token.purpose })
    }

    /// The delivery of a preparation, if that is still what is or will be sent.
    async fn sent(&self, preparation: u32) -> Result<Option<Arc<SentDelivery>>, StoreError> {
        if let Some(sent) = self.sent_lately.lock().get(&preparation).filter(|sent| sent.known_at.elapsed() < FRESH) {
            return Ok(Some(sent.clone()));
        }
        // in a box: the most requests do not get here, and need no room for it
        Box::pin(self.sent_anew(preparation)).await
    }

    async fn sent_anew(&self, preparation: u32) -> Result<Option<Arc<SentDelivery>>, StoreError> {
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
        let sent = Arc::new(SentDelivery { mailing, links, released_at, is_counted, known_at: Instant::now() });
        if sent.released_at.is_none() {
            // a preview: the next look may find it released, and from then on everything counts
            return Ok(Some(sent));
        }
        let mut known = self.sent_lately.lock();
        if known.len() >= KEPT {
            known.retain(|_, sent| sent.known_at.elapsed() < FRESH);
        }
        if known.len() < KEPT {
            known.insert(preparation, sent.clone());
        }
        Ok(Some(sent))
    }
}

impl Context {
    /// Where a link leads: what the delivery's own table says, with the fields of the recipient where it has any.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if there is no such link, or it leads nowhere.
    pub async fn target_of(&self, found: &FollowedLink) -> Result<String, LinkError> {
        let LinkPurpose::Click(number) = found.purpose else { return Err(LinkError::Forged) };
        let link = found.sent.links.get(usize::from(number)).ok_or(LinkError::Expired)?;
        if !link.merged {
            return web_address(&link.url).ok_or(LinkError::Expired);
        }
        let (template, RecipientMessage { recipient, .. }) = Box::pin(self.letter_of(found)).await?;
        template.target(number, &recipient).ok_or(LinkError::Expired)
    }

    /// The mirror page: the message as its recipient got it.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if it is gone.
    pub async fn mirror_of(&self, found: &FollowedLink) -> Result<String, LinkError> {
        let (template, RecipientMessage { recipient, stamp, .. }) = self.letter_of(found).await?;
        let PreparationRef { delivery, generation, .. } = &found.sent.mailing;
        // what is in a proof's stays one
        let signer = Some(self.tokens.signer(delivery, *generation, found.holder));
        template.mirror(&recipient, &MessageStamp { signer, ..stamp }).map_err(|_| LinkError::Expired)
    }

    pub(crate) async fn letter_of(&self, found: &FollowedLink) -> Result<(Arc<Template>, RecipientMessage), LinkError> {
        let delivery = self.store.delivery(&found.sent.mailing.delivery).await?.ok_or(LinkError::Expired)?;
        let plan = delivery.document.plan.as_ref().ok_or(LinkError::Expired)?;
        let template = self.prepared_template(&delivery, plan)?;
        match self.letter(&delivery, plan, u64::from(found.holder.recipient), None).await {
            Ok(letter) => Ok((template, letter)),
            Err(Refusal::Unavailable(error)) if error.may_pass() => Err(error.into()),
            Err(_) => Err(LinkError::Expired),
        }
    }
}

//! Finds what the token of a link stands for: the delivery, the recipient and the target.

use std::{sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};

use super::{
    followed_link::{FollowedLink, LinkError, OptOutLink},
    known_deliveries::{KnownDeliveries, SentDelivery},
};
use crate::{
    config::Config,
    deliveries::{Deliveries, Refusal},
    domain::{audience::AddressKey, delivery::DeliveryState, tracking::HitKind},
    mail::{
        links::{LinkPurpose, LinkToken, TokenHolder, web_address},
        template::{MessageStamp, Template},
    },
    metrics,
    report::{RecipientMessage, RecipientMessages},
    store::{
        StoreError,
        addresses::{AddressStore, SentProof},
        tracking::PreparationRef,
    },
};

/// Counts a link that cannot be followed.
fn count_miss(kind: HitKind, miss: Option<&LinkError>) {
    match miss {
        Some(LinkError::Forged) => metrics::tracking_hit(kind.word(), "forged"),
        Some(LinkError::Expired) => metrics::tracking_hit(kind.word(), "expired"),
        _ => {}
    }
}

/// Follows links.
#[derive(Clone)]
pub struct LinkTargets {
    pub deliveries: Deliveries,
    pub addresses: AddressStore,
    pub recipients: RecipientMessages,
    pub known: KnownDeliveries,
    pub config: Arc<Config>,
}

impl LinkTargets {
    /// Checks a token, and finds its delivery. `text` is the token as it stands in the URL.
    ///
    /// # Errors
    /// [`LinkError::Forged`]; [`LinkError::Expired`] if the delivery or its logs are gone, or the
    /// link is too old; [`LinkError::Unavailable`] if Redis does not answer. Links for opt-outs do
    /// not age.
    pub async fn find(&self, kind: HitKind, text: &str) -> Result<FollowedLink, LinkError> {
        let found = self.look_up(kind, text).await;
        count_miss(kind, found.as_ref().err());
        found
    }

    /// Checks the token of an opt-out link, and finds its message or its address.
    ///
    /// # Errors
    /// As [`LinkTargets::find`].
    pub async fn find_opt_out(&self, text: &str) -> Result<OptOutLink, LinkError> {
        let found = match self.look_up(HitKind::OptOut, text).await {
            Ok(found) => Ok(OptOutLink::Message(found)),
            // the delivery or its logs are gone, or another preparation has the number in the token
            Err(LinkError::Forged | LinkError::Expired) => {
                Box::pin(self.kept_opt_out(text)).await.map(OptOutLink::Kept)
            }
            Err(other) => Err(other),
        };
        count_miss(HitKind::OptOut, found.as_ref().err());
        found
    }

    /// The kept address behind the token of an opt-out link.
    pub(super) async fn kept_opt_out(&self, text: &str) -> Result<AddressKey, LinkError> {
        let token = LinkToken::read(text, HitKind::OptOut).ok_or(LinkError::Forged)?;
        let holder = token.holder;
        let of = self.addresses.kept_preparation(holder.preparation).await?;
        let of = of.ok_or(LinkError::Expired)?;
        let tokens = &self.recipients.messages.tokens;
        if !tokens.signer(&of.delivery, of.generation, holder).has_signed(&token) {
            return Err(LinkError::Forged);
        }
        if holder.is_proof {
            return Ok(self.proof_of(holder).await?.ok_or(LinkError::Expired)?.address);
        }
        let place = of.locate(holder.recipient).ok_or(LinkError::Expired)?;
        let kept = self.addresses.kept_address(holder.preparation, place).await?;
        kept.ok_or(LinkError::Expired)
    }

    /// The proof that a token names, if it names one.
    async fn proof_of(&self, holder: TokenHolder) -> Result<Option<SentProof>, StoreError> {
        match holder.proof_number() {
            Some(number) => self.addresses.sent_proof(holder.preparation, number).await,
            None => Ok(None),
        }
    }

    async fn look_up(&self, kind: HitKind, text: &str) -> Result<FollowedLink, LinkError> {
        let token = LinkToken::read(text, kind).ok_or(LinkError::Forged)?;
        let sent = self.sent(token.holder.preparation).await?.ok_or(LinkError::Expired)?;
        let PreparationRef { delivery, generation, .. } = &sent.mailing;
        let tokens = &self.recipients.messages.tokens;
        if !tokens.signer(delivery, *generation, token.holder).has_signed(&token) {
            return Err(LinkError::Forged);
        }
        let days = SignedDuration::from_hours(24 * i64::from(self.config.public.link_days));
        let is_old = sent.released_at.is_some_and(|at| Timestamp::now().duration_since(at) > days);
        if is_old && kind != HitKind::OptOut {
            return Err(LinkError::Expired);
        }
        let proof = self.proof_of(token.holder).await?;
        if proof.is_none() && token.holder.proof_number().is_some() {
            return Err(LinkError::Expired);
        }
        Ok(FollowedLink { sent, holder: token.holder, purpose: token.purpose, proof })
    }

    /// The delivery of a preparation, if it still has that preparation and its logs.
    async fn sent(&self, preparation: u32) -> Result<Option<Arc<SentDelivery>>, StoreError> {
        if let Some(sent) = self.known.get(preparation) {
            return Ok(Some(sent));
        }
        // in a box, because most requests do not get here and need no room for this future
        Box::pin(self.read_sent(preparation)).await
    }

    async fn read_sent(&self, preparation: u32) -> Result<Option<Arc<SentDelivery>>, StoreError> {
        let Some(mailing) = self.addresses.preparation_ref(preparation).await? else {
            return Ok(None);
        };
        let Some(delivery) = self.deliveries.read(&mailing.delivery).await? else {
            return Ok(None);
        };
        let document = &delivery.document;
        let Some(plan) =
            document.plan.as_ref().filter(|plan| plan.generation == mailing.generation)
        else {
            return Ok(None);
        };
        if document.cleaned.is_some() || delivery.state == DeliveryState::Deleted {
            return Ok(None);
        }
        let links = self.recipients.audiences.links(&delivery, plan).await?;
        let released_at = document
            .confirmation
            .as_ref()
            .and_then(|confirmation| plan.last_due.max(Some(confirmation.confirmed_at)));
        let is_counted = released_at.is_some() && document.tracking_cleaned_at.is_none();
        let sent = Arc::new(SentDelivery {
            mailing,
            links,
            released_at,
            is_counted,
            known_at: Instant::now(),
        });
        if sent.released_at.is_none() {
            // not kept: the next request may find the delivery confirmed, and its hit counts then
            return Ok(Some(sent));
        }
        self.known.insert(preparation, sent.clone());
        Ok(Some(sent))
    }

    /// The target of a tracked link, from the link table of the delivery. If the link has merge
    /// fields, those of the recipient are filled in.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if the link, its target or the message is gone; [`LinkError::Forged`]
    /// if the token is not of a click; [`LinkError::Unavailable`] if Redis does not answer.
    pub async fn target_of(&self, found: &FollowedLink) -> Result<String, LinkError> {
        let LinkPurpose::Click(number) = found.purpose else { return Err(LinkError::Forged) };
        let link = found.sent.links.get(usize::from(number)).ok_or(LinkError::Expired)?;
        if !link.merged {
            return web_address(&link.url).ok_or(LinkError::Expired);
        }
        let (template, RecipientMessage { recipient, .. }) =
            Box::pin(self.message_of(found)).await?;
        let target = self.recipients.apart(move || template.target(number, &recipient)).await?;
        target.ok_or(LinkError::Expired)
    }

    /// The mirror page: the message as its recipient got it, in HTML.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if the message is gone or cannot be made; [`LinkError::Unavailable`]
    /// if Redis does not answer.
    pub async fn mirror_of(&self, found: &FollowedLink) -> Result<String, LinkError> {
        let (template, RecipientMessage { recipient, stamp, .. }) = self.message_of(found).await?;
        let PreparationRef { delivery, generation, .. } = &found.sent.mailing;
        // the links in the mirror page of a proof do not count either
        let tokens = &self.recipients.messages.tokens;
        let signer = Some(tokens.signer(delivery, *generation, found.holder));
        let stamp = MessageStamp { signer, ..stamp };
        let page = self.recipients.apart(move || template.mirror(&recipient, &stamp)).await?;
        page.map_err(|_| LinkError::Expired)
    }

    /// The template and the message behind a link.
    pub(super) async fn message_of(
        &self,
        found: &FollowedLink,
    ) -> Result<(Arc<Template>, RecipientMessage), LinkError> {
        let delivery = self
            .deliveries
            .read(&found.sent.mailing.delivery)
            .await?
            .filter(|delivery| !delivery.document.is_untrusted())
            .ok_or(LinkError::Expired)?;
        let plan = delivery.document.plan.as_ref().ok_or(LinkError::Expired)?;
        let template = self.recipients.template(&delivery, plan).await?;
        match self.recipients.find(&delivery, plan, u64::from(found.recipient()), None).await {
            Ok(message) => Ok((template, message)),
            Err(Refusal::Unavailable(error)) if error.may_pass() => Err(error.into()),
            Err(_) => Err(LinkError::Expired),
        }
    }
}

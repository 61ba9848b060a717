//! TODO head

use std::{sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};

use super::tracked_links::{FRESH, FollowedLink, KEPT, KnownDeliveries, LinkError, SentDelivery};
use crate::{
    config::Config,
    deliveries::{Deliveries, Refusal},
    domain::tracking::HitKind,
    mail::{
        links::{LinkPurpose, LinkToken, web_address},
        template::{MessageStamp, Template},
    },
    metrics,
    report::{RecipientMessage, RecipientMessages},
    store::{StoreError, addresses::AddressStore, tracking::PreparationRef},
};

#[derive(Clone)]
pub struct LinkTargets {
    pub deliveries: Deliveries,
    pub addresses: AddressStore,
    pub recipients: RecipientMessages,
    pub known: KnownDeliveries,
    pub config: Arc<Config>,
}

impl LinkTargets {
    /// What a token stands for.
    ///
    /// # Errors
    /// If it is forged, or what it stands for is gone.
    pub async fn find(&self, kind: HitKind, text: &str) -> Result<FollowedLink, LinkError> {
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
        if !self
            .recipients
            .messages
            .tokens
            .signer(delivery, *generation, token.holder)
            .has_signed(&token)
        {
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
        if let Some(sent) =
            self.known.lock().get(&preparation).filter(|sent| sent.known_at.elapsed() < FRESH)
        {
            return Ok(Some(sent.clone()));
        }
        // in a box: the most requests do not get here, and need no room for it
        Box::pin(self.sent_anew(preparation)).await
    }

    async fn sent_anew(&self, preparation: u32) -> Result<Option<Arc<SentDelivery>>, StoreError> {
        let Some(mailing) = self.addresses.preparation_ref(preparation).await? else {
            return Ok(None);
        };
        let Some(delivery) = self.deliveries.store.delivery(&mailing.delivery).await? else {
            return Ok(None);
        };
        let document = &delivery.document;
        let Some(plan) =
            document.plan.as_ref().filter(|plan| plan.generation == mailing.generation)
        else {
            return Ok(None);
        };
        if document.cleaned.is_some() {
            return Ok(None);
        }
        let links = self.recipients.audiences.links(&delivery, plan).await?;
        let released_at = document
            .confirmation
            .as_ref()
            .and_then(|release| plan.last_due.max(Some(release.confirmed_at)));
        let is_counted = released_at.is_some() && document.tracking_cleaned_at.is_none();
        let sent = Arc::new(SentDelivery {
            mailing,
            links,
            released_at,
            is_counted,
            known_at: Instant::now(),
        });
        if sent.released_at.is_none() {
            // a preview: the next look may find it released, and from then on everything counts
            return Ok(Some(sent));
        }
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.retain(|_, sent| sent.known_at.elapsed() < FRESH);
        }
        if known.len() < KEPT {
            known.insert(preparation, sent.clone());
        }
        Ok(Some(sent))
    }

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
        let (template, RecipientMessage { recipient, .. }) =
            Box::pin(self.message_of(found)).await?;
        template.target(number, &recipient).ok_or(LinkError::Expired)
    }

    /// The mirror page: the message as its recipient got it.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if it is gone.
    pub async fn mirror_of(&self, found: &FollowedLink) -> Result<String, LinkError> {
        let (template, RecipientMessage { recipient, stamp, .. }) = self.message_of(found).await?;
        let PreparationRef { delivery, generation, .. } = &found.sent.mailing;
        // what is in a proof's stays one
        let signer =
            Some(self.recipients.messages.tokens.signer(delivery, *generation, found.holder));
        template
            .mirror(&recipient, &MessageStamp { signer, ..stamp })
            .map_err(|_| LinkError::Expired)
    }

    pub(crate) async fn message_of(
        &self,
        found: &FollowedLink,
    ) -> Result<(Arc<Template>, RecipientMessage), LinkError> {
        let delivery = self
            .deliveries
            .store
            .delivery(&found.sent.mailing.delivery)
            .await?
            .ok_or(LinkError::Expired)?;
        let plan = delivery.document.plan.as_ref().ok_or(LinkError::Expired)?;
        let template = self.recipients.template(&delivery, plan)?;
        match self.recipients.find(&delivery, plan, u64::from(found.holder.recipient), None).await {
            Ok(letter) => Ok((template, letter)),
            Err(Refusal::Unavailable(error)) if error.may_pass() => Err(error.into()),
            Err(_) => Err(LinkError::Expired),
        }
    }
}

//! Who is left out: those who opted out and those who get too many messages, by the preparation and again when a chunk is sent.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{fatigue::DueAddress, pass::PreparationPass};
use crate::{
    deliveries::{Context, Refusal, unix_now},
    domain::{
        audience::{AddressKey, Exclusion, ExclusionCause, FatigueMoment, Recipient, digest_of},
        delivery::{Delivery, Invalid},
        ledger::Ledger,
        schedule::{Undated, Wave},
    },
    feedback::{FollowedLink, LinkError},
    mail::to_ascii,
    metrics,
    queue::JobError,
    send::chunk::LeasedChunk,
    store::{StoreError, chunks::LeaseVerdict},
};

/// Pause before a step is sent again whose answer was lost.
const PAUSE: Duration = Duration::from_millis(100);

fn key_of(email: &str) -> Option<AddressKey> {
    Some(AddressKey::of(digest_of(&to_ascii(email).ok()?)))
}

impl Context {
    /// Looks at a chunk before it is sent: takes out who opted out since the preparation, the first time also who has had enough
    /// since, and takes them off `todo`. False if the lease is lost: nothing may be sent.
    pub(crate) async fn exclude_late(
        &self,
        hold: &mut LeasedChunk,
        ledger: &Ledger,
        (delivery, wave): (&Delivery, &Wave),
        recipients: &[Recipient],
        todo: &mut Vec<u16>,
    ) -> Result<bool, JobError> {
        let Some(settings) = delivery.document.plan.as_ref().map(|plan| &plan.settings) else { return Ok(true) };
        let rule = settings.fatigue.filter(|_| !ledger.is_checked());
        let denies = settings.denylist && !self.store.denies_nobody().await?;
        if rule.is_none() && !denies {
            return Ok(true);
        }
        let of = |position: &u16| Some((*position, key_of(&recipients.get(usize::from(*position))?.email)?));
        let (positions, addresses): (Vec<u16>, Vec<AddressKey>) = todo.iter().filter_map(of).unzip();
        let mut out = BTreeMap::new();
        if let Some(rule) = &rule {
            let moment = FatigueMoment::Release { at: wave.released_at, delivery: &delivery.id };
            let asked: Vec<_> = addresses.iter().map(|address| (*address, moment)).collect();
            let tired = self.tired(&delivery.id, rule, &asked, &mut HashMap::new()).await?;
            out.extend(
                positions.iter().zip(tired).filter(|(_, tired)| *tired).map(|(position, _)| (*position, ExclusionCause::Fatigue)),
            );
        }
        if denies {
            let denied = self.store.denied(&addresses).await?;
            out.extend(positions.iter().zip(denied).filter(|(_, denied)| *denied).map(|(p, _)| (*p, ExclusionCause::Denylisted)));
        }
        if out.is_empty() && rule.is_none() {
            return Ok(true);
        }
        // sent again after a lost answer it changes nothing
        let (verdict, excluded) = loop {
            match self.store.exclude(&hold.at, &hold.lease, &out, unix_now()).await {
                Err(error) if error.may_pass() && !self.shutdown.is_cancelled() => tokio::time::sleep(PAUSE).await,
                other => break other?,
            }
        };
        if verdict != LeaseVerdict::Ok {
            return Ok(false);
        }
        hold.lease.seq += 1;
        metrics::excluded(excluded);
        todo.retain(|position| !out.contains_key(position));
        Ok(true)
    }

    /// Puts the recipient of a message on the denylist.
    ///
    /// # Errors
    /// [`LinkError::Expired`] if nobody knows any more who it was.
    pub async fn opt_out(&self, found: &FollowedLink) -> Result<(), LinkError> {
        // of proofs and previews nobody opts out
        if found.holder.is_proof || found.sent.released_at.is_none() {
            return Ok(());
        }
        let (_, letter) = self.letter_of(found).await?;
        let address = key_of(&letter.recipient.email).ok_or(LinkError::Expired)?;
        self.store.deny(address).await?;
        if found.is_uncounted() {
            // no hit is recorded whose durability would be waited for
            self.store.durable().await?;
        }
        Ok(())
    }

    /// Whether an address is on the denylist.
    pub async fn is_denied(&self, email: &str) -> Result<bool, Refusal> {
        Ok(self.store.denied(&[address(email)?]).await?.first().copied().unwrap_or_default())
    }

    /// Puts an address on the denylist; false if it was there.
    pub async fn deny(&self, email: &str) -> Result<bool, Refusal> {
        let is_new = self.store.deny(address(email)?).await?;
        self.store.durable().await?;
        Ok(is_new)
    }

    /// Takes an address off the denylist; false if it was not there.
    pub async fn allow(&self, email: &str) -> Result<bool, Refusal> {
        let was_there = self.store.allow(address(email)?).await?;
        self.store.durable().await?;
        Ok(was_there)
    }
}

fn address(email: &str) -> Result<AddressKey, Refusal> {
    let ascii = to_ascii(email).map_err(|e| Invalid { field: "email".into(), reason: e.to_string() })?;
    Ok(AddressKey::of(digest_of(&ascii)))
}

impl PreparationPass<'_> {
    /// Leaves out who opted out, and who has enough messages by the time his own is due.
    pub(super) async fn leave_out(
        &mut self,
        good: Vec<(Recipient, DueAddress)>,
        excluded: &mut Vec<Exclusion>,
    ) -> Result<(Vec<Recipient>, Vec<DueAddress>), StoreError> {
        let mut causes: Vec<Option<ExclusionCause>> = vec![None; good.len()];
        if let Some(rule) = self.settings.fatigue {
            let now = unix_now();
            let moment =
                |due: &Result<u32, Undated>| FatigueMoment::Preparation { at: now.max(*due.as_ref().unwrap_or(&0)), now };
            let asked: Vec<_> = good.iter().map(|(_, (due, address))| (*address, moment(due))).collect();
            let tired = self.context.tired(&self.delivery.id, &rule, &asked, &mut self.standings).await?;
            causes
                .iter_mut()
                .zip(tired)
                .filter(|(_, tired)| *tired)
                .for_each(|(cause, _)| *cause = Some(ExclusionCause::Fatigue));
        }
        if self.settings.denylist {
            let addresses: Vec<AddressKey> = good.iter().map(|(_, (_, address))| *address).collect();
            let denied = self.context.store.denied(&addresses).await?;
            causes
                .iter_mut()
                .zip(denied)
                .filter(|(_, denied)| *denied)
                .for_each(|(cause, _)| *cause = Some(ExclusionCause::Denylisted));
        }
        let mut kept = Vec::with_capacity(good.len());
        for ((recipient, (due, address)), cause) in good.into_iter().zip(causes) {
            match (cause, due) {
                (Some(cause), Ok(due)) => {
                    self.dealer.take_back(due);
                    excluded.push(Exclusion { line: recipient.line, email: recipient.email, cause });
                }
                (_, due) => kept.push((recipient, (due, address))),
            }
        }
        excluded.sort_by_key(|exclusion| exclusion.line);
        Ok(kept.into_iter().unzip())
    }
}

//! Who is left out: those who opted out and those who get too many messages, by the preparation and again when a chunk is sent.

use super::{fatigue::DueAddress, pass::PreparationPass};
use crate::{
    clock::unix_now,
    deliveries::Refusal,
    domain::{
        Invalid,
        audience::{AddressKey, Exclusion, ExclusionCause, FatigueMoment, Recipient, digest_of},
        schedule::Undated,
    },
    mail::to_ascii,
    store::StoreError,
};

pub fn key_of(email: &str) -> Option<AddressKey> {
    Some(AddressKey::of(digest_of(&to_ascii(email).ok()?)))
}

pub fn address(email: &str) -> Result<AddressKey, Refusal> {
    let ascii =
        to_ascii(email).map_err(|e| Invalid { field: "email".into(), reason: e.to_string() })?;
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
            let moment = |due: &Result<u32, Undated>| FatigueMoment::Preparation {
                at: now.max(*due.as_ref().unwrap_or(&0)),
                now,
            };
            let asked: Vec<_> =
                good.iter().map(|(_, (due, address))| (*address, moment(due))).collect();
            let tired = self
                .tools
                .checks
                .fatigued(&self.delivery.id, &rule, &asked, &mut self.standings)
                .await?;
            causes
                .iter_mut()
                .zip(tired)
                .filter(|(_, tired)| *tired)
                .for_each(|(cause, _)| *cause = Some(ExclusionCause::Fatigue));
        }
        if self.settings.denylist {
            let addresses: Vec<AddressKey> =
                good.iter().map(|(_, (_, address))| *address).collect();
            let denied = self.tools.checks.addresses.denied(&addresses).await?;
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
                    excluded.push(Exclusion {
                        line: recipient.line,
                        email: recipient.email,
                        cause,
                    });
                }
                (_, due) => kept.push((recipient, (due, address))),
            }
        }
        excluded.sort_by_key(|exclusion| exclusion.line);
        Ok(kept.into_iter().unzip())
    }
}

//! TODO head

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::replay::LeasedChunk;
use crate::{
    clock::unix_now,
    daemon::Daemon,
    domain::{
        audience::{AddressKey, ExclusionCause, FatigueMoment, Recipient},
        delivery::Delivery,
        ledger::Ledger,
        schedule::Wave,
    },
    mail::address_key,
    metrics,
    queue::JobError,
    send::limits::AddressChecks,
    store::chunks::LeaseVerdict,
};

/// Pause before a step is sent again whose answer was lost.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct LateExclusions {
    pub checks: AddressChecks,
    pub daemon: Daemon,
}

impl LateExclusions {
    /// Looks at a chunk before it is sent: takes out who opted out since the preparation, the first time also who has had enough
    /// since, and takes them off `todo`. False if the lease is lost: nothing may be sent.
    pub(crate) async fn exclude_late(
        &self,
        leased: &mut LeasedChunk,
        ledger: &Ledger,
        (delivery, wave): (&Delivery, &Wave),
        recipients: &[Recipient],
        todo: &mut Vec<u16>,
    ) -> Result<bool, JobError> {
        let Some(settings) = delivery.document.plan.as_ref().map(|plan| &plan.settings) else {
            return Ok(true);
        };
        let rule = settings.fatigue.filter(|_| !ledger.is_fatigue_checked());
        let denies = settings.denylist && !self.checks.addresses.denies_nobody().await?;
        if rule.is_none() && !denies {
            return Ok(true);
        }
        let of = |position: &u16| {
            Some((*position, address_key(&recipients.get(usize::from(*position))?.email).ok()?))
        };
        let (positions, addresses): (Vec<u16>, Vec<AddressKey>) =
            todo.iter().filter_map(of).unzip();
        let mut out = BTreeMap::new();
        if let Some(rule) = &rule {
            let moment = FatigueMoment::Release { at: wave.released_at, delivery: &delivery.id };
            let asked: Vec<_> = addresses.iter().map(|address| (*address, moment)).collect();
            let tired =
                self.checks.fatigued(&delivery.id, rule, &asked, &mut HashMap::new()).await?;
            out.extend(
                positions
                    .iter()
                    .zip(tired)
                    .filter(|(_, tired)| *tired)
                    .map(|(position, _)| (*position, ExclusionCause::Fatigue)),
            );
        }
        if denies {
            let denied = self.checks.addresses.denied(&addresses).await?;
            out.extend(
                positions
                    .iter()
                    .zip(denied)
                    .filter(|(_, denied)| *denied)
                    .map(|(p, _)| (*p, ExclusionCause::Denylisted)),
            );
        }
        if out.is_empty() && rule.is_none() {
            return Ok(true);
        }
        // sent again after a lost answer it changes nothing
        let (verdict, excluded) = loop {
            match self
                .checks
                .ledgers
                .exclude_late(&leased.at, &leased.lease, &out, unix_now())
                .await
            {
                Err(error) if error.may_pass() && !self.daemon.shutdown.is_cancelled() => {
                    tokio::time::sleep(PAUSE).await
                }
                other => break other?,
            }
        };
        if verdict != LeaseVerdict::Ok {
            return Ok(false);
        }
        leased.lease.seq += 1;
        metrics::excluded(excluded);
        todo.retain(|position| !out.contains_key(position));
        Ok(true)
    }
}

//! Late exclusions: recipients that are left out when their chunk is about to be sent.
//!
//! The preparation has excluded recipients already. Since then some may have opted out, and some
//! may have got enough messages.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{chunk_run::ChunkContent, leased_chunk::LeasedChunk};
use crate::{
    clock::unix_now,
    daemon::Daemon,
    domain::{
        audience::{AddressKey, ExclusionCause, FatigueMoment, FatigueRule},
        ledger::{Ledger, Status, flags},
    },
    mail::address_key,
    metrics,
    queue::JobError,
    send::limits::AddressChecks,
    store::{StoreError, chunks::LeaseVerdict},
};

/// Pause before the exclusions are written again after Redis did not answer.
const PAUSE: Duration = Duration::from_millis(100);
/// Seconds until a chunk is looked at again whose recipients may have the message and must not get
/// another one. The address may leave the denylist, or the validity period may end.
const LOOK_AGAIN_S: u32 = 60;

/// Excludes recipients of a chunk before it is sent.
#[derive(Clone)]
pub struct LateExclusions {
    pub checks: AddressChecks,
    pub daemon: Daemon,
}

impl LateExclusions {
    /// Excludes recipients that have opted out, and removes them from `positions`. A recipient that
    /// may have got the message already is only removed.
    ///
    /// The first time, also excludes recipients that the fatigue rule forbids by now. Returns false
    /// if the lease is lost: nothing may be sent then.
    ///
    /// # Errors
    /// If Redis refuses, or does not answer. Only the write is repeated until the shutdown.
    pub(super) async fn exclude_late(
        &self,
        leased: &mut LeasedChunk,
        ledger: &Ledger,
        content: &ChunkContent,
        positions: &mut Vec<u16>,
    ) -> Result<bool, JobError> {
        let settings = &content.plan.settings;
        let rule = settings.fatigue.filter(|_| !ledger.is_fatigue_checked());
        let uses_denylist = settings.denylist && !self.checks.addresses.denies_nobody().await?;
        if rule.is_none() && !uses_denylist {
            return Ok(true);
        }
        let address_of = |position: &u16| {
            let recipient = content.recipients.get(usize::from(*position))?;
            Some((*position, address_key(&recipient.email).ok()?))
        };
        let (known, addresses): (Vec<u16>, Vec<AddressKey>) =
            positions.iter().filter_map(address_of).unzip();
        let mut excluded = BTreeMap::new();
        if let Some(rule) = &rule {
            let fatigued = self.fatigued(rule, content, &addresses).await?;
            excluded.extend(marked(&known, fatigued, ExclusionCause::Fatigue));
        }
        if uses_denylist {
            let denied = self.checks.addresses.denied(&addresses).await?;
            excluded.extend(marked(&known, denied, ExclusionCause::Denylisted));
        }
        // with a rule, an empty list is written too: the ledger notes that the chunk was checked
        if excluded.is_empty() && rule.is_none() {
            return Ok(true);
        }
        let (verdict, count) = self.write(leased, &excluded).await?;
        if verdict != LeaseVerdict::Ok {
            return Ok(false);
        }
        leased.lease.seq += 1;
        metrics::excluded(count);
        let stays_due = |position: &u16| {
            let record = ledger.record(usize::from(*position));
            record.is_some_and(|record| {
                record.status == Status::InDoubt
                    || record.flags & (flags::RESENT | flags::ACCEPTED) != 0
            })
        };
        if excluded.keys().any(stays_due) {
            // the chunk would get one job after the other
            let again = (unix_now() + LOOK_AGAIN_S).min(content.wave_time.valid_until);
            leased.not_before = leased.not_before.max(Some(again));
        }
        positions.retain(|position| !excluded.contains_key(position));
        Ok(true)
    }

    /// Says for each address whether the rule forbids one more message to it.
    async fn fatigued(
        &self,
        rule: &FatigueRule,
        content: &ChunkContent,
        addresses: &[AddressKey],
    ) -> Result<Vec<bool>, StoreError> {
        let id = &content.delivery.id;
        let moment =
            FatigueMoment::Release { at: content.wave_time.wave.released_at, delivery: id };
        let asked: Vec<_> = addresses.iter().map(|address| (*address, moment)).collect();
        self.checks.fatigued(id, rule, &asked, &mut HashMap::new()).await
    }

    /// Writes the exclusions. A repetition after a lost answer changes nothing.
    async fn write(
        &self,
        leased: &LeasedChunk,
        excluded: &BTreeMap<u16, ExclusionCause>,
    ) -> Result<(LeaseVerdict, u64), StoreError> {
        let ledgers = &self.checks.ledgers;
        loop {
            match ledgers.exclude_late(&leased.at, &leased.lease, excluded, unix_now()).await {
                Err(error) if error.may_pass() && !self.daemon.shutdown.is_cancelled() => {
                    tokio::time::sleep(PAUSE).await
                }
                written => return written,
            }
        }
    }
}

/// The positions whose mark is true, each with the cause.
fn marked(
    positions: &[u16],
    marks: Vec<bool>,
    cause: ExclusionCause,
) -> impl Iterator<Item = (u16, ExclusionCause)> {
    let marked = positions.iter().zip(marks).filter(|(_, mark)| *mark);
    marked.map(move |(position, _)| (*position, cause))
}

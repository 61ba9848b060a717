//! Take-overs: a chunk whose holder is dead becomes free for the next job.

use std::{sync::Arc, time::Instant};

use super::{liveness::Liveness, poisoned_chunks::PoisonedChunks};
use crate::{
    clock::unix_now,
    config::Config,
    daemon::Daemon,
    deliveries::Refusal,
    domain::{
        delivery::{Delivery, Plan},
        ledger::{ChunkRef, Ledger, LedgerHeader},
    },
    metrics,
    send::chunk::{LeaseHolder, LeasedChunk},
    store::{
        StoreError,
        chunks::{LedgerStore, Taken, TakeoverGrounds},
        schedule::ScheduleStore,
    },
};

/// Takes chunks over from dead holders.
#[derive(Clone)]
pub struct Takeovers {
    pub poisoned: PoisonedChunks,
    pub holder: LeaseHolder,
    pub ledgers: LedgerStore,
    pub schedules: ScheduleStore,
    pub liveness: Liveness,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

impl Takeovers {
    /// Takes a chunk over from its holder if the holder is dead. The next job finds the chunk free.
    ///
    /// A holder is dead if its state directory belongs to this daemon now, or if its beat has stood
    /// still for a whole lease.
    pub(super) async fn take_over_if_dead(
        &self,
        delivery: &Delivery,
        at: &ChunkRef,
        header: LedgerHeader,
    ) -> Result<(), Refusal> {
        let name = format!("lease {}:{}", at.delivery, at.chunk);
        let mark = (u64::from(header.epoch), u64::from(header.beat));
        let unchanged = self.liveness.unchanged_for(&name, mark, Instant::now());
        let proven_dead = self.daemon.dead_owners.contains(&header.owner);
        if !proven_dead && unchanged < self.config.send.lease() {
            return Ok(());
        }
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        let wave = self.schedules.wave_of(at, plan).await?;
        let resend_after_s = plan.resend_after_s(&wave, self.config.send.lease_ms, unix_now());
        let grounds = TakeoverGrounds {
            still: Some((header.epoch, header.beat)),
            dead: proven_dead.then_some(header.owner),
            resends: resend_after_s.is_some(),
        };
        if let Taken::Yes(lease, _) = self.holder.take_lease(at, grounds).await? {
            let leased = LeasedChunk::new(at.clone(), lease, resend_after_s);
            self.poisoned.give_back_after_crash(leased).await?;
            metrics::taken_over();
            tracing::warn!(
                delivery.id = %at.delivery,
                chunk = at.chunk,
                proven_dead,
                "the chunk was taken over from a dead worker"
            );
        }
        Ok(())
    }

    /// Fails the open recipients of chunks that were set aside, once the validity period has ended.
    ///
    /// No message is made for them, so this step cannot kill a worker.
    pub(super) async fn expire_poisoned(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        for chunk in self.poisoned.chunks.poisoned(&delivery.id).await? {
            let at = ChunkRef { delivery: delivery.id.clone(), chunk };
            self.expire_poisoned_chunk(delivery, plan, at).await?;
        }
        Ok(())
    }

    async fn expire_poisoned_chunk(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        at: ChunkRef,
    ) -> Result<(), Refusal> {
        let wave = self.schedules.wave_of(&at, plan).await?;
        if wave.valid_until(plan.settings.validity_hours).is_none_or(|until| unix_now() < until) {
            return Ok(());
        }
        let resend_after_s = plan.resend_after_s(&wave, self.config.send.lease_ms, unix_now());
        let Some(ledger) = self.ledger(&at).await? else { return Ok(()) };
        let is_open = ledger.records().any(|record| record.claimable_at(resend_after_s).is_some());
        // open recipients that are all due later are left until then
        if is_open && ledger.claimable(unix_now(), resend_after_s).is_empty() {
            return Ok(());
        }
        match self.holder.take_lease(&at, TakeoverGrounds::default()).await? {
            Taken::Yes(lease, ledger) => {
                let mut leased = LeasedChunk::new(at, lease, resend_after_s);
                let positions = ledger.claimable(unix_now(), resend_after_s);
                self.holder.expire(&mut leased, &ledger, &positions).await?;
                self.holder.give_back(leased).await?;
            }
            Taken::Leased(..) => self.take_over_if_dead(delivery, &at, ledger.header()).await?,
            Taken::Missing | Taken::Held => {}
        }
        Ok(())
    }

    async fn ledger(&self, at: &ChunkRef) -> Result<Option<Ledger>, StoreError> {
        let ledgers = self.ledgers.ledgers(&at.delivery, at.chunk..at.chunk + 1).await?;
        Ok(ledgers.into_iter().flatten().next())
    }
}

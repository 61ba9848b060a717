//! TODO head

use std::time::Instant;

use super::{liveness::Liveness, poisoned_chunks::PoisonedChunks};
use crate::{
    clock::unix_now,
    daemon::Daemon,
    deliveries::Refusal,
    domain::{
        delivery::Delivery,
        ledger::{ChunkRef, LedgerHeader},
    },
    metrics,
    send::chunk::LeasedChunk,
    store::{
        chunks::{Taken, TakeoverGrounds},
        schedule::ScheduleStore,
    },
};

#[derive(Clone)]
pub struct Takeovers {
    pub poisoned: PoisonedChunks,
    pub schedules: ScheduleStore,
    pub liveness: Liveness,
    pub daemon: Daemon,
}

impl Takeovers {
    /// Somebody holds the chunk: fences the holder if it is dead, so that the next job finds the chunk free.
    pub(super) async fn take_over_if_dead(
        &self,
        delivery: &Delivery,
        at: &ChunkRef,
        header: LedgerHeader,
    ) -> Result<(), Refusal> {
        let name = format!("lease {}:{}", at.delivery, at.chunk);
        let still = self.liveness.see(
            &name,
            (u64::from(header.epoch), u64::from(header.beat)),
            Instant::now(),
        );
        let proven_dead = self.daemon.dead_owners.contains(&header.owner);
        if !proven_dead && still < self.poisoned.config.send.lease() {
            return Ok(());
        }
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        let resend_after_s = plan.resend_after_s(
            &self.schedules.wave_of(at, plan).await?,
            self.poisoned.config.send.lease_ms,
            unix_now(),
        );
        let (still, dead) =
            (Some((header.epoch, header.beat)), proven_dead.then_some(header.owner));
        let grounds = TakeoverGrounds { still, dead, resends: resend_after_s.is_some() };
        if let Taken::Yes(lease, _) =
            self.poisoned.ledgers.take_lease(at, self.daemon.owner, grounds, unix_now()).await?
        {
            self.poisoned
                .give_back_after_crash(LeasedChunk::new(at.clone(), lease, resend_after_s))
                .await?;
            metrics::taken_over();
            tracing::warn!(delivery.id = %at.delivery, chunk = at.chunk, proven_dead, "taken over from a dead worker");
        }
        Ok(())
    }

    /// The end of the validity period ends a chunk that was set aside, too: no message is made for it that could kill anybody.
    pub(super) async fn expire_poisoned(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        for chunk in self.poisoned.chunks.poisoned(&delivery.id).await? {
            let at = ChunkRef { delivery: delivery.id.clone(), chunk };
            let wave = self.schedules.wave_of(&at, plan).await?;
            if wave.valid_until(plan.settings.validity_hours).is_none_or(|until| unix_now() < until)
            {
                continue;
            }
            let resend_after_s =
                plan.resend_after_s(&wave, self.poisoned.config.send.lease_ms, unix_now());
            let Some(ledger) = self
                .poisoned
                .ledgers
                .ledgers(&at.delivery, chunk..chunk + 1)
                .await?
                .into_iter()
                .flatten()
                .next()
            else {
                continue;
            };
            let later =
                ledger.records().any(|record| record.claimable_at(resend_after_s).is_some());
            if later && ledger.claimable(unix_now(), resend_after_s).is_empty() {
                continue;
            }
            match self
                .poisoned
                .ledgers
                .take_lease(&at, self.daemon.owner, TakeoverGrounds::default(), unix_now())
                .await?
            {
                Taken::Yes(lease, ledger) => {
                    let mut leased = LeasedChunk::new(at, lease, resend_after_s);
                    let todo = ledger.claimable(unix_now(), resend_after_s);
                    self.poisoned.holder.expire(&mut leased, &ledger, &todo).await?;
                    self.poisoned.holder.give_back(leased).await?;
                }
                Taken::Leased(..) => self.take_over_if_dead(delivery, &at, ledger.header()).await?,
                Taken::Missing => {}
            }
        }
        Ok(())
    }
}

//! The release of a held store by a person.

use serde::Serialize;
use serde_json::json;

use crate::{
    clock::unix_now,
    deliveries::{Decision, Deliveries, Refusal, require},
    domain::{
        Principal, Role,
        delivery::{Delivery, DeliveryId, DeliveryState, Plan},
        ledger::ChunkRef,
    },
    store::{
        chunks::{Lease, LedgerStore},
        hold::{FORMAT, HoldReason, StoreHold},
        schedule::ScheduleStore,
    },
};

/// Deliveries whose ids are read in one round trip.
const AT_A_TIME: usize = 500;

/// What a person sees of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreView {
    pub format: u32,
    /// Unix seconds, as all times here.
    pub last_heartbeat: Option<u32>,
    pub hold: Option<StoreHold>,
    pub released_at: Option<u32>,
}

/// What a release changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReleasedStore {
    /// Deliveries that were confirmed and not ended.
    pub deliveries: u64,
    /// Recipients that are in doubt now.
    pub in_doubt: u64,
    /// Waves that are held now.
    pub held_waves: u64,
}

/// Shows, holds and releases the store.
#[derive(Clone)]
pub struct HeldStore {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub ledgers: LedgerStore,
}

impl HeldStore {
    /// The store as a person sees it.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn view(&self) -> Result<StoreView, Refusal> {
        let holds = &self.deliveries.holds;
        Ok(StoreView {
            format: FORMAT,
            last_heartbeat: holds.last_beat().await?,
            hold: holds.current().await?,
            released_at: holds.released_at().await?,
        })
    }

    /// Holds the store: it lacks what was done after `since` (Unix seconds).
    ///
    /// # Errors
    /// If the principal lacks the role, or Redis does not answer.
    pub async fn hold(&self, by: &Principal, since: u32) -> Result<(), Refusal> {
        require(by, Role::Administration)?;
        if self.deliveries.holds.hold(since, HoldReason::ByHand, unix_now()).await? {
            tracing::warn!(by = by.name, since, "the store is held by a person");
        }
        Ok(self.deliveries.await_durability().await?)
    }

    /// Secures every delivery that may have gone on in the time that the store lacks, and then
    /// releases the hold with this `since`. Every step may be done twice.
    ///
    /// # Errors
    /// If the principal lacks a role, if there is no such hold, or if Redis does not answer: then
    /// the store stays held.
    pub async fn release(&self, by: &Principal, since: u32) -> Result<ReleasedStore, Refusal> {
        require(by, Role::Administration)?;
        require(by, Role::StartDeliveries)?;
        const NO_SUCH_HOLD: Refusal =
            Refusal::Conflict("no hold of the store has this `since`: GET /api/v1/store shows it");
        let hold = self.deliveries.holds.current().await?.filter(|hold| hold.since == since);
        let hold = hold.ok_or(NO_SUCH_HOLD)?;
        let mut released = ReleasedStore::default();
        for offset in (0..).step_by(AT_A_TIME) {
            let ids = self.deliveries.store.delivery_ids(offset, AT_A_TIME).await?;
            for (id, state) in ids.iter().zip(self.deliveries.store.states(&ids).await?) {
                if state.is_some_and(may_have_gone_on) {
                    self.secure(by, id, since, &mut released).await?;
                }
            }
            if ids.len() < AT_A_TIME {
                break;
            }
        }
        self.deliveries.await_durability().await?;
        if !self.deliveries.holds.release(since, unix_now(), &by.name).await? {
            return Err(NO_SUCH_HOLD);
        }
        // the audit log may lack its end, too, and a person accepts that
        self.deliveries.heads.accept_loss().await?;
        let ReleasedStore { deliveries, in_doubt, held_waves } = released;
        tracing::warn!(
            by = by.name,
            since,
            why = hold.why.word(),
            deliveries,
            in_doubt,
            held_waves,
            "the store was released: everything moves again"
        );
        Ok(released)
    }

    /// Puts in doubt who may have been sent to, and holds the waves that may have been released.
    async fn secure(
        &self,
        by: &Principal,
        id: &DeliveryId,
        since: u32,
        released: &mut ReleasedStore,
    ) -> Result<(), Refusal> {
        let Some(delivery) = self.deliveries.read(id).await? else { return Ok(()) };
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        let started = delivery.document.has_started();
        let in_doubt = if started { self.put_in_doubt(id, plan).await? } else { 0 };
        let held_waves = self.schedules.hold_due_waves(id, plan, unix_now(), started).await?;
        released.deliveries += 1;
        released.in_doubt += in_doubt;
        released.held_waves += held_waves;
        let details = json!({ "since": since, "in_doubt": in_doubt, "held_waves": held_waves });
        let note = |delivery: &Delivery, _| {
            let mut document = delivery.document.clone();
            if let Some(plan) = document.plan.as_mut().filter(|_| started) {
                // a person decides about everybody who may have been sent to in the lost time
                plan.holds_in_doubt = true;
            }
            let act = Some(("release_store", details.clone()));
            Ok(Decision { state: delivery.state, document, answer: (), act })
        };
        self.deliveries.change(id, by.name.as_str(), &[], note).await?.answer();
        if held_waves > 0 {
            self.schedules.list_held(id, true).await?;
            // the next pass over due waves gives a scheduled delivery the state `held`
            self.schedules.list_due(id, Some(0)).await?;
        }
        Ok(())
    }

    /// Puts the open recipients of all released waves in doubt. Returns their number.
    async fn put_in_doubt(&self, id: &DeliveryId, plan: &Plan) -> Result<u64, Refusal> {
        let waves = self.schedules.waves(id, plan).await?;
        let nobody = Lease { owner: 0, epoch: 0, seq: 0 };
        let mut in_doubt = 0;
        for (chunk, place) in (0..).zip(self.schedules.places(id, plan).await?) {
            let wave = waves.get(usize::from(place.wave));
            if wave.is_some_and(|wave| wave.state.is_released()) {
                let at = ChunkRef { delivery: id.clone(), chunk };
                in_doubt += self.ledgers.put_in_doubt(&at, &nobody, unix_now(), None).await?;
            }
        }
        Ok(in_doubt)
    }
}

/// Whether this is a state of a confirmed delivery, which may have gone on in the time that the
/// store lacks.
fn may_have_gone_on(state: DeliveryState) -> bool {
    use DeliveryState::{Held, InProgress, Paused, Pausing, Scheduled, StartPending, Stopping};
    matches!(state, Scheduled | Held | StartPending | InProgress | Pausing | Paused | Stopping)
}

//! TODO head

use std::sync::{Arc, atomic::AtomicBool};

use super::{
    chunk_sender::WaveTime, connection_worker::ChunkRun, late_exclusion::LateExclusions,
    lease_validity::LeaseValidity, ledger_writer::LedgerAccess, replay::LeasedChunk,
};
use crate::{
    clock::unix_now,
    domain::{
        delivery::{Delivery, Plan},
        ledger::{ChunkRef, Ledger},
    },
    queue::JobError,
    send::limits::MailOut,
    store::audience::{AudienceStore, SliceKind},
};

#[derive(Clone)]
pub struct ChunkSending {
    pub audiences: AudienceStore,
    pub out: MailOut,
    pub late_exclusions: LateExclusions,
    pub access: LedgerAccess,
}

impl ChunkSending {
    pub(super) async fn send_held(
        &self,
        mut leased: LeasedChunk,
        ledger: Ledger,
        (delivery, plan): (Delivery, Plan),
        time: WaveTime,
        validity: Arc<LeaseValidity>,
    ) -> (LeasedChunk, Result<(), JobError>) {
        let mut todo = ledger.claimable(unix_now(), leased.resend_after_s);
        if todo.is_empty() {
            return (leased, Ok(()));
        }
        if unix_now() >= time.valid_until {
            let expired = self.access.holder.expire(&mut leased, &ledger, &todo).await;
            return (leased, expired.map_err(JobError::from));
        }
        let run = match self.session(&leased.at, (delivery, plan), time, validity).await {
            Ok(run) => run,
            Err(error) => return (leased, Err(error)),
        };
        let about = (&run.delivery, &time.wave);
        match self
            .late_exclusions
            .exclude_late(&mut leased, &ledger, about, &run.recipients, &mut todo)
            .await
        {
            Ok(true) if !todo.is_empty() => {
                (Arc::new(run).serve(leased, ledger, todo).await, Ok(()))
            }
            other => (leased, other.map(drop)),
        }
    }

    async fn session(
        &self,
        at: &ChunkRef,
        (delivery, plan): (Delivery, Plan),
        time: WaveTime,
        validity: Arc<LeaseValidity>,
    ) -> Result<ChunkRun, JobError> {
        let template =
            self.out.messages.templates.get(&at.delivery, &plan, &delivery.document.definition);
        let template = template.map_err(|_| {
            JobError::Abort("the template of a prepared delivery does not compile".into())
        })?;
        let route = self.out.relays.route(template.envelope_from());
        let route = route.ok_or_else(|| {
            JobError::Abort("no relay sends for the domain of the envelope sender".into())
        })?;
        Ok(ChunkRun {
            sending: self.clone(),
            at: at.clone(),
            recipients: self
                .audiences
                .slice(&at.delivery, SliceKind::Chunks(plan.generation), at.chunk)
                .await?,
            from: template.envelope_from().to_owned(),
            turns: self.out.permits.of(&route, self.out.relays.allowed(&route)),
            route,
            date: time.date,
            valid_until: time.valid_until,
            delivery,
            plan,
            template,
            validity,
            halt: self.late_exclusions.daemon.shutdown.child_token(),
            complained: AtomicBool::new(false),
        })
    }
}

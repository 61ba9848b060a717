//! The sending of a chunk whose lease this daemon holds.

use std::sync::Arc;

use super::{
    chunk_failure::{ChunkFailure, check_due},
    chunk_run::{ChunkContent, ChunkRoute, ChunkRun, WaveTime},
    claim_queue::ClaimQueue,
    late_exclusion::LateExclusions,
    lease_validity::LeaseValidity,
    leased_chunk::LeasedChunk,
    ledger_access::LedgerAccess,
    ledger_writer::LedgerWriter,
    start_right::StartRight,
    writer_channel::WorkerChannels,
};
use crate::{
    clock::unix_now,
    daemon::Daemon,
    domain::{
        delivery::{Delivery, Plan},
        ledger::{ChunkRef, Ledger},
    },
    mail::template::Template,
    queue::JobError,
    send::limits::{Admission, MailOut},
    store::audience::{AudienceStore, SliceKind},
};

/// Sends a chunk whose lease this daemon holds.
#[derive(Clone)]
pub struct LeasedChunkSender {
    pub audiences: AudienceStore,
    pub out: MailOut,
    pub late_exclusions: LateExclusions,
    pub access: LedgerAccess,
    pub daemon: Daemon,
}

impl LeasedChunkSender {
    /// Sends to the recipients that are due. Fails them instead if the validity period has ended.
    ///
    /// Always returns the chunk, which the caller must give back.
    pub(super) async fn send(
        &self,
        mut leased: LeasedChunk,
        ledger: Ledger,
        (delivery, plan): (Delivery, Plan),
        wave_time: WaveTime,
        validity: LeaseValidity,
    ) -> (LeasedChunk, Result<(), ChunkFailure>) {
        let mut positions = ledger.claimable(unix_now(), leased.resend_after_s);
        if positions.is_empty() {
            return (leased, Ok(()));
        }
        if unix_now() >= wave_time.valid_until {
            let expired = self.access.holder.expire(&mut leased, &ledger, &positions).await;
            return (leased, expired.map_err(ChunkFailure::from));
        }
        let run = match self.open_run(&leased.at, (delivery, plan), wave_time, validity).await {
            Ok(run) => run,
            Err(error) => return (leased, Err(error)),
        };
        match self
            .late_exclusions
            .exclude_late(&mut leased, &ledger, &run.content, &mut positions)
            .await
        {
            Ok(true) if !positions.is_empty() => {
                (self.run_connections(run, leased, ledger, positions).await, Ok(()))
            }
            other => (leased, other.map(drop).map_err(ChunkFailure::from)),
        }
    }

    /// Reads the recipients and finds template and route.
    async fn open_run(
        &self,
        at: &ChunkRef,
        (delivery, plan): (Delivery, Plan),
        wave_time: WaveTime,
        validity: LeaseValidity,
    ) -> Result<ChunkRun, ChunkFailure> {
        let templates = &self.out.messages.templates;
        let template = templates.get(&at.delivery, &plan, &delivery.document.definition).await;
        let template = template.map_err(|problems| {
            let problems: Vec<String> = problems
                .iter()
                .map(|problem| format!("{}: {}", problem.part, problem.message))
                .collect();
            let problems = problems.join("; ");
            JobError::Abort(format!("the template of a prepared delivery is refused: {problems}"))
        })?;
        let route = self.route(&template)?;
        let kind = SliceKind::Chunks(plan.generation);
        let (recipients, due) = self.audiences.slice_with_due(&at.delivery, kind, at.chunk).await?;
        check_due(&wave_time.wave, due)?;
        let content =
            ChunkContent { at: at.clone(), delivery, plan, template, recipients, wave_time };
        let right = StartRight::new(validity, self.daemon.shutdown.child_token());
        Ok(ChunkRun::new(content, route, right, self.out.clone(), self.access.config.clone()))
    }

    fn route(&self, template: &Template) -> Result<ChunkRoute, JobError> {
        let MailOut { relays, permits, .. } = &self.out;
        let route = relays.route(template.envelope_from()).ok_or_else(|| {
            JobError::Abort("no relay sends for the domain of the envelope sender".into())
        })?;
        Ok(ChunkRoute {
            envelope_from: template.envelope_from().to_owned(),
            permits: permits.of(&route, relays.allowed(&route)),
            relays: route,
        })
    }

    /// Runs the connection workers and the ledger writer until the last worker has ended.
    async fn run_connections(
        &self,
        run: ChunkRun,
        leased: LeasedChunk,
        ledger: Ledger,
        positions: Vec<u16>,
    ) -> LeasedChunk {
        let run = Arc::new(run);
        let rates = run.rates();
        let (workers, channels) = WorkerChannels::open(run.connections(&rates, positions.len()));
        for channel in channels {
            self.daemon.tracker.spawn(run.clone().drive_connection(channel));
        }
        let content = &run.content;
        let admission =
            Admission::new(&self.out.throttles, &leased.at.delivery, rates, &content.recipients);
        let writer = LedgerWriter {
            access: self.access.clone(),
            leased,
            ledger,
            right: run.right.clone(),
            valid_until: content.wave_time.valid_until,
            to_claim: ClaimQueue::new(positions),
            workers,
            admission,
        };
        writer.serve().await
    }
}

//! One pass over the audience: the memory of the pass grows mainly with the set of addresses.

use std::{pin::pin, sync::Arc};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    chunking::{Chunker, DatedRecipient, FilledChunk},
    definition_check::check_definition,
    dry_run::{dry_run_stamp, field_of, try_messages},
    dry_run_effort::DryRunEffort,
    exclusions::Exclusions,
    findings::Findings,
    index_writer::{IndexWriter, preparation_number},
    past_dues::PastDues,
    preparation::{PassTools, Preparation},
};
use crate::{
    domain::{
        audience::{Exclusion, Recipient},
        delivery::{Audience, Checks, Delivery, Plan, digest},
        instant,
        schedule::Undated,
    },
    mail::template::Template,
    store::{
        StoreError,
        audience::{PreparationProgress, SliceKind, ndjson},
    },
};

/// After so many errors the pass ends early: a template may fail for a million recipients.
const ENOUGH_ERRORS: u64 = 1000;
/// The pass writes unfilled chunks at its end, and raises its beat once in so many of them.
const CHUNKS_A_BEAT: u32 = 100;
/// The most waves that a delivery may have. Each wave has at least one chunk, and all waves are
/// read when one is due.
const MOST_WAVES: usize = 10_000;

/// The result of a preparation; without a plan if there are errors.
pub struct PreparationOutcome {
    pub by: String,
    pub checks: Checks,
    pub plan: Option<Plan>,
}

/// A preparation that is going on.
pub(super) struct PreparationPass<'a> {
    preparation: Preparation<'a>,
    findings: Findings,
    exclusions: Exclusions,
    past_dues: PastDues,
    chunker: Chunker,
    index: IndexWriter,
    to_deliver: u64,
    /// Over all exclusions and chunks, in the order in which they are written.
    approved: Sha256,
    progress: PreparationProgress,
    effort: DryRunEffort,
}

impl<'a> PreparationPass<'a> {
    /// Prepares the delivery. `None` if the preparation was stopped on the way, if another one
    /// began, or if the daemon ends.
    ///
    /// # Errors
    /// If Redis does not answer, or a stored part is damaged.
    pub(super) async fn run(
        tools: &'a PassTools,
        delivery: &'a Delivery,
        generation: u32,
    ) -> Result<Option<PreparationOutcome>, StoreError> {
        let mut pass = Self::new(Preparation::new(tools, delivery, generation))?;
        let template =
            check_definition(&pass.preparation, &mut pass.past_dues, &mut pass.findings).await?;
        if let Some(template) = &template {
            pass.write_links(template).await?;
        }
        match (&delivery.document.audience, template) {
            (Some(audience), Some(template)) if audience.recipients > 0 => {
                if !pass.go_through(audience, template).await? {
                    return Ok(None);
                }
                if pass.to_deliver == 0 && pass.findings.errors_total() == 0 {
                    pass.findings.error("audience", None, "every recipient is excluded");
                }
            }
            (Some(audience), _) if audience.recipients > 0 => {}
            _ => pass.findings.error("audience", None, "is empty: upload recipients"),
        }
        let plan = match pass.findings.errors_total() {
            0 => Some(pass.plan().await?),
            _ => None,
        };
        let by = delivery.document.prepared_by.clone();
        Ok(Some(PreparationOutcome { by, checks: pass.findings.into_checks(), plan }))
    }

    fn new(preparation: Preparation<'a>) -> Result<Self, StoreError> {
        let audience = preparation.delivery.document.audience.as_ref();
        let times = preparation.definition().schedule.due_times();
        let times = times.map_err(|e| StoreError::Damaged(e.to_string()))?;
        Ok(Self {
            findings: Findings::new(preparation.config.preparation.errors_shown),
            exclusions: Exclusions::default(),
            past_dues: PastDues::new(),
            chunker: Chunker::new(times, preparation.chunk_size()),
            index: IndexWriter::default(),
            effort: DryRunEffort::default(),
            to_deliver: 0,
            approved: Sha256::new(),
            progress: PreparationProgress {
                generation: preparation.generation,
                of: audience.map_or(0, |audience| audience.recipients),
                ..PreparationProgress::default()
            },
            preparation,
        })
    }

    async fn write_links(&self, template: &Template) -> Result<(), StoreError> {
        if self.preparation.settings.tracking.url.is_empty() {
            return Ok(());
        }
        let links = ndjson(template.links())?;
        self.preparation.write_slice(SliceKind::Links(self.preparation.generation), 0, &links).await
    }

    /// Goes through the audience. False if the preparation is not wanted any more.
    async fn go_through(
        &mut self,
        audience: &Audience,
        template: Arc<Template>,
    ) -> Result<bool, StoreError> {
        let (id, audiences) = (self.preparation.id(), &self.preparation.tools.audiences);
        for number in 0..audience.slices {
            if !self.preparation.is_wanted().await? {
                return Ok(false);
            }
            let recipients: Vec<Recipient> =
                audiences.slice(id, SliceKind::Upload(audience.upload), number).await?;
            self.sort_with_beat(recipients, template.clone()).await?;
            if self.effort.stopped {
                return Ok(false);
            }
            if self.findings.errors_total() >= ENOUGH_ERRORS {
                self.findings.warn(
                    "audience",
                    "the preparation ended early: later lines were not looked at",
                );
                return Ok(true);
            }
            self.progress.done =
                self.to_deliver + self.exclusions.total() + self.chunker.waiting() as u64;
            self.beat().await?;
        }
        // with many waves there are many last chunks, and writing them takes long
        while let Some(chunk) = self.chunker.rest() {
            self.write_chunk(&chunk).await?;
            if self.chunker.chunks().is_multiple_of(CHUNKS_A_BEAT) {
                self.beat().await?;
                if !self.preparation.is_wanted().await? {
                    return Ok(false);
                }
            }
        }
        self.index.flush(&self.preparation).await?;
        Ok(true)
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        self.progress.beat += 1;
        self.preparation.note_progress(&self.progress).await
    }

    /// Sorts a slice and raises the beat meanwhile: messages may take long to render.
    async fn sort_with_beat(
        &mut self,
        recipients: Vec<Recipient>,
        template: Arc<Template>,
    ) -> Result<(), StoreError> {
        let (tools, id) = (self.preparation.tools, self.preparation.id());
        let mut progress = self.progress;
        let mut beat = tokio::time::interval(tools.config.now().send.lease() / 4);
        let sorted = {
            let mut sorting = pin!(self.sort(recipients, template));
            loop {
                tokio::select! {
                    sorted = &mut sorting => break sorted,
                    _ = beat.tick() => {
                        progress.beat += 1;
                        tools.audiences.note_preparation(id, &progress).await?;
                    }
                }
            }
        };
        self.progress = progress;
        sorted
    }

    /// Sorts a slice of the upload into exclusions and chunks, and tries every message.
    async fn sort(
        &mut self,
        recipients: Vec<Recipient>,
        template: Arc<Template>,
    ) -> Result<(), StoreError> {
        let kept = self.exclude(recipients).await?;
        if let Some(first) = kept.first().filter(|_| self.chunker.waves() == 0) {
            // one message stands for all: links of recipients differ only in their values
            let (stamp, recipient) = (dry_run_stamp(&self.preparation), first.recipient.clone());
            let (template, line) = (template.clone(), recipient.line);
            let threads = &self.preparation.tools.messages.templates.threads;
            let faults = threads.run(move || template.link_faults(&recipient, &stamp)).await;
            for fault in faults.map_err(|error| StoreError::Damaged(error.to_string()))? {
                self.findings.error("content.html", Some(line), fault);
            }
        }
        let (kept, faults) =
            try_messages(&self.preparation, kept, &template, &mut self.effort).await?;
        for fault in faults {
            self.findings.error(&fault.field, Some(fault.line), fault.message);
        }
        if let Some(excess) = self.effort.excess(&self.preparation.tools.config.now().preparation) {
            let part = template.costly_parts().last().unwrap_or("html");
            self.findings.error(&field_of(self.preparation.definition(), part), None, excess);
            self.findings.raise_errors_to(ENOUGH_ERRORS);
            return Ok(());
        }
        self.deal(kept).await
    }

    /// Writes the exclusions of a slice; returns the recipients that stay.
    async fn exclude(
        &mut self,
        recipients: Vec<Recipient>,
    ) -> Result<Vec<DatedRecipient>, StoreError> {
        let (mut excluded, mut good) = (Vec::new(), Vec::with_capacity(recipients.len()));
        for recipient in recipients {
            match self.exclusions.check_address(&recipient) {
                Err(cause) => {
                    let Recipient { line, email, .. } = recipient;
                    excluded.push(Exclusion { line, email, cause });
                }
                Ok(address) => good.push(DatedRecipient {
                    due: self.chunker.due(&recipient),
                    recipient,
                    address,
                }),
            }
        }
        let kept = self
            .exclusions
            .leave_out(&self.preparation, good, &mut self.chunker, &mut excluded)
            .await?;
        if let Some(text) = self.exclusions.write(&self.preparation, &excluded).await? {
            self.approved.update(&text);
        }
        Ok(kept)
    }

    /// Deals recipients out to chunks, and writes the chunks that are full.
    async fn deal(&mut self, recipients: Vec<DatedRecipient>) -> Result<(), StoreError> {
        for DatedRecipient { recipient, due, address } in recipients {
            let line = recipient.line;
            match due {
                Err(Undated { field, message }) => {
                    self.findings.error(&format!("audience.{field}"), Some(line), message);
                }
                Ok(due) => {
                    self.past_dues.check(due, line, &mut self.findings);
                    if let Some(chunk) = self.chunker.deal(due, recipient, address) {
                        self.write_chunk(&chunk).await?;
                    }
                }
            }
            if self.chunker.waves() > MOST_WAVES {
                self.findings.error(
                    "schedule",
                    Some(line),
                    format!("there are more than {MOST_WAVES} different times: round them"),
                );
                self.findings.raise_errors_to(ENOUGH_ERRORS);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes the chunk that the chunker closed last.
    async fn write_chunk(&mut self, chunk: &FilledChunk) -> Result<(), StoreError> {
        let text = ndjson(&chunk.recipients)?;
        self.approved.update(chunk.due.to_be_bytes());
        self.approved.update(&text);
        let number = self.chunker.chunks() - 1;
        let kind = SliceKind::Chunks(self.preparation.generation);
        self.preparation.write_chunk(kind, number, &text, chunk.due).await?;
        self.index.note_chunk(&self.preparation, number, &chunk.addresses).await?;
        self.to_deliver += chunk.recipients.len() as u64;
        Ok(())
    }

    async fn plan(&self) -> Result<Plan, StoreError> {
        let preparation = &self.preparation;
        let (definition, settings) = (preparation.definition(), &preparation.settings);
        let (waves, places) = self.chunker.tables();
        preparation
            .tools
            .schedules
            .write_waves(preparation.id(), preparation.generation, &waves, &places)
            .await?;
        let audience = self.approved.clone().finalize();
        let bounds = self.chunker.bounds().filter(|(_, last)| *last > 0);
        Ok(Plan {
            generation: preparation.generation,
            number: preparation_number(preparation).await?,
            chunks: self.chunker.chunks(),
            waves: self.chunker.waves() as u32,
            first_due: bounds.map(|(first, _)| instant(first)),
            last_due: bounds.map(|(_, last)| instant(last)),
            chunk_size: preparation.chunk_size() as u32,
            to_deliver: self.to_deliver,
            excluded: self.exclusions.total(),
            exclusion_slices: self.exclusions.slices,
            causes: self.exclusions.causes.clone(),
            settings: settings.clone(),
            digest: digest(definition, settings, &audience),
            audience_sha256: HEXLOWER.encode(&audience),
            holds_in_doubt: false,
            prepared_by: preparation.delivery.document.prepared_by.clone(),
            prepared_at: Timestamp::UNIX_EPOCH,
        })
    }
}

//! The preparation itself: goes through the audience once, in memory that grows only with the set of addresses.

use std::{
    collections::{BTreeMap, HashSet},
    pin::pin,
    sync::Arc,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::chunking::{Chunker, FilledChunk};
use crate::{
    clock::unix_now,
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    domain::{
        audience::{AddressKey, Exclusion, ExclusionCause, Recipient, digest_of},
        delivery::{Audience, Checks, Delivery, DeliveryState, Plan, Settings, digest},
        instant,
        schedule::Undated,
    },
    mail::{MessageMaker, smtp::Relays, template::Template, to_ascii},
    send::{
        define::effective_settings,
        limits::{AddressChecks, KnownPreparations},
    },
    store::{
        StoreError,
        audience::{AudienceStore, PreparationProgress, SliceKind, ndjson},
        schedule::ScheduleStore,
    },
};

/// A preparation with so many errors looks no further: a costly template would fail for a million more.
const ENOUGH_ERRORS: u64 = 1000;
/// After so many of the last chunks a preparation shows life.
const CHUNKS_A_BEAT: u32 = 100;
/// Each has a chunk of its own at least, and all are looked at when one is due.
const MOST_WAVES: usize = 10_000;

/// What a preparation comes to; without a plan if there are errors.
pub struct PreparationOutcome {
    pub by: String,
    pub checks: Checks,
    pub plan: Option<Plan>,
}

/// A preparation that is going on. Its memory grows only with the set of addresses.
pub(super) struct PreparationPass<'a> {
    pub(super) tools: &'a PassTools,
    pub(super) delivery: &'a Delivery,
    pub(super) generation: u32,
    pub(super) settings: Settings,
    pub(super) checks: Checks,
    /// Truncated SHA-256 of every address kept: 16 bytes each.
    seen: HashSet<u128>,
    pub(super) dealer: Chunker,
    /// Those that are not in the index yet.
    pub(super) messages: Vec<(AddressKey, u32)>,
    pub(super) standings: KnownPreparations,
    /// When it began, Unix seconds: what is due before is an error.
    pub(super) now: u32,
    /// Waves that were found to be due before.
    pub(super) late: HashSet<u32>,
    to_deliver: u64,
    exclusion_slices: u32,
    causes: BTreeMap<ExclusionCause, u64>,
    approved: Sha256,
    progress: PreparationProgress,
}

impl<'a> PreparationPass<'a> {
    /// `None` if it was stopped on the way.
    pub async fn run(
        tools: &'a PassTools,
        delivery: &'a Delivery,
        generation: u32,
    ) -> Result<Option<PreparationOutcome>, StoreError> {
        let of = delivery.document.audience.as_ref().map_or(0, |audience| audience.recipients);
        let times = delivery
            .document
            .definition
            .schedule
            .due_times()
            .map_err(|e| StoreError::Damaged(e.to_string()))?;
        let mut this = Self {
            tools,
            delivery,
            generation,
            settings: effective_settings(&tools.config, &delivery.document.definition),
            checks: Checks::default(),
            seen: HashSet::new(),
            dealer: Chunker::new(times, tools.config.preparation.chunk_size),
            messages: Vec::new(),
            standings: KnownPreparations::new(),
            now: unix_now(),
            late: HashSet::new(),
            to_deliver: 0,
            exclusion_slices: 0,
            causes: BTreeMap::new(),
            approved: Sha256::new(),
            progress: PreparationProgress { generation, of, ..PreparationProgress::default() },
        };
        let by = delivery.document.prepared_by.clone();
        let template = this.check_definition();
        if let Some(template) = template.as_ref().filter(|_| !this.settings.tracking.url.is_empty())
        {
            let links = ndjson(template.links())?;
            tools
                .audiences
                .write_slice(&delivery.id, SliceKind::Links(generation), 0, &links)
                .await?;
        }
        match (&delivery.document.audience, template) {
            (Some(audience), Some(template)) if audience.recipients > 0 => {
                if !this.go_through(audience, template).await? {
                    return Ok(None);
                }
                if this.to_deliver == 0 && this.checks.errors_total == 0 {
                    this.error("audience", None, "every recipient is excluded");
                }
            }
            (Some(audience), _) if audience.recipients > 0 => {}
            _ => this.error("audience", None, "is empty: upload recipients"),
        }
        let plan = match this.checks.errors_total {
            0 => Some(this.plan().await?),
            _ => None,
        };
        Ok(Some(PreparationOutcome { by, checks: this.checks, plan }))
    }

    /// False if it was stopped.
    async fn go_through(
        &mut self,
        audience: &Audience,
        template: Arc<Template>,
    ) -> Result<bool, StoreError> {
        for number in 0..audience.slices {
            if !self.is_wanted().await? {
                return Ok(false);
            }
            let (id, store) = (&self.delivery.id, &self.tools.audiences);
            let recipients: Vec<Recipient> =
                store.slice(id, SliceKind::Upload(audience.upload), number).await?;
            self.sort_alive(recipients, template.clone()).await?;
            let done =
                self.to_deliver + self.causes.values().sum::<u64>() + self.dealer.waiting() as u64;
            if self.checks.errors_total >= ENOUGH_ERRORS {
                self.warn(
                    "audience",
                    "the preparation ended early: later lines were not looked at",
                );
                return Ok(true);
            }
            self.progress =
                PreparationProgress { done, beat: self.progress.beat + 1, ..self.progress };
            store.note_preparation(id, &self.progress).await?;
        }
        // of many waves this takes long, too
        while let Some(chunk) = self.dealer.rest() {
            self.write_chunk(&chunk).await?;
            if self.dealer.chunks().is_multiple_of(CHUNKS_A_BEAT) {
                self.progress.beat += 1;
                self.tools.audiences.note_preparation(&self.delivery.id, &self.progress).await?;
                if !self.is_wanted().await? {
                    return Ok(false);
                }
            }
        }
        self.write_messages().await?;
        Ok(true)
    }

    /// Whether it was not stopped, and nobody else has begun anew.
    async fn is_wanted(&self) -> Result<bool, StoreError> {
        let now = self.tools.deliveries.store.delivery(&self.delivery.id).await?;
        let mine = now.is_some_and(|d| {
            d.state == DeliveryState::Preparing && d.document.generation == self.generation
        });
        Ok(mine && !self.tools.daemon.shutdown.is_cancelled())
    }

    /// Sorts a slice and shows life meanwhile: messages may take long to render.
    async fn sort_alive(
        &mut self,
        recipients: Vec<Recipient>,
        template: Arc<Template>,
    ) -> Result<(), StoreError> {
        let (tools, id, mut progress) = (self.tools, &self.delivery.id, self.progress);
        let mut beat = tokio::time::interval(tools.config.send.lease() / 4);
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

    /// Sorts a slice of the upload into recipients and exclusions, and tries every message.
    async fn sort(
        &mut self,
        recipients: Vec<Recipient>,
        template: Arc<Template>,
    ) -> Result<(), StoreError> {
        let (mut excluded, mut good) = (Vec::new(), Vec::with_capacity(recipients.len()));
        for recipient in recipients {
            match self.judge(&recipient) {
                Err(cause) => {
                    excluded.push(Exclusion { line: recipient.line, email: recipient.email, cause })
                }
                Ok(address) => {
                    let due = self.dealer.due(&recipient);
                    good.push((recipient, (due, address)));
                }
            }
        }
        let (kept, dealt) = self.leave_out(good, &mut excluded).await?;
        for exclusion in &excluded {
            *self.causes.entry(exclusion.cause).or_default() += 1;
        }
        if !excluded.is_empty() {
            let text = ndjson(&excluded)?;
            self.approved.update(&text);
            let part = SliceKind::Exclusions(self.generation);
            self.tools
                .audiences
                .write_slice(&self.delivery.id, part, self.exclusion_slices, &text)
                .await?;
            self.exclusion_slices += 1;
        }
        if let Some(first) = kept.first().filter(|_| self.dealer.waves() == 0) {
            // one message stands for all: links differ between recipients in their values only
            for fault in template.link_faults(first, &self.trial_stamp()) {
                self.error("content.html", Some(first.line), fault);
            }
        }
        let (kept, faults) = self.try_messages(kept, template).await?;
        for (line, field, message) in faults {
            self.error(&field, Some(line), message);
        }
        for (recipient, (due, address)) in kept.into_iter().zip(dealt) {
            let line = recipient.line;
            match due {
                Err(Undated { field, message }) => {
                    self.error(&format!("audience.{field}"), Some(line), message)
                }
                Ok(due) => {
                    // once for each wave
                    if due > 0 && due <= self.now && self.late.insert(due) {
                        self.error(
                            "schedule",
                            Some(line),
                            format!("{} is in the past", instant(due)),
                        );
                    }
                    if let Some(chunk) = self.dealer.deal(due, recipient, address) {
                        self.write_chunk(&chunk).await?;
                    }
                }
            }
            if self.dealer.waves() > MOST_WAVES {
                self.error(
                    "schedule",
                    Some(line),
                    format!("there are more than {MOST_WAVES} different times: round them"),
                );
                self.checks.errors_total = self.checks.errors_total.max(ENOUGH_ERRORS);
                return Ok(());
            }
        }
        Ok(())
    }

    fn judge(&mut self, recipient: &Recipient) -> Result<AddressKey, ExclusionCause> {
        if recipient.email.is_empty() {
            return Err(ExclusionCause::EmptyAddress);
        }
        // what can be sent to in theory only, such as a bare host name, counts as invalid
        let usable = |address: &String| {
            address
                .rsplit_once('@')
                .is_some_and(|(_, domain)| domain.contains('.') || domain.starts_with('['))
        };
        let Some(address) = to_ascii(&recipient.email).ok().filter(usable) else {
            return Err(ExclusionCause::InvalidAddress);
        };
        let digest = digest_of(&address);
        if self.seen.insert(digest) {
            Ok(AddressKey::of(digest))
        } else {
            Err(ExclusionCause::Duplicate)
        }
    }

    /// The chunk that the dealer gave out last.
    async fn write_chunk(&mut self, chunk: &FilledChunk) -> Result<(), StoreError> {
        let text = ndjson(&chunk.recipients)?;
        self.approved.update(chunk.due.to_be_bytes());
        self.approved.update(&text);
        let number = self.dealer.chunks() - 1;
        self.tools
            .audiences
            .write_slice(&self.delivery.id, SliceKind::Chunks(self.generation), number, &text)
            .await?;
        self.note_messages(number, &chunk.addresses).await?;
        self.to_deliver += chunk.recipients.len() as u64;
        Ok(())
    }

    async fn plan(&self) -> Result<Plan, StoreError> {
        let definition = &self.delivery.document.definition;
        let (waves, places) = self.dealer.tables();
        self.tools
            .schedules
            .write_waves(&self.delivery.id, self.generation, &waves, &places)
            .await?;
        let bounds = self.dealer.bounds().filter(|(_, last)| *last > 0);
        let chunk_size = self.tools.config.preparation.chunk_size;
        Ok(Plan {
            generation: self.generation,
            number: self.number().await?,
            chunks: self.dealer.chunks(),
            waves: self.dealer.waves() as u32,
            first_due: bounds.map(|(first, _)| instant(first)),
            last_due: bounds.map(|(_, last)| instant(last)),
            chunk_size: chunk_size as u32,
            to_deliver: self.to_deliver,
            excluded: self.causes.values().sum(),
            exclusion_slices: self.exclusion_slices,
            causes: self.causes.clone(),
            settings: self.settings.clone(),
            digest: digest(definition, &self.settings, &self.approved.clone().finalize()),
            prepared_by: self.delivery.document.prepared_by.clone(),
            prepared_at: Timestamp::UNIX_EPOCH,
        })
    }
}

#[derive(Clone)]
pub struct PassTools {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub schedules: ScheduleStore,
    pub checks: AddressChecks,
    pub messages: MessageMaker,
    pub relays: Relays,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

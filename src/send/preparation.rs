//! The preparation itself: goes through the audience once, in memory that grows only with the set of addresses.

use std::{
    collections::{BTreeMap, HashSet},
    pin::pin,
    sync::Arc,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Context, prepare::settings};
use crate::{
    domain::{
        address,
        delivery::{self, Audience, Checks, Definition, Delivery, Finding, Plan, Settings},
        exclusion::{Cause, Exclusion},
        recipient::Recipient,
        state::State,
    },
    mail::{address::to_ascii, template::Template},
    store::{
        StoreError,
        ledgers::ChunkRef,
        slices::{Part, PreparationProgress, ndjson},
    },
};

/// A preparation with so many errors looks no further: a costly template would fail for a million more.
const ENOUGH_ERRORS: u64 = 1000;

/// What a preparation comes to; without a plan if there are errors.
pub(super) struct Outcome {
    pub by: String,
    pub checks: Checks,
    pub plan: Option<Plan>,
}

/// A preparation that is going on. Its memory grows only with the set of addresses.
pub(super) struct Preparation<'a> {
    context: &'a Context,
    delivery: &'a Delivery,
    generation: u32,
    settings: Settings,
    checks: Checks,
    /// Truncated SHA-256 of every address kept: 16 bytes each.
    seen: HashSet<u128>,
    waiting: Vec<Recipient>,
    chunks: u32,
    to_deliver: u64,
    exclusion_slices: u32,
    causes: BTreeMap<Cause, u64>,
    approved: Sha256,
    progress: PreparationProgress,
}

impl<'a> Preparation<'a> {
    /// `None` if it was stopped on the way.
    pub async fn run(context: &'a Context, delivery: &'a Delivery, generation: u32) -> Result<Option<Outcome>, StoreError> {
        let of = delivery.document.audience.as_ref().map_or(0, |audience| audience.recipients);
        let mut this = Self {
            context,
            delivery,
            generation,
            settings: settings(context, &delivery.document.definition),
            checks: Checks::default(),
            seen: HashSet::new(),
            waiting: Vec::new(),
            chunks: 0,
            to_deliver: 0,
            exclusion_slices: 0,
            causes: BTreeMap::new(),
            approved: Sha256::new(),
            progress: PreparationProgress { generation, of, ..PreparationProgress::default() },
        };
        let by = delivery.document.prepared_by.clone();
        let template = this.check_definition();
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
        let plan = (this.checks.errors_total == 0).then(|| this.plan());
        Ok(Some(Outcome { by, checks: this.checks, plan }))
    }

    fn error(&mut self, field: &str, line: Option<u64>, message: impl Into<String>) {
        self.checks.errors_total += 1;
        if self.checks.errors.len() < self.context.config.preparation.errors_shown {
            self.checks.errors.push(Finding { field: field.into(), line, message: message.into() });
        }
    }

    fn warn(&mut self, field: &str, message: &str) {
        self.checks.warnings.push(Finding { field: field.into(), line: None, message: message.into() });
    }

    fn check_definition(&mut self) -> Option<Arc<Template>> {
        let delivery = self.delivery;
        let definition = &delivery.document.definition;
        let masks = &self.context.config.preparation.allowed_senders;
        for (field, email) in
            [("sender.email", Some(&definition.sender.email)), ("sender.envelope_from", definition.sender.envelope_from.as_ref())]
        {
            if email.is_some_and(|email| !masks.iter().any(|mask| address::matches(mask, email))) {
                self.error(field, None, "is not allowed by preparation.allowed_senders");
            }
        }
        let contents = [definition.content.html.as_deref(), definition.content.text.as_deref()];
        if contents.iter().flatten().any(|text| !text.to_lowercase().contains("unsubscribe")) {
            self.warn("content", "no opt-out link was found: bulk mail needs one in every part");
        }
        match Template::compile(&definition.sender, &definition.content, self.settings.message_limit_bytes()) {
            Ok(template) => Some(Arc::new(template)),
            Err(problems) => {
                for p in problems {
                    let at = p.line.map(|line| format!("template line {line}: ")).unwrap_or_default();
                    self.error(&field_of(definition, p.part), None, format!("{at}{}", p.message));
                }
                None
            }
        }
    }

    /// False if it was stopped.
    async fn go_through(&mut self, audience: &Audience, template: Arc<Template>) -> Result<bool, StoreError> {
        for number in 0..audience.slices {
            let (id, store) = (&self.delivery.id, &self.context.store);
            let now = store.delivery(id).await?;
            let mine = now.is_some_and(|d| d.state == State::Preparing && d.document.generation == self.generation);
            if !mine || self.context.shutdown.is_cancelled() {
                return Ok(false);
            }
            let recipients: Vec<Recipient> = store.slice(id, Part::Upload(audience.upload), number).await?;
            self.sort_alive(recipients, template.clone()).await?;
            let done = self.to_deliver + self.causes.values().sum::<u64>() + self.waiting.len() as u64;
            if self.checks.errors_total >= ENOUGH_ERRORS {
                self.warn("audience", "the preparation ended early: later lines were not looked at");
                return Ok(true);
            }
            self.progress = PreparationProgress { done, beat: self.progress.beat + 1, ..self.progress };
            store.note_preparation(id, &self.progress).await?;
        }
        let rest = std::mem::take(&mut self.waiting);
        self.write_chunk(&rest).await?;
        Ok(true)
    }

    /// Sorts a slice and shows life meanwhile: messages may take long to render.
    async fn sort_alive(&mut self, recipients: Vec<Recipient>, template: Arc<Template>) -> Result<(), StoreError> {
        let (context, id, mut progress) = (self.context, &self.delivery.id, self.progress);
        let mut beat = tokio::time::interval(context.config.send.lease() / 4);
        let sorted = {
            let mut sorting = pin!(self.sort(recipients, template));
            loop {
                tokio::select! {
                    sorted = &mut sorting => break sorted,
                    _ = beat.tick() => {
                        progress.beat += 1;
                        context.store.note_preparation(id, &progress).await?;
                    }
                }
            }
        };
        self.progress = progress;
        sorted
    }

    /// Sorts a slice of the upload into recipients and exclusions, and tries every message.
    async fn sort(&mut self, recipients: Vec<Recipient>, template: Arc<Template>) -> Result<(), StoreError> {
        let mut excluded = Vec::new();
        let mut kept = Vec::with_capacity(recipients.len());
        for recipient in recipients {
            match self.judge(&recipient) {
                Some(cause) => excluded.push(Exclusion { line: recipient.line, email: recipient.email, cause }),
                None => kept.push(recipient),
            }
        }
        for exclusion in &excluded {
            *self.causes.entry(exclusion.cause).or_default() += 1;
        }
        if !excluded.is_empty() {
            let text = ndjson(&excluded)?;
            self.approved.update(&text);
            let part = Part::Exclusions(self.generation);
            self.context.store.write_slice(&self.delivery.id, part, self.exclusion_slices, &text).await?;
            self.exclusion_slices += 1;
        }
        if let Some(first) = kept.first().filter(|_| self.chunks == 0 && self.waiting.is_empty()) {
            // one message stands for all: links differ between recipients in their values only
            for fault in template.link_faults(first) {
                self.error("content.html", Some(first.line), fault);
            }
        }
        let (kept, faults) = self.try_messages(kept, template).await?;
        for (line, field, message) in faults {
            self.error(&field, Some(line), message);
        }
        self.waiting.extend(kept);
        let size = self.context.config.preparation.chunk_size;
        while self.waiting.len() >= size {
            let rest = self.waiting.split_off(size);
            let chunk = std::mem::replace(&mut self.waiting, rest);
            self.write_chunk(&chunk).await?;
        }
        Ok(())
    }

    fn judge(&mut self, recipient: &Recipient) -> Option<Cause> {
        if recipient.email.is_empty() {
            return Some(Cause::EmptyAddress);
        }
        // what can be sent to in theory only, such as a bare host name, counts as invalid
        let usable = |address: &String| {
            address.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('.') || domain.starts_with('['))
        };
        let Some(address) = to_ascii(&recipient.email).ok().filter(usable) else { return Some(Cause::InvalidAddress) };
        let digest = Sha256::digest(address.to_lowercase());
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        (!self.seen.insert(u128::from_be_bytes(short))).then_some(Cause::Duplicate)
    }

    /// Renders every message: the only way to know that every field is there and that what comes out may be sent.
    async fn try_messages(
        &self,
        kept: Vec<Recipient>,
        template: Arc<Template>,
    ) -> Result<(Vec<Recipient>, Vec<Fault>), StoreError> {
        let at = ChunkRef { delivery: self.delivery.id.clone(), chunk: 0 };
        let definition = self.delivery.document.definition.clone();
        let stamp = self.context.stamp(&at, 0, &definition, Timestamp::UNIX_EPOCH);
        let work = move || {
            let fault = |r: &Recipient| {
                let e = template.render(r, &stamp).err()?;
                let field = e.field.map_or_else(|| field_of(&definition, e.part), |field| format!("audience.{field}"));
                Some((r.line, field, format!("{}: {}", e.part, e.message)))
            };
            let faults = kept.iter().filter_map(fault).collect();
            (kept, faults)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged(e.to_string()))
    }

    async fn write_chunk(&mut self, recipients: &[Recipient]) -> Result<(), StoreError> {
        if recipients.is_empty() {
            return Ok(());
        }
        let text = ndjson(recipients)?;
        self.approved.update(&text);
        self.context.store.write_slice(&self.delivery.id, Part::Chunks(self.generation), self.chunks, &text).await?;
        self.chunks += 1;
        self.to_deliver += recipients.len() as u64;
        Ok(())
    }

    fn plan(&self) -> Plan {
        let definition = &self.delivery.document.definition;
        Plan {
            generation: self.generation,
            chunks: self.chunks,
            chunk_size: self.context.config.preparation.chunk_size as u32,
            to_deliver: self.to_deliver,
            excluded: self.causes.values().sum(),
            exclusion_slices: self.exclusion_slices,
            causes: self.causes.clone(),
            settings: self.settings.clone(),
            digest: delivery::digest(definition, &self.settings, &self.approved.clone().finalize()),
            prepared_by: self.delivery.document.prepared_by.clone(),
            prepared_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// Line, field and message of a recipient whose mail cannot be made.
type Fault = (u64, String, String);

/// A text that nobody gave was made from the HTML: that is where it has to be mended.
fn field_of(definition: &Definition, part: &str) -> String {
    match part {
        "text" if definition.content.text.is_none() => "content.html".to_owned(),
        part if part.starts_with("sender") => part.to_owned(),
        part => format!("content.{part}"),
    }
}

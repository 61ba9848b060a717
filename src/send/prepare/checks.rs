//! What a preparation finds wrong with a definition, whoever the recipients are.

use std::sync::Arc;

use jiff::Timestamp;

use super::pass::PreparationPass;
use crate::{
    domain::{
        audience::{Recipient, address_mask},
        delivery::{Definition, Finding},
        ledger::ChunkRef,
        schedule::clock_change_warning,
    },
    mail::{
        links::TokenHolder,
        template::{MessageStamp, Template},
    },
    store::StoreError,
};

/// More links that are not tracked are not named.
const MOST_WARNINGS: usize = 10;

impl PreparationPass<'_> {
    pub(super) fn error(&mut self, field: &str, line: Option<u64>, message: impl Into<String>) {
        self.checks.errors_total += 1;
        if self.checks.errors.len() < self.tools.config.preparation.errors_shown {
            self.checks.errors.push(Finding { field: field.into(), line, message: message.into() });
        }
    }

    pub(super) fn warn(&mut self, field: &str, message: &str) {
        self.checks.warnings.push(Finding {
            field: field.into(),
            line: None,
            message: message.into(),
        });
    }

    pub(super) fn check_definition(&mut self) -> Option<Arc<Template>> {
        let delivery = self.delivery;
        let definition = &delivery.document.definition;
        let masks = &self.tools.config.preparation.allowed_senders;
        for (field, email) in [
            ("sender.email", Some(&definition.sender.email)),
            ("sender.envelope_from", definition.sender.envelope_from.as_ref()),
        ] {
            if email
                .is_some_and(|email| !masks.iter().any(|mask| address_mask::matches(mask, email)))
            {
                self.error(field, None, "is not allowed by preparation.allowed_senders");
            }
        }
        let (field, from) = match &definition.sender.envelope_from {
            Some(from) => ("sender.envelope_from", from),
            None => ("sender.email", &definition.sender.email),
        };
        if self.tools.relays.route(from).is_none() {
            self.error(field, None, "has a domain that no relay sends for (relays.sender_domains)");
        }
        if self.settings.approvals > 1 && !self.settings.request_confirmation {
            self.error(
                "settings.request_confirmation",
                None,
                "cannot be false where send.approvals asks for two",
            );
        }
        self.check_schedule();
        let contents = [definition.content.html.as_deref(), definition.content.text.as_deref()];
        if contents.iter().flatten().any(|text| !text.to_lowercase().contains("unsubscribe")) {
            self.warn("content", "no opt-out link was found: bulk mail needs one in every part");
        }
        // nothing leaves the built-in catcher
        if let Some(fault) =
            self.tools.config.public.fault().filter(|_| !self.tools.config.catcher.takes_mail)
        {
            self.warn("public.url", fault);
        }
        let (tracking, limit_bytes) =
            (&self.settings.tracking, self.settings.message_limit_bytes());
        match Template::compile(&definition.sender, &definition.content, tracking, limit_bytes) {
            Ok(template) => {
                for url in template.untracked().iter().take(MOST_WARNINGS) {
                    self.warn(
                        "content.html",
                        &format!(
                            "the link {url:?} is not tracked: the template makes what it depends on"
                        ),
                    );
                }
                Some(Arc::new(template))
            }
            Err(problems) => {
                for p in problems {
                    let at =
                        p.line.map(|line| format!("template line {line}: ")).unwrap_or_default();
                    self.error(&field_of(definition, p.part), None, format!("{at}{}", p.message));
                }
                None
            }
        }
    }

    fn check_schedule(&mut self) {
        let schedule = &self.delivery.document.definition.schedule;
        for (field, due) in schedule.fixed() {
            if due <= self.now {
                self.error(&field, None, "is in the past");
                self.late.insert(due);
            }
        }
        for (field, at, zone) in schedule.local_times() {
            if let Some(warning) = clock_change_warning(at, zone) {
                self.warn(&field, warning);
            }
        }
    }

    /// Messages have the same length with any.
    pub(super) fn trial_stamp(&self) -> MessageStamp {
        let id = &self.delivery.id;
        let at = ChunkRef { delivery: id.clone(), chunk: 0 };
        let stamp = self.tools.messages.stamp(
            &at,
            0,
            &self.delivery.document.definition,
            Timestamp::UNIX_EPOCH,
        );
        let holder = TokenHolder { preparation: 0, recipient: 0, is_proof: true };
        MessageStamp {
            signer: Some(self.tools.messages.tokens.signer(id, self.generation, holder)),
            ..stamp
        }
    }

    /// Merges every message: the only way to know that every field is there and that what comes out may be sent.
    pub(super) async fn try_messages(
        &self,
        kept: Vec<Recipient>,
        template: Arc<Template>,
    ) -> Result<(Vec<Recipient>, Vec<DryRunFault>), StoreError> {
        let definition = self.delivery.document.definition.clone();
        let stamp = self.trial_stamp();
        let work = move || {
            let fault = |recipient: &Recipient| {
                let e = template.try_message(recipient, &stamp).err()?;
                let field = e.field.map_or_else(
                    || field_of(&definition, e.part),
                    |field| format!("audience.{field}"),
                );
                Some((recipient.line, field, format!("{}: {}", e.part, e.message)))
            };
            let faults = kept.iter().filter_map(fault).collect();
            (kept, faults)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged(e.to_string()))
    }
}

/// Line, field and message of a recipient whose mail cannot be made.
pub(super) type DryRunFault = (u64, String, String);

/// A text that nobody gave was made from the HTML: that is where it has to be mended.
pub(super) fn field_of(definition: &Definition, part: &str) -> String {
    match part {
        "text" if definition.content.text.is_none() => "content.html".to_owned(),
        part if part.starts_with("sender") => part.to_owned(),
        part => format!("content.{part}"),
    }
}

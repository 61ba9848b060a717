//! The dry run: makes the message of each recipient to find faults, and sends nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    chunking::DatedRecipient,
    dry_run_effort::{DryRunEffort, thread_time},
    preparation::{PassTools, Preparation},
};
use crate::{
    domain::{audience::Recipient, delivery::Definition, ledger::ChunkRef},
    mail::{
        links::TokenHolder,
        template::{MessageStamp, Template},
    },
    store::StoreError,
};

/// How long one preparation keeps a thread before another one may have it.
const TURN: Duration = Duration::from_millis(50);

/// How long a dry run goes on before it asks whether the preparation was stopped.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);

/// A recipient whose message cannot be made.
pub(super) struct DryRunFault {
    /// Line of the upload, from 1.
    pub(super) line: u64,
    pub(super) field: String,
    pub(super) message: String,
}

/// A stamp for the dry run. The messages get the same length with any stamp.
pub(super) fn dry_run_stamp(preparation: &Preparation<'_>) -> MessageStamp {
    let (id, messages) = (preparation.id(), &preparation.tools.messages);
    let at = ChunkRef { delivery: id.clone(), chunk: 0 };
    let stamp = messages.stamp(&at, 0, preparation.definition(), Timestamp::UNIX_EPOCH);
    let holder = TokenHolder { preparation: 0, recipient: 0, is_proof: true };
    MessageStamp {
        signer: Some(messages.tokens.signer(id, preparation.generation, holder)),
        ..stamp
    }
}

/// Makes every message once. Nothing else shows that each field is there and that each message
/// may be sent.
///
/// Ends early if the messages take too much computing, or if the preparation is not wanted any
/// more. `effort` says which.
///
/// # Errors
/// If the thread of the dry run breaks off, or Redis does not answer.
pub(super) async fn try_messages(
    preparation: &Preparation<'_>,
    recipients: Vec<DatedRecipient>,
    template: &Arc<Template>,
    effort: &mut DryRunEffort,
) -> Result<(Vec<DatedRecipient>, Vec<DryRunFault>), StoreError> {
    let PassTools { messages, daemon, config, .. } = preparation.tools;
    let (definition, stamp) =
        (Arc::new(preparation.definition().clone()), Arc::new(dry_run_stamp(preparation)));
    let (mut recipients, mut faults, mut tried) = (recipients, Vec::new(), 0);
    let mut asked = Instant::now();
    while tried < recipients.len() {
        let is_wanted = match asked.elapsed() < BETWEEN_QUESTIONS {
            true => !daemon.shutdown.is_cancelled(),
            false => {
                asked = Instant::now();
                preparation.is_wanted().await?
            }
        };
        if !is_wanted {
            effort.stopped = true;
            break;
        }
        let (template, definition, stamp) = (template.clone(), definition.clone(), stamp.clone());
        let turn = move || {
            let (began, began_thread) = (Instant::now(), thread_time());
            let (mut found, mut done) = (Vec::new(), 0);
            for dated in &recipients[tried..] {
                found.extend(fault_of(&dated.recipient, &template, &stamp, &definition));
                done += 1;
                if began.elapsed() > TURN {
                    break;
                }
            }
            let taken = thread_time().saturating_sub(began_thread);
            (recipients, found, done, taken)
        };
        let turned = messages.templates.threads.run(turn).await;
        let (all, found, done, taken) =
            turned.map_err(|error| StoreError::Damaged(error.to_string()))?;
        recipients = all;
        faults.extend(found);
        tried += done;
        effort.add(taken, done as u64);
        if effort.excess(&config.now().preparation).is_some() {
            break;
        }
    }
    Ok((recipients, faults))
}

fn fault_of(
    recipient: &Recipient,
    template: &Template,
    stamp: &MessageStamp,
    definition: &Definition,
) -> Option<DryRunFault> {
    let error = template.try_message(recipient, stamp).err()?;
    let field = error
        .field
        .map_or_else(|| field_of(definition, error.part), |field| format!("audience.{field}"));
    let message = format!("{}: {}", error.part, error.message);
    Some(DryRunFault { line: recipient.line, field, message })
}

/// The field of the definition that a part of the message comes from. A text part that nobody
/// wrote is made from the HTML, so faults in it belong to the HTML.
pub(super) fn field_of(definition: &Definition, part: &str) -> String {
    match part {
        "text" if definition.content.text.is_none() => "content.html".to_owned(),
        part if part.starts_with("sender") => part.to_owned(),
        part => format!("content.{part}"),
    }
}

//! The dry run: makes the message of each recipient to find faults, and sends nothing.

use std::sync::Arc;

use jiff::Timestamp;

use super::{chunking::DatedRecipient, preparation::Preparation};
use crate::{
    domain::{audience::Recipient, delivery::Definition, ledger::ChunkRef},
    mail::{
        links::TokenHolder,
        template::{MessageStamp, Template},
    },
    store::StoreError,
};

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
/// # Errors
/// If the thread of the dry run breaks off.
pub(super) async fn try_messages(
    preparation: &Preparation<'_>,
    recipients: Vec<DatedRecipient>,
    template: Arc<Template>,
) -> Result<(Vec<DatedRecipient>, Vec<DryRunFault>), StoreError> {
    let definition = preparation.definition().clone();
    let stamp = dry_run_stamp(preparation);
    let work = move || {
        let faults = recipients
            .iter()
            .filter_map(|dated| fault_of(&dated.recipient, &template, &stamp, &definition))
            .collect();
        (recipients, faults)
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged(e.to_string()))
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

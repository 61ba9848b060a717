//! The sending log: the state of every recipient.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Page;
use crate::{
    deliveries::{Deliveries, Refusal},
    domain::{
        audience::{ExclusionCause, Recipient},
        delivery::{Delivery, DeliveryId, Plan},
        instant,
        ledger::{ChunkRef, RecipientNumber, Record, Status, flags},
        outcome::{FailureReason, FailureType},
    },
    store::{
        StoreError,
        audience::{AudienceStore, SliceKind},
        chunks::LedgerStore,
    },
};

/// A line of the sending log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendingLogLine {
    /// Recipient number, from 0.
    pub recipient: u64,
    /// Line of the audience upload, from 1.
    pub line: u64,
    pub email: String,
    pub status: Status,
    /// SMTP transactions that were begun.
    pub attempts: u8,
    pub failure_type: Option<FailureType>,
    pub failure_reason: Option<FailureReason>,
    /// Why the recipient was left out after the preparation.
    pub cause: Option<ExclusionCause>,
    /// When the status was reached; absent while it is pending or deferred.
    pub at: Option<Timestamp>,
    /// When a deferred recipient is tried again.
    pub due: Option<Timestamp>,
    /// An earlier attempt was in doubt, and the message was or will be sent again.
    pub resent: bool,
    /// A person resolved the doubt.
    pub settled: bool,
    /// The relay accepted the message more than once, or may have done so.
    pub duplicate: bool,
    /// The validity period ended.
    pub expired: bool,
    /// SMTP test: `sent` means that the relay took the recipient (2xx to RCPT). Nothing was
    /// delivered.
    pub test: bool,
    /// The reply of the server in one line, or the fault if there was no reply.
    pub reply: Option<String>,
}

impl SendingLogLine {
    fn new(
        number: u64,
        recipient: Recipient,
        record: Option<Record>,
        reply: Option<String>,
        test: bool,
    ) -> Self {
        let status = record.map_or(Status::Pending, |r| r.status);
        let has = |flag| record.is_some_and(|r| r.has(flag));
        let when = record.map(|r| instant(r.when));
        Self {
            recipient: number,
            line: recipient.line,
            email: recipient.email,
            status,
            attempts: record.map_or(0, |r| r.attempts),
            failure_type: record.and_then(failure_type),
            failure_reason: record.and_then(failure_reason),
            cause: record.and_then(cause),
            at: when.filter(|_| !matches!(status, Status::Pending | Status::Deferred)),
            due: when.filter(|_| status == Status::Deferred),
            resent: has(flags::RESENT),
            settled: has(flags::SETTLED),
            duplicate: has(flags::DUPLICATE),
            expired: has(flags::EXPIRED),
            test,
            reply,
        }
    }
}

/// The failure type of a failed recipient.
pub(super) fn failure_type(record: Record) -> Option<FailureType> {
    let kind = if record.has(flags::HARD) { FailureType::Hard } else { FailureType::Soft };
    (record.status == Status::Failed).then_some(kind)
}

/// Why a recipient failed or was deferred.
pub(super) fn failure_reason(record: Record) -> Option<FailureReason> {
    let reason =
        FailureReason::from_code(record.reason).filter(|reason| *reason != FailureReason::None);
    reason.filter(|_| matches!(record.status, Status::Failed | Status::Deferred))
}

/// Why a recipient was left out after the preparation.
pub(super) fn cause(record: Record) -> Option<ExclusionCause> {
    (record.status == Status::Excluded).then(|| ExclusionCause::from_code(record.reason)).flatten()
}

/// Reads sending logs.
#[derive(Clone)]
pub struct SendingLog {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub ledgers: LedgerStore,
}

impl SendingLog {
    /// The lines of one chunk.
    ///
    /// # Errors
    /// If Redis does not answer, or a stored part is damaged.
    pub async fn lines(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        chunk: u32,
    ) -> Result<Vec<SendingLogLine>, StoreError> {
        let at = ChunkRef { delivery: delivery.id.clone(), chunk };
        let recipients: Vec<Recipient> =
            self.audiences.slice(&delivery.id, SliceKind::Chunks(plan.generation), chunk).await?;
        let ledger = self
            .ledgers
            .ledgers(&delivery.id, chunk..chunk + 1)
            .await?
            .into_iter()
            .flatten()
            .next();
        let mut replies = self.ledgers.replies(&at).await?;
        let first = RecipientNumber::of(chunk, 0, plan.chunk_size).0;
        let line = |(position, recipient): (u16, Recipient)| {
            let record = ledger.as_ref().and_then(|ledger| ledger.record(usize::from(position)));
            let (number, reply) = (first + u64::from(position), replies.remove(&position));
            SendingLogLine::new(number, recipient, record, reply, plan.settings.smtp_test)
        };
        Ok((0u16..).zip(recipients).map(line).collect())
    }

    /// A page from recipient number `from`; with `status` or `chunk` only their lines.
    ///
    /// # Errors
    /// If the delivery or its logs are gone.
    pub async fn page(
        &self,
        id: &DeliveryId,
        from: u64,
        limit: usize,
        status: Option<Status>,
        chunk: Option<u32>,
    ) -> Result<Page<SendingLogLine>, Refusal> {
        let delivery = self.deliveries.delivery_with_logs(id).await?;
        let Some(plan) = &delivery.document.plan else {
            return Ok(Page { items: Vec::new(), next: None });
        };
        let mut items = Vec::new();
        let first_chunk =
            RecipientNumber(from).place(plan.chunk_size).map_or(u32::MAX, |(chunk, _)| chunk);
        let wanted = |number: &u32| chunk.is_none_or(|chunk| *number == chunk);
        for chunk in (first_chunk..plan.chunks).filter(wanted) {
            for line in self.lines(&delivery, plan, chunk).await? {
                if line.recipient < from || status.is_some_and(|status| line.status != status) {
                    continue;
                }
                if items.len() == limit {
                    return Ok(Page { items, next: Some(line.recipient) });
                }
                items.push(line);
            }
        }
        Ok(Page { items, next: None })
    }
}

//! Profile history: every message an address got or is to get, over all deliveries.

use std::cmp::Reverse;

use jiff::Timestamp;
use serde::Serialize;

use super::sending_log::{Page, cause, failure_reason, failure_type};
use crate::{
    deliveries::Refusal,
    domain::{
        Invalid,
        audience::{AddressKey, ExclusionCause, digest_of},
        delivery::DeliveryId,
        instant,
        ledger::{Record, Status, flags},
        outcome::{FailureReason, FailureType},
        tracking::tracked,
    },
    mail::to_ascii,
    store::addresses::{AddressStore, MessageTrace},
};

/// A message in the history of an address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryLine {
    pub delivery: DeliveryId,
    /// Of the delivery; none if it was prepared before names were noted.
    pub name: Option<String>,
    /// Number in its sending log.
    pub recipient: u32,
    pub status: Status,
    pub attempts: u8,
    pub failure_type: Option<FailureType>,
    pub failure_reason: Option<FailureReason>,
    pub cause: Option<ExclusionCause>,
    /// When the status was reached; of one that is pending or deferred when it is due; none if that is at once.
    pub at: Option<Timestamp>,
    pub opened: Opened,
    pub clicked: Clicked,
    /// A human looked at the mirror page.
    pub mirror: bool,
    pub opted_out: bool,
    pub bounced: bool,
}

/// Who opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// A human click and a mirror page imply it.
    pub human: bool,
    pub machine: bool,
    pub apple_proxy: bool,
}

/// Who clicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Clicked {
    pub human: bool,
    pub machine: bool,
}

impl From<MessageTrace> for HistoryLine {
    fn from(MessageTrace { preparation, recipient, record, wave }: MessageTrace) -> Self {
        let is = |bits| record.is_some_and(|record| record.tracked & bits != 0);
        let released_or_due =
            wave.map(|wave| if wave.state.is_released() { wave.released_at } else { wave.due });
        let status = record.map_or(Status::Pending, |record| record.status);
        let at = if status == Status::Pending {
            released_or_due
        } else {
            record.map(|record| record.when)
        };
        Self {
            delivery: preparation.delivery,
            name: Some(preparation.name).filter(|name| !name.is_empty()),
            recipient,
            status,
            attempts: record.map_or(0, |record| record.attempts),
            failure_type: record.and_then(failure_type),
            failure_reason: record.and_then(failure_reason),
            cause: record.and_then(cause),
            at: at.filter(|at| *at > 0).map(instant),
            opened: Opened {
                human: is(tracked::OPENED),
                machine: is(tracked::MACHINE_OPEN),
                apple_proxy: is(tracked::APPLE_OPEN),
            },
            clicked: Clicked {
                human: is(tracked::HUMAN_CLICK),
                machine: is(tracked::MACHINE_CLICK),
            },
            mirror: is(tracked::HUMAN_MIRROR),
            opted_out: is(tracked::OPT_OUT),
            bounced: record.is_some_and(|record: Record| record.has(flags::BOUNCED)),
        }
    }
}

#[derive(Clone)]
pub struct History {
    pub addresses: AddressStore,
}

impl History {
    /// A page of the messages to an address, newest first by when they were sent or are due.
    pub async fn page(
        &self,
        email: &str,
        from: usize,
        limit: usize,
    ) -> Result<Page<HistoryLine>, Refusal> {
        let invalid = |_| Invalid { field: "email".into(), reason: "is not an address".into() };
        let address = AddressKey::of(digest_of(&to_ascii(email).map_err(invalid)?));
        let mut lines: Vec<HistoryLine> =
            self.addresses.history(address).await?.into_iter().map(HistoryLine::from).collect();
        // none is at once: later than all that has an instant behind it
        lines.sort_by_cached_key(|line| {
            Reverse((line.at.unwrap_or(Timestamp::MAX), line.delivery.as_str().to_owned()))
        });
        let next = (lines.len() > from.saturating_add(limit)).then_some((from + limit) as u64);
        Ok(Page { items: lines.into_iter().skip(from).take(limit).collect(), next })
    }
}

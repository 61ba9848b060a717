//! The history of an address: every message to it, sent or planned, over all deliveries.

use crate::domain::Invalid;
use std::cmp::Reverse;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Page,
    sending_log::{cause, failure_reason, failure_type},
};
use crate::{
    deliveries::Refusal,
    domain::{
        Principal,
        audience::ExclusionCause,
        delivery::DeliveryId,
        instant,
        ledger::{Record, Status, flags},
        outcome::{FailureReason, FailureType},
        tracking::tracked,
    },
    mail::address_key,
    store::{
        DeliveryStore,
        addresses::{AddressStore, MessageTrace},
    },
};

/// A message in the history of an address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryLine {
    pub delivery: DeliveryId,
    /// Name of the delivery; none if it was prepared before names were noted.
    pub name: Option<String>,
    /// Recipient number in the sending log of the delivery.
    pub recipient: u32,
    pub status: Status,
    pub attempts: u8,
    pub failure_type: Option<FailureType>,
    pub failure_reason: Option<FailureReason>,
    pub cause: Option<ExclusionCause>,
    /// When the status was reached. A deferred message has the instant of its next attempt here.
    /// A pending one has the release of its wave or, before the release, the due instant. None
    /// means at once.
    pub at: Option<Timestamp>,
    pub opened: Opened,
    pub clicked: Clicked,
    /// A human looked at the mirror page.
    pub mirror: bool,
    pub opted_out: bool,
    pub bounced: bool,
}

/// The kinds of openers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// A human click or mirror page counts as an open, too.
    pub human: bool,
    pub machine: bool,
    pub apple_proxy: bool,
}

/// The kinds of clickers.
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

/// Reads histories.
#[derive(Clone)]
pub struct History {
    pub addresses: AddressStore,
    pub deliveries: DeliveryStore,
}

impl History {
    /// A page of the messages to an address from entry `from`, newest first by their instant. It
    /// leaves out deliveries that `by` does not see.
    ///
    /// # Errors
    /// If `email` is not an address, or Redis does not answer.
    pub async fn page(
        &self,
        by: &Principal,
        email: &str,
        from: usize,
        limit: usize,
    ) -> Result<Page<HistoryLine>, Refusal> {
        let invalid = |_| Invalid { field: "email".into(), reason: "is not an address".into() };
        let address = address_key(email).map_err(invalid)?;
        let mut lines: Vec<HistoryLine> =
            self.addresses.history(address).await?.into_iter().map(HistoryLine::from).collect();
        if by.unit.is_some() {
            let ids: Vec<DeliveryId> = lines.iter().map(|line| line.delivery.clone()).collect();
            let units = self.deliveries.units(&ids).await?;
            let mut seen = units
                .iter()
                .map(|unit| unit.as_ref().is_some_and(|unit| by.sees_unit(unit.as_deref())));
            lines.retain(|_| seen.next().unwrap_or_default());
        }
        // a message without an instant is due at once, later than all sent ones
        lines.sort_by_cached_key(|line| {
            Reverse((line.at.unwrap_or(Timestamp::MAX), line.delivery.as_str().to_owned()))
        });
        let next = (lines.len() > from.saturating_add(limit)).then_some((from + limit) as u64);
        Ok(Page { items: lines.into_iter().skip(from).take(limit).collect(), next })
    }
}

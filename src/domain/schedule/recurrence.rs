//! Recurring deliveries: a cron expression with a zone, and the occurrences of a template.

use chrono::{DateTime, Utc};
use croner::{Cron, parser::CronParser};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::{due_times::Schedule, local_time};
use crate::domain::{
    Invalid,
    delivery::{Definition, DeliveryId, LONGEST_NAME},
};

/// Where an occurrence gets its audience from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudienceSource {
    /// The template's audience at the time of the creation. The occurrence is prepared at once.
    #[default]
    Stored,
    /// An upload for this occurrence. The uploader then asks for the preparation.
    Fresh,
}

/// When and how a template recurs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrenceRule {
    /// Five fields: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// A name of the IANA database.
    pub zone: String,
    /// How long before its due time an occurrence is created; 1 to 10080.
    #[serde(default = "an_hour")]
    pub lead_minutes: u32,
    #[serde(default)]
    pub audience: AudienceSource,
    /// The last possible due time; `None`: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// `false`: the preparation of an occurrence also confirms it.
    #[serde(default = "yes")]
    pub request_confirmation: bool,
}

fn an_hour() -> u32 {
    60
}

fn yes() -> bool {
    true
}

/// The rule of a template, and its next occurrence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recurrence {
    pub rule: RecurrenceRule,
    /// The principal in whose name occurrences are created and confirmed.
    pub by: String,
    pub set_at: Timestamp,
    /// The due time of the next occurrence to create; `None` after the last one.
    pub next: Option<Timestamp>,
}

/// Marks a delivery as an occurrence, with its template and its due time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// The template.
    pub of: DeliveryId,
    pub due: Timestamp,
    /// The occurrence lapses at this time if it is not confirmed before.
    pub open_until: Timestamp,
    /// Whether the occurrence lapsed. The audit log then says so.
    #[serde(default)]
    pub lapsed: bool,
}

/// The due times of a rule.
#[derive(Debug, Clone)]
pub struct RecurrenceInstants {
    cron: Cron,
    zone: TimeZone,
    until: Option<Timestamp>,
}

impl RecurrenceRule {
    /// The due times of this rule.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn instants(&self) -> Result<RecurrenceInstants, Invalid> {
        if self.cron.split_whitespace().count() != 5 {
            return Err(Invalid::new(
                "cron",
                "must have five fields: minute, hour, day, month, day of the week",
            ));
        }
        let cron =
            CronParser::new().parse(&self.cron).map_err(|e| Invalid::new("cron", e.to_string()))?;
        let zone = local_time::zone(&self.zone).map_err(|reason| Invalid::new("zone", reason))?;
        Ok(RecurrenceInstants { cron, zone, until: self.until })
    }

    /// The first due time after `now`.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn first(&self, now: Timestamp) -> Result<Timestamp, Invalid> {
        let instants = self.instants()?;
        if !(1..=10_080).contains(&self.lead_minutes) {
            return Err(Invalid::new("lead_minutes", "must be 1 to 10080"));
        }
        if self.until.is_some_and(|until| until <= now) {
            return Err(Invalid::new("until", "is in the past"));
        }
        let without_end = RecurrenceInstants { until: None, ..instants.clone() }.after(now);
        without_end.ok_or_else(|| Invalid::new("cron", "names no time to come"))?;
        instants
            .after(now)
            .ok_or_else(|| Invalid::new("until", "comes before the first occurrence"))
    }

    /// When the occurrence with this due time must be created.
    pub fn creation(&self, due: Timestamp) -> Timestamp {
        due.checked_sub(SignedDuration::from_mins(i64::from(self.lead_minutes))).unwrap_or(due)
    }

    /// Whether no person sees an occurrence before it is sent. A change of the template then
    /// changes what is sent.
    pub fn sends_unreviewed(&self) -> bool {
        self.audience == AudienceSource::Stored && !self.request_confirmation
    }

    /// The definition of the occurrence with this due time: that of the template, with the due time
    /// in its name and as its schedule. The rule says whether a person must confirm it.
    ///
    /// # Errors
    /// The first field of the rule that cannot be used.
    pub fn definition(&self, template: &Definition, due: Timestamp) -> Result<Definition, Invalid> {
        let local = self.instants()?.zone.to_datetime(due);
        let date = format!(" {}", local.strftime("%Y-%m-%d %H:%M"));
        let name: String = template.name.chars().take(LONGEST_NAME - date.len()).collect();
        let mut definition = Definition { name: name + &date, ..template.clone() };
        definition.schedule = Schedule::At { at: local.to_string(), zone: self.zone.clone() };
        definition.settings.request_confirmation = Some(self.request_confirmation);
        Ok(definition)
    }
}

/// The id of an occurrence. It depends on template and due time only. If two daemons create the
/// occurrence at the same time, they create the same delivery.
pub fn occurrence_id(template: &DeliveryId, due: Timestamp) -> DeliveryId {
    DeliveryId::derived(&format!("\0recurrence of {template}"), &due.to_string())
}

impl RecurrenceInstants {
    /// The first due time after `instant`.
    ///
    /// The expression describes local times. Each of them means one instant, as in a [`Schedule`]:
    /// a skipped time moves forward by the gap, and a repeated time means the first. Two local
    /// times with the same instant are one occurrence.
    pub fn after(&self, instant: Timestamp) -> Option<Timestamp> {
        let day_before = instant.checked_sub(SignedDuration::from_hours(24)).ok()?;
        let same_clock = self.zone.to_offset(day_before) == self.zone.to_offset(instant);
        // A clock change may move an earlier local time to an instant after `instant`.
        let from = self.zone.to_datetime(if same_clock { instant } else { day_before });
        let from =
            DateTime::<Utc>::from_timestamp(TimeZone::UTC.to_timestamp(from).ok()?.as_second(), 0)?;
        let mut first: Option<u32> = None;
        // croner gets local times as if they were UTC. The zone is applied here.
        for local in self.cron.iter_after(from) {
            let local = TimeZone::UTC.to_datetime(Timestamp::from_second(local.timestamp()).ok()?);
            // There is no due time after 2106.
            let due = local_time::instant(local, &self.zone).ok()?;
            if i64::from(due) <= instant.as_second() {
                continue;
            }
            first = Some(first.map_or(due, |first| first.min(due)));
            // After a skipped local time, a later one may be due earlier. After any other local
            // time, all later ones are due later.
            if !local_time::is_skipped(local, &self.zone) {
                break;
            }
        }
        let first = Timestamp::from_second(i64::from(first?)).ok()?;
        self.until.is_none_or(|until| first <= until).then_some(first)
    }
}

#[cfg(test)]
#[path = "recurrence_tests.rs"]
mod tests;

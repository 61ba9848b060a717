//! Recurring deliveries: a cron expression with a zone, and the occurrences it makes of a template.

use chrono::{DateTime, Utc};
use croner::{Cron, parser::CronParser};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::due_times::{self, Schedule};
use crate::domain::delivery::{
    Definition, DeliveryId, DeliveryState, Document, Invalid, LONGEST_NAME,
};

/// Where an occurrence gets its audience from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudienceSource {
    /// The template's, as it is when the occurrence is created; which is then prepared at once.
    #[default]
    Stored,
    /// An upload for this occurrence, by whoever has it prepared then.
    Fresh,
}

/// When and how a template recurs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrenceRule {
    /// Minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// A name of the IANA database.
    pub zone: String,
    /// How long before its time an occurrence is created; 1 to 10080.
    #[serde(default = "an_hour")]
    pub lead_minutes: u32,
    #[serde(default)]
    pub audience: AudienceSource,
    /// No occurrence after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// `false`: an occurrence is released by its preparation.
    #[serde(default = "yes")]
    pub request_confirmation: bool,
}

fn an_hour() -> u32 {
    60
}

fn yes() -> bool {
    true
}

/// The rule of a template, and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recurrence {
    pub rule: RecurrenceRule,
    /// In whose name occurrences are created and released.
    pub by: String,
    pub set_at: Timestamp,
    /// The next occurrence that is to be created; none if there is none any more.
    pub next: Option<Timestamp>,
}

/// Which occurrence of which template a delivery is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    pub of: DeliveryId,
    pub due: Timestamp,
    /// If it is not released by then it is too late.
    pub open_until: Timestamp,
    /// It was not, and that was said.
    #[serde(default)]
    pub lapsed: bool,
}

/// The instants of a rule.
#[derive(Debug, Clone)]
pub struct RecurrenceInstants {
    cron: Cron,
    zone: TimeZone,
    until: Option<Timestamp>,
}

impl RecurrenceRule {
    /// # Errors
    /// The first field that cannot be used.
    pub fn instants(&self) -> Result<RecurrenceInstants, Invalid> {
        let invalid = |field: &str, reason: String| Invalid { field: field.into(), reason };
        if self.cron.split_whitespace().count() != 5 {
            return Err(invalid(
                "cron",
                "must have five fields: minute, hour, day, month, day of the week".into(),
            ));
        }
        let cron =
            CronParser::new().parse(&self.cron).map_err(|e| invalid("cron", e.to_string()))?;
        let zone = due_times::zone(&self.zone).map_err(|reason| invalid("zone", reason))?;
        Ok(RecurrenceInstants { cron, zone, until: self.until })
    }

    /// The first instant after `now`.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn first(&self, now: Timestamp) -> Result<Timestamp, Invalid> {
        let invalid =
            |field: &str, reason: &str| Invalid { field: field.into(), reason: reason.into() };
        let instants = self.instants()?;
        if !(1..=10_080).contains(&self.lead_minutes) {
            return Err(invalid("lead_minutes", "must be 1 to 10080"));
        }
        if self.until.is_some_and(|until| until <= now) {
            return Err(invalid("until", "is in the past"));
        }
        let ever = RecurrenceInstants { until: None, ..instants.clone() }.after(now);
        ever.ok_or_else(|| invalid("cron", "names no time to come"))?;
        instants.after(now).ok_or_else(|| invalid("until", "comes before the first occurrence"))
    }

    /// When the occurrence that is due then is to be created.
    pub fn creation(&self, due: Timestamp) -> Timestamp {
        due.checked_sub(SignedDuration::from_mins(i64::from(self.lead_minutes))).unwrap_or(due)
    }

    /// Whether nobody looks at an occurrence before it is released: whoever changes the template changes what is sent.
    pub fn releases_unseen(&self) -> bool {
        self.audience == AudienceSource::Stored && !self.request_confirmation
    }

    /// What the occurrence that is due then is: the template's content at that time, and a name that says so.
    ///
    /// # Errors
    /// If there is no such zone.
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

/// The id of an occurrence: whoever creates it creates the same one.
pub fn id_of(template: &DeliveryId, due: Timestamp) -> DeliveryId {
    DeliveryId::derived(&format!("\0recurrence of {template}"), &due.to_string())
}

impl RecurrenceInstants {
    /// The first instant after `instant`.
    ///
    /// The expression is about local times, and each of them is one instant as in a [`Schedule`]: one that a clock change skips
    /// moves forward by the gap, one that it repeats is the first of the two. Two that fall on one instant are one occurrence.
    pub fn after(&self, instant: Timestamp) -> Option<Timestamp> {
        let day_before = instant.checked_sub(SignedDuration::from_hours(24)).ok()?;
        let same_clock = self.zone.to_offset(day_before) == self.zone.to_offset(instant);
        // a clock change may have moved local times of before it to after `instant`
        let from = self.zone.to_datetime(if same_clock { instant } else { day_before });
        let from =
            DateTime::<Utc>::from_timestamp(TimeZone::UTC.to_timestamp(from).ok()?.as_second(), 0)?;
        let mut first: Option<u32> = None;
        // local times as if they were UTC: what they mean is decided here
        for local in self.cron.iter_after(from) {
            let local = TimeZone::UTC.to_datetime(Timestamp::from_second(local.timestamp()).ok()?);
            // beyond 2106 there is no time to come
            let due = due_times::instant(local, &self.zone).ok()?;
            if i64::from(due) <= instant.as_second() {
                continue;
            }
            first = Some(first.map_or(due, |first| first.min(due)));
            // later ones are due later, but for those that are skipped
            if !due_times::is_skipped(local, &self.zone) {
                break;
            }
        }
        let first = Timestamp::from_second(i64::from(first?)).ok()?;
        self.until.is_none_or(|until| first <= until).then_some(first)
    }
}

impl Document {
    /// When the task of recurring deliveries is to look at it, if ever.
    pub fn wakes(&self, state: DeliveryState) -> Option<Timestamp> {
        if state == DeliveryState::Deleted {
            return None;
        }
        let recurs = self.recurrence.as_ref().and_then(|r| Some(r.rule.creation(r.next?)));
        let lapses = self
            .occurrence
            .as_ref()
            .filter(|o| !o.lapsed && state.awaits_release())
            .map(|o| o.open_until);
        recurs.into_iter().chain(lapses).min()
    }
}

#[cfg(test)]
#[path = "recurrence_tests.rs"]
mod tests;

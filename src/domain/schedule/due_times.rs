//! Schedules: when each recipient's message is due.

use std::collections::HashMap;

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{audience::Recipient, delivery::Invalid};

/// When the delivery is sent once it is confirmed.
///
/// Local times are written `2026-12-01T09:00:00`, without an offset; zones are names of the IANA database. A local time
/// that a clock change skips moves forward by the gap, one that it repeats means the first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// At once: one wave.
    #[default]
    Now,
    /// At a date and time: one wave.
    At { at: String, zone: String },
    /// At a date and time on each recipient's own clock, in the zone that a field of the audience names: a wave per zone.
    LocalTime {
        at: String,
        zone_field: String,
        /// For recipients whose field is missing or empty; without it they are errors.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default_zone: Option<String>,
    },
    /// At the instant that a field of the audience names (RFC 3339, with offset): a wave per instant.
    PerRecipient { field: String },
    /// In steps: a wave per step, each with its share of the recipients, spread evenly over the audience.
    RampUp { zone: String, steps: Vec<RampStep> },
}

/// A step of a ramp-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RampStep {
    /// Percent of the recipients; all steps together have 100.
    pub share: f64,
    pub at: String,
}

/// Why it is not known when a recipient's message is due: `field` is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undated {
    pub field: String,
    pub message: String,
}

/// Deals out due instants, in Unix seconds; 0 is at once.
#[derive(Debug, Clone)]
pub enum DueTimes {
    Fixed(u32),
    Zones {
        at: DateTime,
        field: String,
        default: Option<String>,
        known: HashMap<String, Result<u32, String>>,
    },
    Field(String),
    Steps {
        steps: Vec<(f64, u32)>,
        dealt: Vec<u64>,
    },
}

impl Schedule {
    /// # Errors
    /// The first field that cannot be used.
    pub fn due_times(&self) -> Result<DueTimes, Invalid> {
        match self {
            Self::Now => Ok(DueTimes::Fixed(0)),
            Self::At { at, zone } => Ok(DueTimes::Fixed(due("schedule", at, zone)?)),
            Self::LocalTime { at, zone_field, default_zone } => {
                if let Some(zone) = default_zone {
                    due("schedule", at, zone).map_err(|e| Invalid {
                        field: e.field.replace(".zone", ".default_zone"),
                        ..e
                    })?;
                }
                let at = local("schedule.at", at)?;
                named("schedule.zone_field", zone_field)?;
                Ok(DueTimes::Zones {
                    at,
                    field: zone_field.clone(),
                    default: default_zone.clone(),
                    known: HashMap::new(),
                })
            }
            Self::PerRecipient { field } => {
                named("schedule.field", field)?;
                Ok(DueTimes::Field(field.clone()))
            }
            Self::RampUp { zone, steps } => ramp_up(zone, steps),
        }
    }

    /// The instants that are known without the audience, with the field that names each.
    pub fn fixed(&self) -> Vec<(String, u32)> {
        match self.due_times() {
            Ok(DueTimes::Fixed(due)) if due > 0 => vec![("schedule.at".into(), due)],
            Ok(DueTimes::Steps { steps, .. }) => steps
                .iter()
                .enumerate()
                .map(|(i, (_, due))| (format!("schedule.steps[{i}].at"), *due))
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Schedule {
    /// The local times of the definition, each with its field and its zone.
    pub fn local_times(&self) -> Vec<(String, &str, &str)> {
        match self {
            Self::At { at, zone } => vec![("schedule.at".into(), at, zone)],
            Self::LocalTime { at, default_zone: Some(zone), .. } => {
                vec![("schedule.at".into(), at, zone)]
            }
            Self::RampUp { zone, steps } => steps
                .iter()
                .enumerate()
                .map(|(i, s)| (format!("schedule.steps[{i}].at"), s.at.as_str(), zone.as_str()))
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn ramp_up(zone: &str, steps: &[RampStep]) -> Result<DueTimes, Invalid> {
    let invalid = |field: String, reason: &str| Invalid { field, reason: reason.into() };
    let mut dated: Vec<(f64, u32)> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let field = format!("schedule.steps[{i}]");
        if !(step.share > 0.0 && step.share <= 100.0) {
            return Err(invalid(format!("{field}.share"), "must be above 0 and at most 100"));
        }
        let due = due(&field, &step.at, zone).map_err(|e| match e.field.ends_with(".zone") {
            true => invalid("schedule.zone".into(), &e.reason),
            false => e,
        })?;
        if dated.last().is_some_and(|(_, before)| due <= *before) {
            return Err(invalid(
                format!("{field}.at"),
                "must be later than that of the step before",
            ));
        }
        dated.push((step.share, due));
    }
    let sum: f64 = steps.iter().map(|step| step.share).sum();
    if (sum - 100.0).abs() > 1e-6 {
        return Err(invalid("schedule.steps".into(), "their shares must add up to 100"));
    }
    Ok(DueTimes::Steps { dealt: vec![0; dated.len()], steps: dated })
}

fn named(field: &str, name: &str) -> Result<(), Invalid> {
    match name.trim().is_empty() {
        true => {
            Err(Invalid { field: field.into(), reason: "must name a field of the audience".into() })
        }
        false => Ok(()),
    }
}

/// A local date and time. jiff would read over an offset that stands behind it.
fn local(field: &str, at: &str) -> Result<DateTime, Invalid> {
    let plain = at.bytes().all(|b| b.is_ascii_digit() || b"-T: .".contains(&b))
        && at.matches('-').count() == 2;
    match at.parse::<DateTime>() {
        Ok(time) if plain && at.contains(':') => Ok(time),
        _ => {
            let reason = "must be a date and time without an offset, such as 2026-12-01T09:00:00; its zone stands apart";
            Err(Invalid { field: field.into(), reason: reason.into() })
        }
    }
}

pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| "is not the name of a time zone, such as Europe/Berlin".to_owned())
}

fn due(parent: &str, at: &str, zone_name: &str) -> Result<u32, Invalid> {
    let local = local(&format!("{parent}.at"), at)?;
    let invalid = |field: &str, reason| Invalid { field: format!("{parent}.{field}"), reason };
    let zone = zone(zone_name).map_err(|reason| invalid("zone", reason))?;
    instant(local, &zone).map_err(|reason| invalid("at", reason))
}

pub(super) fn instant(local: DateTime, zone: &TimeZone) -> Result<u32, String> {
    // RFC 5545 and jiff call it compatible: forward by the gap, the first of two
    let at = zone.to_ambiguous_timestamp(local).compatible().map_err(|e| e.to_string())?;
    seconds(at)
}

/// Whole seconds, never early.
fn seconds(at: Timestamp) -> Result<u32, String> {
    let whole = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    u32::try_from(whole)
        .ok()
        .filter(|due| *due > 0)
        .ok_or_else(|| "must lie between 1970 and 2106".to_owned())
}

/// Whether a clock change skips this local time.
pub(super) fn is_skipped(local: DateTime, zone: &TimeZone) -> bool {
    matches!(zone.to_ambiguous_timestamp(local).offset(), AmbiguousOffset::Gap { .. })
}

/// Whether a clock change skips or repeats this local time: what is done then is worth a warning.
pub fn changed_clock(at: &str, zone_name: &str) -> Option<&'static str> {
    let ambiguous = zone(zone_name).ok()?.to_ambiguous_timestamp(local("at", at).ok()?);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Gap { .. } => {
            Some("a clock change skips this time: it moves forward by the gap")
        }
        AmbiguousOffset::Fold { .. } => {
            Some("a clock change repeats this time: the first one is meant")
        }
    }
}

impl DueTimes {
    /// When the next recipient's message is due.
    ///
    /// # Errors
    /// What is wrong with the recipient's field.
    pub fn due(&mut self, recipient: &Recipient) -> Result<u32, Undated> {
        match self {
            Self::Fixed(due) => Ok(*due),
            Self::Zones { at, field, default, known } => {
                let undated = |message| Undated { field: field.clone(), message };
                let named = text_of(recipient, field).map_err(undated)?.or(default.as_deref());
                let name = named
                    .ok_or_else(|| undated("names no time zone, and there is no default".into()))?;
                if let Some(known) = known.get(name) {
                    return known.clone().map_err(undated);
                }
                let due = zone(name).and_then(|zone| instant(*at, &zone));
                // whatever strangers wrote into the field: not without end
                if due.is_ok() || known.len() < 1000 {
                    known.insert(name.to_owned(), due.clone());
                }
                due.map_err(undated)
            }
            Self::Field(field) => {
                let undated =
                    |message: &str| Undated { field: field.clone(), message: message.into() };
                let text = text_of(recipient, field)
                    .map_err(|m| undated(&m))?
                    .ok_or_else(|| undated("has no date"))?;
                let at: Timestamp = text
                    .parse()
                    .map_err(|_| undated("is not a date with an offset (RFC 3339), such as 2026-12-01T09:00:00+01:00"))?;
                seconds(at).map_err(|m| undated(&m))
            }
            Self::Steps { steps, dealt } => {
                let nth = dealt.iter().sum::<u64>() + 1;
                // the step that lags most behind its share
                let lag = |i: &usize| steps[*i].0 / 100.0 * nth as f64 - dealt[*i] as f64;
                let step = (0..steps.len())
                    .max_by(|a, b| lag(a).total_cmp(&lag(b)).then(b.cmp(a)))
                    .unwrap_or(0);
                dealt[step] += 1;
                Ok(steps[step].1)
            }
        }
    }
}

impl DueTimes {
    /// The recipient that was last due then is not sent to: another one takes the place.
    pub fn take_back(&mut self, due: u32) {
        if let Self::Steps { steps, dealt } = self
            && let Some(step) = steps.iter().position(|(_, at)| *at == due)
        {
            dealt[step] = dealt[step].saturating_sub(1);
        }
    }
}

/// A field's text; none if it is missing, null or empty.
fn text_of<'a>(recipient: &'a Recipient, field: &str) -> Result<Option<&'a str>, String> {
    match recipient.fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(_) => Err("must be a text".into()),
    }
}

#[cfg(test)]
#[path = "due_times_tests.rs"]
mod tests;

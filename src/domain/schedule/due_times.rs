//! Due times: the schedule of a definition, and the due time of each recipient.

use std::collections::HashMap;

use jiff::{Timestamp, civil::DateTime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::local_time;
use crate::domain::{Invalid, audience::Recipient};

/// When a confirmed delivery is sent.
///
/// A local time is written `2026-12-01T09:00:00`, without an offset. A zone is a name of the IANA
/// database. If a clock change skips a local time, the time moves forward by the gap. If a clock
/// change repeats it, the first one is meant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// At once, in one wave.
    #[default]
    Now,
    /// At a date and time, in one wave.
    At { at: String, zone: String },
    /// At a date and time on each recipient's own clock: a wave per instant. A field of the
    /// audience names the zone.
    LocalTime {
        at: String,
        zone_field: String,
        /// The zone of recipients whose field is missing or empty. Without it they are errors.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default_zone: Option<String>,
    },
    /// At the instant in a field of the audience (RFC 3339, with offset): a wave per instant.
    PerRecipient { field: String },
    /// In steps: a wave per step. Each step has its share of the recipients, spread evenly over
    /// the audience.
    RampUp { zone: String, steps: Vec<RampStep> },
}

/// A step of a ramp-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RampStep {
    /// Percent of the recipients. The shares of all steps must add up to 100.
    pub share: f64,
    /// A local time, later than that of the step before.
    pub at: String,
}

/// A recipient without a due time, because a field of the audience cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undated {
    /// The field of the audience.
    pub field: String,
    /// For people.
    pub message: String,
}

/// Gives each recipient its due time, in Unix seconds; 0 means at once.
#[derive(Debug, Clone)]
pub enum DueTimes {
    /// The same for all recipients.
    Fixed(u32),
    /// A local time in the zone that a field names.
    Zones {
        at: DateTime,
        field: String,
        default: Option<String>,
        /// The due time or the error of each zone so far.
        known: HashMap<String, Result<u32, String>>,
    },
    /// The instant in a field with this name.
    Field(String),
    /// A ramp-up.
    Steps {
        /// Share in percent, and due time.
        steps: Vec<(f64, u32)>,
        /// How many recipients each step has so far.
        assigned: Vec<u64>,
    },
}

impl Schedule {
    /// The due times of this schedule.
    ///
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
                let at = local_time::parse(at).map_err(|e| Invalid::new("schedule.at", e))?;
                check_field_name("schedule.zone_field", zone_field)?;
                Ok(DueTimes::Zones {
                    at,
                    field: zone_field.clone(),
                    default: default_zone.clone(),
                    known: HashMap::new(),
                })
            }
            Self::PerRecipient { field } => {
                check_field_name("schedule.field", field)?;
                Ok(DueTimes::Field(field.clone()))
            }
            Self::RampUp { zone, steps } => ramp_up(zone, steps),
        }
    }

    /// The due times that are known without the audience, each with the field that sets it.
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

    /// The local times of the definition, each with its field and its zone. A local time without a
    /// zone in the definition is left out.
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
    let mut dated: Vec<(f64, u32)> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let field = format!("schedule.steps[{i}]");
        if !(step.share > 0.0 && step.share <= 100.0) {
            return Err(Invalid::new(format!("{field}.share"), "must be above 0 and at most 100"));
        }
        let due = due(&field, &step.at, zone).map_err(|e| match e.field.ends_with(".zone") {
            true => Invalid::new("schedule.zone", e.reason),
            false => e,
        })?;
        if dated.last().is_some_and(|(_, before)| due <= *before) {
            return Err(Invalid::new(
                format!("{field}.at"),
                "must be later than the time of the step before",
            ));
        }
        dated.push((step.share, due));
    }
    let sum: f64 = steps.iter().map(|step| step.share).sum();
    if (sum - 100.0).abs() > 1e-6 {
        return Err(Invalid::new("schedule.steps", "their shares must add up to 100"));
    }
    Ok(DueTimes::Steps { assigned: vec![0; dated.len()], steps: dated })
}

fn check_field_name(field: &str, name: &str) -> Result<(), Invalid> {
    match name.trim().is_empty() {
        true => Err(Invalid::new(field, "must name a field of the audience")),
        false => Ok(()),
    }
}

/// The instant of a local time in Unix seconds. Errors name `parent.at` or `parent.zone`.
fn due(parent: &str, at: &str, zone: &str) -> Result<u32, Invalid> {
    let invalid = |field: &str, reason| Invalid { field: format!("{parent}.{field}"), reason };
    let local = local_time::parse(at).map_err(|reason| invalid("at", reason))?;
    let zone = local_time::zone(zone).map_err(|reason| invalid("zone", reason))?;
    local_time::instant(local, &zone).map_err(|reason| invalid("at", reason))
}

impl DueTimes {
    /// The due time of the next recipient, in Unix seconds.
    ///
    /// # Errors
    /// The recipient's field cannot be used.
    pub fn due(&mut self, recipient: &Recipient) -> Result<u32, Undated> {
        match self {
            Self::Fixed(due) => Ok(*due),
            Self::Zones { at, field, default, known } => {
                in_own_zone(recipient, *at, field, default.as_deref(), known)
                    .map_err(|message| Undated { field: field.clone(), message })
            }
            Self::Field(field) => in_field(recipient, field)
                .map_err(|message| Undated { field: field.clone(), message }),
            Self::Steps { steps, assigned } => {
                let nth = assigned.iter().sum::<u64>() + 1;
                // The next recipient goes to the step that is furthest behind its share.
                let lag = |i: &usize| steps[*i].0 / 100.0 * nth as f64 - assigned[*i] as f64;
                let step = (0..steps.len())
                    .max_by(|a, b| lag(a).total_cmp(&lag(b)).then(b.cmp(a)))
                    .unwrap_or(0);
                assigned[step] += 1;
                Ok(steps[step].1)
            }
        }
    }

    /// Takes back the last recipient with this due time, because it is excluded. In a ramp-up,
    /// another recipient takes its place in the step.
    pub fn take_back(&mut self, due: u32) {
        if let Self::Steps { steps, assigned } = self
            && let Some(step) = steps.iter().position(|(_, at)| *at == due)
        {
            assigned[step] = assigned[step].saturating_sub(1);
        }
    }
}

/// The instant of the local time `at` in the zone that the recipient's `field` names.
fn in_own_zone(
    recipient: &Recipient,
    at: DateTime,
    field: &str,
    default: Option<&str>,
    known: &mut HashMap<String, Result<u32, String>>,
) -> Result<u32, String> {
    let name = text_of(recipient, field)?
        .or(default)
        .ok_or("names no time zone, and there is no default")?;
    if let Some(known) = known.get(name) {
        return known.clone();
    }
    let due = local_time::zone(name).and_then(|zone| local_time::instant(at, &zone));
    // The field may hold any text, so the number of remembered errors needs a limit.
    if due.is_ok() || known.len() < 1000 {
        known.insert(name.to_owned(), due.clone());
    }
    due
}

/// The instant that the recipient's `field` holds.
fn in_field(recipient: &Recipient, field: &str) -> Result<u32, String> {
    let text = text_of(recipient, field)?.ok_or("has no date")?;
    let at: Timestamp = text.parse().map_err(
        |_| "is not a date with an offset (RFC 3339), such as 2026-12-01T09:00:00+01:00",
    )?;
    local_time::whole_seconds(at)
}

/// The text in a field; `None` if it is missing, null or empty.
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

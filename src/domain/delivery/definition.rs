//! The definition of a delivery: everything an upstream system says about it except the audience.

use serde::{Deserialize, Serialize};

use super::settings::SettingOverrides;
use crate::domain::{Invalid, is_unit_name, misleads, schedule::Schedule};

/// Most characters of a delivery's name.
pub const LONGEST_NAME: usize = 200;

/// The author of the mail: `From`, and the envelope sender unless `envelope_from` names another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub email: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_from: Option<String>,
}

/// The templates. A merge field is written `{{ field }}`. The field `email` always exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    pub subject: String,
    /// At least one of `html` and `text` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// If it is left out, it is made from `html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Content {
    /// The templates that are given, each with its field.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("subject", Some(&self.subject)),
            ("html", self.html.as_ref()),
            ("text", self.text.as_ref()),
        ]
        .into_iter()
        .filter_map(|(part, source)| Some((part, source?.as_str())))
    }
}

/// Everything an upstream system says about a delivery, without the audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// 1 to [`LONGEST_NAME`] printable characters.
    pub name: String,
    /// The unit that the delivery belongs to. Principals of other units do not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub sender: Sender,
    pub content: Content,
    #[serde(default)]
    pub schedule: Schedule,
    #[serde(default)]
    pub settings: SettingOverrides,
}

impl Definition {
    /// Checks name, unit, schedule and settings. The preparation checks sender and content.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.name.trim().is_empty()
            || self.name.chars().count() > LONGEST_NAME
            || self.name.contains(misleads)
        {
            return Err(Invalid::new(
                "name",
                "must have 1 to 200 printable characters, none of which turns the direction \
                 of the text",
            ));
        }
        if self.unit.as_deref().is_some_and(|unit| !is_unit_name(unit)) {
            return Err(Invalid::new("unit", "must have 1 to 100 printable characters"));
        }
        self.schedule.due_times()?;
        self.settings.check(self.schedule == Schedule::Now)
    }
}

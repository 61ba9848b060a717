//! The settings of one delivery.
//!
//! [`SettingOverrides`] is the part of the definition that overrides the configuration.
//! [`Settings`] is the result, fixed by the preparation.

use serde::{Deserialize, Serialize};

use crate::domain::{Invalid, audience::FatigueRule};

/// The in-doubt policy: what happens if nobody can know whether the relay took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InDoubt {
    /// Nobody gets the mail twice: the recipient stays in doubt until a person resolves it.
    Hold,
    /// Nobody misses the mail: it is sent once more, with the same bytes and Message-ID.
    Resend,
}

/// The settings of a delivery that override the configuration. If a setting is left out, the
/// preparation takes it from the configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SettingOverrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<InDoubt>,
    /// Above 0, at most 8760.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validity_hours: Option<f64>,
    /// 1 to 100 waits, each above 0 and at most 10080.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_minutes: Option<Vec<f64>>,
    /// How late a wave may still be released without a person; 0 to 10080.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_minutes: Option<f64>,
    /// `false`: the preparation also confirms the delivery. Then the delivery needs a schedule, and
    /// whoever prepares it needs the role `start_deliveries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_confirmation: Option<bool>,
    /// 0.001 to 1 000 000, for all daemons together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
    /// 1, or 2: one person approves and another one confirms. A number below that of the
    /// configuration is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u8>,
    /// `true`: every transaction ends after RCPT with RSET, and nothing is delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_test: Option<bool>,
    /// `false`, or messages (1 to 1000) and days (above 0, at most 366).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fatigue: Option<FatigueOverride>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<TrackingOverrides>,
    /// `false`: the mail also goes to recipients that opted out, as a receipt must.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denylist: Option<bool>,
}

/// The fatigue rule of a delivery that overrides the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be false, or messages and days")]
pub enum FatigueOverride {
    /// `false`: no rule. `true` is refused.
    Exempt(bool),
    Rule(FatigueRule),
}

/// The tracking settings of a delivery that override the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object with opens, clicks, mirror_link")]
pub struct TrackingOverrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clicks: Option<bool>,
    /// The text of the link to the mirror page, at most 200 characters; empty: no such link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_link: Option<String>,
}

/// The tracking settings in force, fixed by the preparation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tracking {
    /// The URL of the public listener, without a slash at its end. If it is empty, messages have
    /// neither tracked links nor opt-out headers.
    pub url: String,
    pub opens: bool,
    pub clicks: bool,
    /// The text of the link to the mirror page; empty: no such link.
    pub mirror_link: String,
}

impl SettingOverrides {
    /// Checks each setting. `at_once`: the delivery has no schedule.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn check(&self, at_once: bool) -> Result<(), Invalid> {
        self.check_numbers()?;
        self.check_fatigue()?;
        self.check_mirror_link()?;
        self.check_confirmation(at_once)
    }

    fn check_numbers(&self) -> Result<(), Invalid> {
        if self.validity_hours.is_some_and(|h| !(h > 0.0 && h <= 8760.0)) {
            return invalid("validity_hours", "must be above 0 and at most 8760");
        }
        if let Some(waits) = &self.retry_minutes
            && (waits.is_empty()
                || waits.len() > 100
                || waits.iter().any(|m| !(*m > 0.0 && *m <= 10_080.0)))
        {
            return invalid(
                "retry_minutes",
                "must hold 1 to 100 numbers above 0 and at most 10080",
            );
        }
        if self.grace_minutes.is_some_and(|m| !(0.0..=10_080.0).contains(&m)) {
            return invalid("grace_minutes", "must be 0 to 10080");
        }
        if self.messages_per_second.is_some_and(|n| !(0.001..=1e6).contains(&n)) {
            return invalid("messages_per_second", "must be 0.001 to 1000000");
        }
        if self.approvals.is_some_and(|n| !(1..=2).contains(&n)) {
            return invalid("approvals", "must be 1 or 2");
        }
        Ok(())
    }

    fn check_fatigue(&self) -> Result<(), Invalid> {
        match self.fatigue {
            Some(FatigueOverride::Exempt(true)) => {
                invalid("fatigue", "must be false, or messages and days")
            }
            Some(FatigueOverride::Rule(rule)) if !rule.is_valid() => {
                invalid("fatigue", "must have 1 to 1000 messages, and days above 0 and at most 366")
            }
            _ => Ok(()),
        }
    }

    fn check_mirror_link(&self) -> Result<(), Invalid> {
        let link = self.tracking.as_ref().and_then(|tracking| tracking.mirror_link.as_deref());
        let is_bad = |link: &str| link.chars().count() > 200 || link.contains(char::is_control);
        match link {
            Some(link) if is_bad(link) => {
                invalid("tracking.mirror_link", "must have at most 200 printable characters")
            }
            _ => Ok(()),
        }
    }

    fn check_confirmation(&self, at_once: bool) -> Result<(), Invalid> {
        if self.request_confirmation != Some(false) {
            return Ok(());
        }
        if at_once {
            return invalid(
                "request_confirmation",
                "can be false only with a schedule: a preparation must not send at once",
            );
        }
        if self.approvals == Some(2) {
            return invalid(
                "request_confirmation",
                "cannot be false where two sign-offs are needed",
            );
        }
        Ok(())
    }
}

fn invalid(setting: &str, reason: &str) -> Result<(), Invalid> {
    Err(Invalid::new(format!("settings.{setting}"), reason))
}

/// The settings in force for a delivery, fixed by the preparation and part of the digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub in_doubt: InDoubt,
    pub validity_hours: f64,
    pub retry_minutes: Vec<f64>,
    /// The largest rendered message.
    pub message_limit_kib: u32,
    /// How late a wave may still be released without a person.
    pub grace_minutes: f64,
    pub request_confirmation: bool,
    pub approvals: u8,
    /// For all daemons together; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
    /// Whether every transaction ends after RCPT with RSET.
    #[serde(default)]
    pub smtp_test: bool,
    /// `None`: no rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fatigue: Option<FatigueRule>,
    #[serde(default)]
    pub tracking: Tracking,
    /// Whether recipients that opted out are excluded.
    #[serde(default)]
    pub denylist: bool,
}

impl Settings {
    /// The largest rendered message, in bytes.
    pub fn message_limit_bytes(&self) -> usize {
        self.message_limit_kib as usize * 1024
    }

    /// How late a wave may still be released without a person, in seconds.
    pub fn grace_s(&self) -> u32 {
        (self.grace_minutes * 60.0).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_name_their_field() {
        let refused = |overrides: SettingOverrides, at_once| {
            overrides.check(at_once).map_err(|e| e.field).unwrap_err()
        };
        let none = SettingOverrides::default;
        assert_eq!(
            refused(SettingOverrides { validity_hours: Some(f64::NAN), ..none() }, true),
            "settings.validity_hours"
        );
        assert_eq!(
            refused(SettingOverrides { retry_minutes: Some(vec![]), ..none() }, true),
            "settings.retry_minutes"
        );
        assert_eq!(
            refused(SettingOverrides { grace_minutes: Some(-1.0), ..none() }, true),
            "settings.grace_minutes"
        );
        assert_eq!(
            refused(SettingOverrides { approvals: Some(3), ..none() }, true),
            "settings.approvals"
        );
        let rule = |messages, days| SettingOverrides {
            fatigue: Some(FatigueOverride::Rule(FatigueRule { messages, days })),
            ..none()
        };
        for bad in [rule(0, 7.0), rule(1001, 7.0), rule(1, 0.0), rule(1, 367.0), rule(1, f64::NAN)]
        {
            assert_eq!(refused(bad, true), "settings.fatigue");
        }
        assert_eq!(
            refused(
                SettingOverrides { fatigue: Some(FatigueOverride::Exempt(true)), ..none() },
                true
            ),
            "settings.fatigue"
        );
        assert_eq!(
            SettingOverrides { fatigue: Some(FatigueOverride::Exempt(false)), ..none() }
                .check(true),
            Ok(())
        );
        let unconfirmed = SettingOverrides { request_confirmation: Some(false), ..none() };
        assert_eq!(unconfirmed.check(false), Ok(()));
        assert_eq!(refused(unconfirmed.clone(), true), "settings.request_confirmation");
        assert_eq!(
            refused(SettingOverrides { approvals: Some(2), ..unconfirmed }, false),
            "settings.request_confirmation"
        );
    }

    #[test]
    fn the_error_of_a_wrong_tracking_says_what_is_expected() {
        let error = serde_json::from_str::<SettingOverrides>(r#"{"tracking": true}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected an object with opens, clicks, mirror_link"), "{error}");
    }
}

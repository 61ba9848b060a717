//! Settings of one delivery: what it says itself, and what it is sent with.

use serde::{Deserialize, Serialize};

use super::document::Invalid;
use crate::domain::audience::{FatigueRule, OwnFatigue};

/// What happens to a recipient that was in an SMTP transaction when its worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InDoubt {
    /// Nobody gets the mail twice: held until a person settles it.
    Hold,
    /// Nobody misses it: sent again once, with the same bytes and Message-ID.
    Resend,
}

/// Settings of one delivery; what is left out comes from the configuration when it is prepared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<InDoubt>,
    /// Above 0, at most 8760.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validity_hours: Option<f64>,
    /// 1 to 100 waits, each above 0 and at most 10080.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_minutes: Option<Vec<f64>>,
    /// How late a wave may be released without asking; 0 to 10080.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_minutes: Option<f64>,
    /// `false`: a scheduled delivery is released by its preparation, which then needs the role `start_deliveries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_confirmation: Option<bool>,
    /// 0.001 to 1 000 000; all daemons together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
    /// 1, or 2: one person approves, another one confirms. The configuration may ask for more, not for fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u8>,
    /// `true`: every transaction ends after RCPT with RSET, and nothing is delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_test: Option<bool>,
    /// `false`, or messages (1 to 1000) and days (above 0, at most 366).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fatigue: Option<OwnFatigue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<OwnTracking>,
    /// `false`: who opted out gets it all the same, such as a receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denylist: Option<bool>,
}

/// What a delivery says of its tracking.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object with opens, clicks, mirror_link")]
pub struct OwnTracking {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clicks: Option<bool>,
    /// Text of a link to the mirror page above the message, at most 200 characters; empty is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_link: Option<String>,
}

/// How a delivery is tracked, fixed at preparation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tracking {
    /// Where the public listener is reached, without a slash at its end; empty is nowhere: no links, no opt-out headers.
    pub url: String,
    pub opens: bool,
    pub clicks: bool,
    /// Empty is none.
    pub mirror_link: String,
}

impl Overrides {
    /// # Errors
    /// The first field that cannot be used.
    pub fn check(&self, at_once: bool) -> Result<(), Invalid> {
        let invalid = |field: &str, reason: &str| {
            Err(Invalid { field: format!("settings.{field}"), reason: reason.into() })
        };
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
        match self.fatigue {
            Some(OwnFatigue::Exempt(true)) => {
                return invalid("fatigue", "must be false, or messages and days");
            }
            Some(OwnFatigue::Rule(rule)) if !rule.is_sane() => {
                return invalid(
                    "fatigue",
                    "must have 1 to 1000 messages, and days above 0 and at most 366",
                );
            }
            _ => {}
        }
        let link = self
            .tracking
            .as_ref()
            .and_then(|tracking| tracking.mirror_link.as_deref())
            .unwrap_or_default();
        if link.chars().count() > 200 || link.contains(char::is_control) {
            return invalid("tracking.mirror_link", "must have at most 200 printable characters");
        }
        if self.request_confirmation == Some(false) && at_once {
            return invalid(
                "request_confirmation",
                "can be false only with a schedule: a preparation alone sends nothing at once",
            );
        }
        if self.request_confirmation == Some(false) && self.approvals == Some(2) {
            return invalid(
                "request_confirmation",
                "cannot be false where two approvals are needed",
            );
        }
        Ok(())
    }
}

/// The settings a delivery is sent with, fixed at preparation and part of the digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub in_doubt: InDoubt,
    pub validity_hours: f64,
    pub retry_minutes: Vec<f64>,
    /// Largest rendered message.
    pub message_limit_kib: u32,
    /// How late a wave may be released without asking.
    pub grace_minutes: f64,
    pub request_confirmation: bool,
    pub approvals: u8,
    /// All daemons together; none is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
    /// Every transaction ends after RCPT with RSET.
    #[serde(default)]
    pub smtp_test: bool,
    /// None is no rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fatigue: Option<FatigueRule>,
    #[serde(default)]
    pub tracking: Tracking,
    /// Whether who opted out is left out.
    #[serde(default)]
    pub denylist: bool,
}

impl Settings {
    pub fn message_limit_bytes(&self) -> usize {
        self.message_limit_kib as usize * 1024
    }

    /// How late a wave may be released without asking.
    pub fn grace_s(&self) -> u32 {
        (self.grace_minutes * 60.0).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_name_their_field() {
        let refused = |overrides: Overrides, at_once| {
            overrides.check(at_once).map_err(|e| e.field).unwrap_err()
        };
        let none = Overrides::default;
        assert_eq!(
            refused(Overrides { validity_hours: Some(f64::NAN), ..none() }, true),
            "settings.validity_hours"
        );
        assert_eq!(
            refused(Overrides { retry_minutes: Some(vec![]), ..none() }, true),
            "settings.retry_minutes"
        );
        assert_eq!(
            refused(Overrides { grace_minutes: Some(-1.0), ..none() }, true),
            "settings.grace_minutes"
        );
        assert_eq!(refused(Overrides { approvals: Some(3), ..none() }, true), "settings.approvals");
        let rule = |messages, days| Overrides {
            fatigue: Some(OwnFatigue::Rule(FatigueRule { messages, days })),
            ..none()
        };
        for bad in [rule(0, 7.0), rule(1001, 7.0), rule(1, 0.0), rule(1, 367.0), rule(1, f64::NAN)]
        {
            assert_eq!(refused(bad, true), "settings.fatigue");
        }
        assert_eq!(
            refused(Overrides { fatigue: Some(OwnFatigue::Exempt(true)), ..none() }, true),
            "settings.fatigue"
        );
        assert_eq!(
            Overrides { fatigue: Some(OwnFatigue::Exempt(false)), ..none() }.check(true),
            Ok(())
        );
        let unasked = Overrides { request_confirmation: Some(false), ..none() };
        assert_eq!(unasked.check(false), Ok(()));
        assert_eq!(refused(unasked.clone(), true), "settings.request_confirmation");
        assert_eq!(
            refused(Overrides { approvals: Some(2), ..unasked }, false),
            "settings.request_confirmation"
        );
    }

    #[test]
    fn what_is_no_tracking_is_told_what_is() {
        let error =
            serde_json::from_str::<Overrides>(r#"{"tracking": true}"#).unwrap_err().to_string();
        assert!(error.contains("expected an object with opens, clicks, mirror_link"), "{error}");
    }
}

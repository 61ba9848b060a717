//! The floor: what the configuration asks of each delivery, and no delivery may lower.

use super::settings::{FatigueOverride, SettingOverrides, Settings};
use crate::domain::{Invalid, audience::FatigueRule};

/// What each delivery has at least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SettingsFloor {
    /// Persons that a confirmation needs.
    pub approvals: u8,
    /// Whether addresses on the denylist are always excluded.
    pub denylist: bool,
    /// `None`: a delivery may have any rule, or none.
    pub fatigue: Option<FatigueRule>,
    /// Whether a delivery may track opens.
    pub opens: bool,
    /// Whether a delivery may track clicks.
    pub clicks: bool,
}

impl SettingsFloor {
    /// Checks that a definition does not ask for less.
    ///
    /// # Errors
    /// The first setting that does.
    pub fn check(&self, asked: &SettingOverrides) -> Result<(), Invalid> {
        if asked.approvals.is_some_and(|approvals| approvals < self.approvals) {
            return refuse("approvals", "must be 2: send.approvals asks for two sign-offs");
        }
        if self.denylist && asked.denylist == Some(false) {
            return refuse("denylist", "cannot be false: overrides.denylist does not allow it");
        }
        if let (Some(floor), Some(asked)) = (self.fatigue, asked.fatigue)
            && weaker(asked, floor)
        {
            return refuse(
                "fatigue",
                "is weaker than the rule of [fatigue]: overrides.fatigue does not allow it",
            );
        }
        let tracking = asked.tracking.clone().unwrap_or_default();
        for (setting, asked, allowed) in [
            ("tracking.opens", tracking.opens, self.opens),
            ("tracking.clicks", tracking.clicks, self.clicks),
        ] {
            if asked == Some(true) && !allowed {
                return refuse(setting, "cannot be true: overrides.tracking does not allow it");
            }
        }
        Ok(())
    }

    /// Raises settings to the floor. A definition from before a stricter configuration may be
    /// below it.
    #[must_use]
    pub fn raise(&self, settings: Settings) -> Settings {
        let mut raised = settings;
        raised.approvals = raised.approvals.max(self.approvals);
        raised.denylist |= self.denylist;
        raised.tracking.opens &= self.opens;
        raised.tracking.clicks &= self.clicks;
        if let Some(floor) = self.fatigue {
            raised.fatigue =
                Some(raised.fatigue.filter(|rule| rule.is_as_strict(floor)).unwrap_or(floor));
        }
        raised
    }
}

fn weaker(asked: FatigueOverride, floor: FatigueRule) -> bool {
    match asked {
        FatigueOverride::Exempt(_) => true,
        FatigueOverride::Rule(rule) => !rule.is_as_strict(floor),
    }
}

fn refuse(setting: &str, reason: &str) -> Result<(), Invalid> {
    Err(Invalid::new(format!("settings.{setting}"), reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::TrackingOverrides;

    const FLOOR: SettingsFloor = SettingsFloor {
        approvals: 2,
        denylist: true,
        fatigue: Some(FatigueRule { messages: 2, days: 7.0 }),
        opens: false,
        clicks: false,
    };

    fn refused(asked: SettingOverrides) -> Option<String> {
        FLOOR.check(&asked).err().map(|invalid| invalid.field)
    }

    #[test]
    fn a_definition_cannot_ask_for_less() {
        let none = SettingOverrides::default;
        let rule = |messages, days| SettingOverrides {
            fatigue: Some(FatigueOverride::Rule(FatigueRule { messages, days })),
            ..none()
        };
        let tracking = |opens, clicks| SettingOverrides {
            tracking: Some(TrackingOverrides { opens, clicks, ..Default::default() }),
            ..none()
        };
        let exempt = SettingOverrides { fatigue: Some(FatigueOverride::Exempt(false)), ..none() };
        for (asked, field) in [
            (none(), None),
            (SettingOverrides { approvals: Some(1), ..none() }, Some("approvals")),
            (SettingOverrides { approvals: Some(2), ..none() }, None),
            (SettingOverrides { denylist: Some(false), ..none() }, Some("denylist")),
            (SettingOverrides { denylist: Some(true), ..none() }, None),
            (exempt, Some("fatigue")),
            (rule(2, 7.0), None),
            (rule(1, 30.0), None),
            (rule(3, 7.0), Some("fatigue")),
            (rule(2, 6.0), Some("fatigue")),
            (rule(1, 6.0), Some("fatigue")),
            (tracking(Some(true), None), Some("tracking.opens")),
            (tracking(Some(false), Some(true)), Some("tracking.clicks")),
            (tracking(Some(false), Some(false)), None),
        ] {
            let expected = field.map(|field| format!("settings.{field}"));
            assert_eq!(refused(asked.clone()), expected, "{asked:?}");
        }
    }
}

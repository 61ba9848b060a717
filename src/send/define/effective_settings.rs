//! The settings in force: those of the delivery, completed by the configuration.

use crate::{
    config::Config,
    domain::{
        audience::FatigueRule,
        delivery::{Definition, FatigueOverride, Settings, SettingsFloor, Tracking},
    },
};

/// The settings of a delivery. Where its definition says nothing, the configuration or a fixed
/// default counts. They are never below the floor of the configuration.
pub fn effective_settings(config: &Config, definition: &Definition) -> Settings {
    let (own, default, rule) = (&definition.settings, &config.send, &config.fatigue);
    // the open pixel and the tracked links are in the HTML part: without that part opens and clicks
    // are unknown, not zero
    let has_html = definition.content.html.is_some();
    let (tracking, usual) = (own.tracking.clone().unwrap_or_default(), &config.tracking);
    settings_floor(config).raise(Settings {
        in_doubt: own.in_doubt.unwrap_or(default.in_doubt),
        validity_hours: own.validity_hours.unwrap_or(default.validity_hours),
        retry_minutes: own.retry_minutes.clone().unwrap_or_else(|| default.retry_minutes.clone()),
        grace_minutes: own.grace_minutes.unwrap_or(default.grace_minutes),
        request_confirmation: own.request_confirmation.unwrap_or(true),
        messages_per_second: own
            .messages_per_second
            .or((default.messages_per_second > 0.0).then_some(default.messages_per_second)),
        fatigue: match own.fatigue {
            Some(FatigueOverride::Exempt(_)) => None,
            Some(FatigueOverride::Rule(rule)) => Some(rule),
            None => (rule.messages > 0)
                .then_some(FatigueRule { messages: rule.messages, days: rule.days }),
        },
        approvals: own.approvals.unwrap_or(1),
        smtp_test: own.smtp_test.unwrap_or(false),
        denylist: own.denylist.unwrap_or(true),
        tracking: Tracking {
            url: config.public.url.trim_end_matches('/').to_owned(),
            opens: has_html && tracking.opens.unwrap_or(usual.opens),
            clicks: has_html && tracking.clicks.unwrap_or(usual.clicks),
            mirror_link: tracking.mirror_link.unwrap_or_else(|| usual.mirror_link.clone()),
        },
        message_limit_kib: u32::try_from(config.preparation.message_limit_kib).unwrap_or(u32::MAX),
    })
}

/// What the configuration asks of each delivery. `[overrides]` says where a delivery may ask for
/// less, or may track more.
pub fn settings_floor(config: &Config) -> SettingsFloor {
    let (rule, tracking, may) = (&config.fatigue, &config.tracking, &config.overrides);
    SettingsFloor {
        approvals: config.send.approvals,
        denylist: !may.denylist,
        fatigue: (rule.messages > 0 && !may.fatigue)
            .then_some(FatigueRule { messages: rule.messages, days: rule.days }),
        opens: tracking.opens || may.tracking,
        clicks: tracking.clicks || may.tracking,
    }
}

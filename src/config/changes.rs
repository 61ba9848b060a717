//! What differs between two loads of the settings, and which differences need a restart.

use serde_json::Value;

use super::sections::Config;

/// The settings that a reload takes over: a whole section, or one setting.
pub const LIVE_SETTINGS: &[&str] = &[
    "auth",
    "breaker",
    "fatigue",
    "log.level",
    "preparation",
    "relay.messages_per_second",
    "relays[].messages_per_second",
    "retention",
    "send.approvals",
    "send.grace_minutes",
    "send.in_doubt",
    "send.messages_per_second",
    "send.retry_minutes",
    "send.validity_hours",
    "throttle",
    "tracking",
];

/// Read only at the start, although its section is live.
const INSTALLATION_KEY: &str = "auth.installation_key_file";

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// The setting with its section, such as `log.level` or `relays[1].port`.
    pub setting: String,
    /// The old and the new value; `None` for a list, and for a setting of `auth`.
    pub values: Option<(String, String)>,
    /// Whether a reload takes it over. If not, only a restart does.
    pub is_live: bool,
}

impl Config {
    /// The settings that differ from those of `before`, in the order of their names.
    pub fn changes_since(&self, before: &Self) -> Vec<SettingChange> {
        let mut changes = Vec::new();
        compare(String::new(), &before.values, &self.values, &mut changes);
        changes
    }

    /// These settings, with those of `newer` that a reload takes over. The relays take their rates
    /// over themselves.
    pub fn reloaded(&self, newer: &Self) -> Self {
        let (old, new) = (self.send.clone(), newer.send.clone());
        Self {
            auth: newer.auth.clone(),
            breaker: newer.breaker.clone(),
            fatigue: newer.fatigue.clone(),
            log: super::LogSettings { level: newer.log.level.clone(), ..self.log.clone() },
            preparation: newer.preparation.clone(),
            retention: newer.retention.clone(),
            send: super::SendSettings {
                chunks_in_flight: old.chunks_in_flight,
                workers: old.workers,
                claim_window: old.claim_window,
                lease_ms: old.lease_ms,
                slice_ms: old.slice_ms,
                keep_replies: old.keep_replies,
                ..new
            },
            throttle: newer.throttle.clone(),
            tracking: newer.tracking.clone(),
            values: newer.values.clone(),
            ..self.clone()
        }
    }
}

fn compare(setting: String, before: &Value, after: &Value, changes: &mut Vec<SettingChange>) {
    let is_auth = setting.starts_with("auth.");
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let inside = if setting.is_empty() { String::new() } else { format!("{setting}.") };
            for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
                let of = |side: &serde_json::Map<String, Value>| {
                    side.get(name).cloned().unwrap_or_default()
                };
                compare(format!("{inside}{name}"), &of(old), &of(new), changes);
            }
        }
        (Value::Array(old), Value::Array(new))
            if !is_auth && old.len() == new.len() && new.iter().all(Value::is_object) =>
        {
            for (i, (old, new)) in old.iter().zip(new).enumerate() {
                compare(format!("{setting}[{i}]"), old, new, changes);
            }
        }
        _ => {
            let is_shown = !is_auth && !before.is_array() && !after.is_array();
            let values = is_shown.then(|| (plain(before), plain(after)));
            changes.push(SettingChange { is_live: is_live(&setting), setting, values });
        }
    }
}

/// A value as the file has it; a text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_live(setting: &str) -> bool {
    let digits = |c: char| c.is_ascii_digit();
    // a list of any length: `relays[1].port` is compared as `relays[].port`
    let plain: String = setting.split('[').map(|part| part.trim_start_matches(digits)).fold(
        String::new(),
        |all, part| {
            if all.is_empty() { part.to_owned() } else { format!("{all}[{part}") }
        },
    );
    let is_in = |live: &str| {
        plain.strip_prefix(live).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    plain != INSTALLATION_KEY && LIVE_SETTINGS.iter().any(|live| is_in(live))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAYS: &str = "[relay]\nhost = \"a\"\n[[relays]]\nname = \"one\"\nport = PORT\n\
        messages_per_second = RATE\n[[relays]]\nname = \"two\"\n";

    fn relays(port: u16, rate: u32) -> Config {
        let text = RELAYS.replace("PORT", &port.to_string()).replace("RATE", &rate.to_string());
        Config::from_toml(&text).expect("good settings")
    }

    #[test]
    fn a_change_names_its_setting_and_says_whether_it_needs_a_restart() {
        let changes = relays(26, 7).changes_since(&relays(25, 5));
        let told = |setting: &str, from: &str, to: &str, is_live| SettingChange {
            setting: setting.into(),
            values: Some((from.into(), to.into())),
            is_live,
        };
        assert_eq!(
            changes,
            [
                told("relays[0].messages_per_second", "5", "7", true),
                told("relays[0].port", "25", "26", false),
            ]
        );
        let key =
            Config::from_toml("[auth]\ninstallation_key_file = \"/x\"").expect("good settings");
        let changes = key.changes_since(&Config::from_toml("").expect("good settings"));
        assert!(changes.iter().all(|change| !change.is_live), "{changes:?}");
        let one = Config::from_toml("[relay]\nhost = \"a\"").expect("good settings");
        let changes = one.changes_since(&relays(25, 5));
        let told: Vec<_> = changes.iter().map(|c| (c.setting.as_str(), c.is_live)).collect();
        assert_eq!(told, [("relays", false)]);
    }

    #[test]
    fn no_value_of_auth_is_shown() {
        let with = |hash: &str| {
            let token = format!("{{ name = \"a\", sha256 = \"{}\", roles = [] }}", hash.repeat(64));
            Config::from_toml(&format!("[auth]\ntokens = [{token}]")).expect("good settings")
        };
        let changes = with("1").changes_since(&with("0"));
        assert_eq!(
            changes,
            [SettingChange { setting: "auth.tokens".into(), values: None, is_live: true }]
        );
    }

    #[test]
    fn a_reload_takes_over_exactly_the_live_settings() {
        let old = Config::from_toml("").expect("good settings");
        let new = Config::from_toml(
            "[send]\nworkers = 9\nslice_ms = 2001\nlease_ms = 10001\nclaim_window = 5\n\
             chunks_in_flight = 9\nkeep_replies = \"all\"\napprovals = 2\ngrace_minutes = 61\n\
             validity_hours = 121\n[server]\ndrain_ms = 1\n[log]\nformat = \"json\"\n\
             level = \"debug\"\n[auth]\nfailures_per_minute = 7\n",
        )
        .expect("good settings");
        let now = old.reloaded(&new);
        let kept = (now.send.workers, now.send.slice_ms, now.send.lease_ms, now.server.drain_ms);
        assert_eq!(kept, (8, 2000, 10_000, 25_000));
        assert_eq!((now.send.claim_window, now.send.chunks_in_flight), (4, 8));
        let taken = (now.send.approvals, now.send.grace_minutes, now.send.validity_hours);
        assert_eq!(taken, (2, 61.0, 121.0));
        assert_eq!((now.log.level.as_str(), now.auth.failures_per_minute), ("debug", 7));
        assert_eq!(now.log.format, super::super::LogFormat::Text);
    }
}

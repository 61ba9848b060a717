//! The reload: takes the settings of another load over while the daemon runs.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::{
    audit::OperationLog,
    config::{Config, SettingChange},
    domain::delivery::AuditAct,
    live::Live,
    metrics,
};

/// Puts what a part has read into force. It cannot fail.
pub(super) type Apply = Box<dyn FnOnce() + Send>;
/// Reads all that a part needs from the new settings, and puts nothing into force yet.
pub(super) type ReloadPart = Box<dyn Fn(&Config) -> Result<Apply, String> + Send + Sync>;

/// Takes new settings over: all of them, or none. Cheap to clone.
#[derive(Clone)]
pub struct Reload(Arc<ReloadState>);

struct ReloadState {
    /// The settings of the start. A setting that needs a restart is compared with these.
    started: Config,
    /// The settings of the last load that was not refused.
    loaded: Mutex<Config>,
    live: Live<Config>,
    parts: Vec<ReloadPart>,
    /// Where reloads are recorded, and the tasks that do so.
    log: OperationLog,
    tasks: TaskTracker,
}

impl Reload {
    /// Begins with the settings of the start, as loaded, and with the live ones. `parts` are all
    /// that a reload replaces besides.
    pub(super) fn new(
        started: Config,
        live: Live<Config>,
        parts: Vec<ReloadPart>,
        (log, tasks): (OperationLog, TaskTracker),
    ) -> Self {
        let loaded = Mutex::new(started.clone());
        Self(Arc::new(ReloadState { started, loaded, live, parts, log, tasks }))
    }

    /// Takes the settings over that `load` returns. If one cannot be used, nothing changes.
    /// Returns whether the settings were taken over.
    pub fn reload(&self, load: impl FnOnce() -> Result<Config, String>) -> bool {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let read = load().and_then(|config| {
            let prepared: Result<Vec<Apply>, String> =
                self.0.parts.iter().map(|part| part(&config)).collect();
            Ok((config, prepared?))
        });
        metrics::reloaded(read.is_ok());
        let (config, prepared) = match read {
            Ok(read) => read,
            Err(reason) => {
                tracing::error!(reason, "the settings cannot be used: nothing has changed");
                self.record("reload_refused", json!({ "reason": reason }));
                return false;
            }
        };
        let changes = config.changes_since(&loaded);
        self.0.live.set(self.0.live.now().reloaded(&config));
        prepared.into_iter().for_each(|apply| apply());
        changes.iter().filter(|change| change.is_live).for_each(log);
        let later: Vec<String> = config
            .changes_since(&self.0.started)
            .into_iter()
            .filter(|change| !change.is_live)
            .map(|change| change.setting)
            .collect();
        if !later.is_empty() {
            let settings = later.join(", ");
            tracing::warn!(settings, "these settings differ and need a restart");
        }
        let changed: Vec<&str> = changes
            .iter()
            .filter(|change| change.is_live)
            .map(|change| change.setting.as_str())
            .collect();
        self.record("reload", json!({ "changed": changed, "need_restart": later }));
        let changed = changed.len();
        let (tokens, jwt_keys) = (config.auth.tokens.len(), config.auth.jwt_keys.len());
        tracing::info!(changed, tokens, jwt_keys, "the settings and their files were read again");
        *loaded = config;
        true
    }

    fn record(&self, action: &'static str, details: Value) {
        let (subject, principal) = ("settings".to_owned(), "versand".to_owned());
        let act = AuditAct { subject, principal, action, details };
        let log = self.0.log.clone();
        self.0.tasks.spawn(async move {
            if let Err(error) = log.record(act).await {
                tracing::warn!(%error, "a reload is not recorded");
            }
        });
    }
}

/// Logs a change. Values of secrets and lists are not shown.
fn log(change: &SettingChange) {
    let setting = &change.setting;
    match &change.values {
        Some((from, to)) => tracing::info!(setting, from, to, "a setting has changed"),
        None => tracing::info!(setting, "a setting has changed"),
    }
}

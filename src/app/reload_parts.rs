//! The table of all that a reload replaces besides the live settings.
//!
//! All files are checked before any value changes, so a bad file stops the whole reload. Register
//! another part here.

use std::sync::Arc;

use super::{
    own_token::own_token,
    reload::{Apply, ReloadPart},
    services::Services,
    wiring::Parts,
};
use crate::{
    config::Config, domain::tracking::MachineRules, http::ListenerTls, identity::Keyring,
    live::Live, logging, mail::smtp::Relays, redis_server::StateDir,
};

/// The handles whose values the parts of a reload replace, and the state directory.
pub(super) struct Reloaded {
    pub keyring: Live<Keyring>,
    pub rules: Live<MachineRules>,
    pub relays: Relays,
    pub state: Arc<StateDir>,
    pub tls: Option<ListenerTls>,
}

impl Reloaded {
    /// The handles of a daemon.
    pub(super) fn of(parts: &Parts, state: &Arc<StateDir>, tls: Option<ListenerTls>) -> Self {
        Self {
            keyring: parts.keyring.clone(),
            rules: parts.rules.clone(),
            relays: parts.relays.clone(),
            state: state.clone(),
            tls,
        }
    }

    /// All parts. They are prepared, and then put into force, in this order.
    pub(super) fn parts(self, services: &Services) -> Vec<ReloadPart> {
        let Self { keyring, rules, relays, state, tls } = self;
        let throttles = services.journey.throttle_watch.throttles.clone();
        vec![
            part(|config| {
                logging::check(&config.log)?;
                let level = config.log.level.clone();
                Ok(Box::new(move || logging::set_level(&level)))
            }),
            part(move |config| {
                let mut next = Keyring::new(&config.auth).map_err(|e| e.to_string())?;
                own_token(&state, &mut next).map_err(|e| e.to_string())?;
                let keyring = keyring.clone();
                Ok(Box::new(move || keyring.set(next)))
            }),
            part(move |config| {
                let next = config.tracking.rules().map_err(|e| e.to_string())?;
                let rules = rules.clone();
                Ok(Box::new(move || rules.set(next)))
            }),
            part(move |config| {
                let (throttles, relays, config) =
                    (throttles.clone(), relays.clone(), config.clone());
                Ok(Box::new(move || {
                    throttles.reload(&config);
                    relays.reload_rates(&config);
                }))
            }),
            part(move |_| {
                let tls = tls.clone();
                // the loader has checked both files; a later fault has its own line and metric
                Ok(Box::new(move || tls.iter().for_each(ListenerTls::reload)))
            }),
            part(|config| {
                config.retention.make_archive_dir().map_err(|e| e.to_string())?;
                Ok(Box::new(|| ()))
            }),
        ]
    }
}

fn part(prepare: impl Fn(&Config) -> Result<Apply, String> + Send + Sync + 'static) -> ReloadPart {
    Box::new(prepare)
}

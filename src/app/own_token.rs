//! The token that a daemon makes for itself while no token and no key is configured.

use crate::{
    domain::{Principal, Role},
    identity::Keyring,
    redis_server::StateDir,
};

/// Makes a token that permits everything if no token and no key is configured. Only the user of
/// the daemon can read its file.
pub(super) fn own_token(state: &StateDir, keyring: &mut Keyring) -> anyhow::Result<Option<String>> {
    if !keyring.is_empty() {
        return Ok(None);
    }
    let token = data_encoding::BASE32_DNSSEC.encode(&state.secret("admin")?);
    state.write_private("admin.token", format!("{token}\n").as_bytes())?;
    tracing::warn!(
        file = %state.path().join("admin.token").display(),
        "no tokens and no keys are configured: the token in this file permits everything"
    );
    let roles = vec![
        Role::PrepareDeliveries,
        Role::StartDeliveries,
        Role::Administration,
        Role::Monitoring,
    ];
    keyring.add(&token, Principal::new("admin", roles));
    Ok(Some(token))
}

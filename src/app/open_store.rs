//! Opens the store at the start: refuses an unknown form, and holds a store that may be behind.

use super::start_error::WrongSettings;
use crate::{
    clock::unix_now,
    config::Config,
    domain::instant,
    metrics,
    redis_server::{EmbeddedRedis, StateDir},
    store::{
        Redis,
        hold::{HoldStore, OpenError, OpenedStore},
    },
};

/// Opens the store. With `embedded` it is in the state directory.
pub(super) async fn open_store(
    redis: &Redis,
    state: &StateDir,
    config: &Config,
    embedded: Option<&EmbeddedRedis>,
) -> anyhow::Result<HoldStore> {
    let holds = HoldStore::new(redis.clone());
    match holds.check_format().await {
        Err(OpenError::Format(error)) => return Err(WrongSettings(error.to_string()).into()),
        other => other?,
    }
    let opened = OpenedStore {
        place: embedded.map(|_| state.place().to_owned()),
        changed_ms: embedded.and_then(EmbeddedRedis::changed_ms),
        restored: state.restored()?,
        silence: config.send.silence(),
    };
    let hold = holds.open(&opened, unix_now()).await?;
    metrics::store_held(hold.is_some());
    if opened.restored.is_some() {
        // the mark may go only when no crash can undo the hold
        redis.await_durability().await?;
        state.forget_restored()?;
    }
    if let Some(hold) = hold {
        tracing::error!(
            since = %instant(hold.since),
            why = hold.why.word(),
            "the store may be behind ({}), so it is held: nothing is sent until a person releases \
             it (POST /api/v1/store/release)",
            hold.why
        );
    }
    Ok(holds)
}

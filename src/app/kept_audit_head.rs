//! The file of the state directory that keeps the newest audit head of this daemon.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::{audit::KeptHead, redis_server::StateDir};

/// The file: an audit head as JSON. Somebody who can write to Redis cannot change the file.
const FILE: &str = "audit.head";
/// How often the file is written at most.
const PAUSE: Duration = Duration::from_secs(1);

/// The head that an earlier run kept.
///
/// # Errors
/// The file cannot be read, or holds no audit head.
pub(super) fn read(state: &StateDir) -> anyhow::Result<KeptHead> {
    let Some(text) = state.read_private(FILE)? else { return Ok(KeptHead::default()) };
    let head = serde_json::from_slice(&text).with_context(|| {
        format!("{}: not an audit head: remove the file", state.path().join(FILE).display())
    })?;
    Ok(KeptHead::new(Some(head)))
}

/// Writes the newest head to its file after changes, at most once per [`PAUSE`], and once more at
/// `end`.
pub(super) async fn keep(state: Arc<StateDir>, kept: KeptHead, end: CancellationToken) {
    let mut changes = kept.changes();
    loop {
        let changed = end.run_until_cancelled(changes.changed()).await;
        let head = changes.borrow_and_update().clone();
        let state = state.clone();
        let written = tokio::task::spawn_blocking(move || match head {
            Some(head) => state.write_private(FILE, serde_json::json!(head).to_string().as_bytes()),
            None => state.remove(FILE),
        });
        if let Ok(Err(error)) = written.await {
            tracing::error!(%error, "the newest audit head is not kept");
        }
        if changed.is_none() {
            return;
        }
        end.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

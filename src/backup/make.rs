//! Makes a backup of a state directory, while its daemon runs or while it does not.

use std::{io::Write, path::Path, time::Duration};

use jiff::Timestamp;

use super::{
    backup_error::{BackupError, at},
    copy::{copy_file, make_empty, sync_folder},
    manifest::{MANIFEST, Manifest},
};
use crate::{
    redis_server::{DirLock, private_file::new_file, socket_url},
    store::{Redis, hold::FORMAT},
};

/// The folder of the append-only file, inside the state directory.
const APPEND_ONLY: &str = "redis/appendonlydir";
/// Files that belong to one place or one process only.
const LEFT_OUT: [&str; 3] = ["lock", "owner", "restored"];
/// How often to look whether a rewrite of the append-only file has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Copies the state directory `state` into the new directory `to`.
///
/// A running redis-server keeps its set of files meanwhile: its rewrites of the append-only file
/// are put off. The copy is a prefix of its log, so it is the store as it was at one instant.
///
/// # Errors
/// See [`BackupError`]. A backup that was cut off has no manifest.
pub async fn make(state: &Path, to: &Path) -> Result<Manifest, BackupError> {
    let append_only = state.join(APPEND_ONLY);
    if !append_only.is_dir() {
        return Err(BackupError::NoStore(state.into()));
    }
    make_empty(to)?;
    let socket = state.join("redis/redis.sock");
    if tokio::net::UnixStream::connect(&socket).await.is_err() {
        // no server: nobody may start one meanwhile
        let _lock = DirLock::take(state)?;
        return copy_all(state, to);
    }
    let redis = Redis::connect_to(&socket_url(&socket)).await?;
    let before = redis.put_off_rewrites().await?;
    let copied = async {
        while redis.rewrites().await? {
            tokio::time::sleep(LOOK).await;
        }
        copy_all(state, to)
    }
    .await;
    redis.resume_rewrites(&before).await?;
    copied
}

/// Copies the kept files and all parts of the append-only file. Their list does not change
/// meanwhile.
fn copy_all(state: &Path, to: &Path) -> Result<Manifest, BackupError> {
    let at_time = Timestamp::now();
    let mut files = Vec::new();
    for name in names(state)?.into_iter().filter(|name| is_kept(name)) {
        files.push(copy_file(state, to, &name)?);
    }
    for name in names(&state.join(APPEND_ONLY))? {
        files.push(copy_file(state, to, &format!("{APPEND_ONLY}/{name}"))?);
    }
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { format: FORMAT, program, at: at_time, files };
    let (path, text) = (to.join(MANIFEST), serde_json::to_vec_pretty(&manifest));
    let text =
        text.map_err(|e| BackupError::Damaged { path: path.clone(), reason: e.to_string() })?;
    let write = || {
        let mut file = new_file(&path)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(at(&path))?;
    for folder in [to.join(APPEND_ONLY), to.join("redis"), to.into()] {
        sync_folder(&folder)?;
    }
    Ok(manifest)
}

/// The plain files of a directory, in the order of their names.
fn names(folder: &Path) -> Result<Vec<String>, BackupError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let entry = entry.map_err(at(folder))?;
        if entry.file_type().map_err(at(folder))?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn is_kept(name: &str) -> bool {
    !LEFT_OUT.contains(&name) && !name.ends_with(".new") && name != MANIFEST
}

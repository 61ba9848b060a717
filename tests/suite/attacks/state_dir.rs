//! Files and links that other users plant in the state directory, and copies of the directory.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use tempfile::tempdir;
use versand::redis_server::{StateDir, StateError};

use crate::harness::{LIMIT, daemon::copy, run, run_to_end};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs `serve` on this directory to its end. Returns the exit code and what it printed.
fn serve(state: &Path) -> (Option<i32>, String) {
    let config = state.with_extension("toml");
    let listen = "listen = \"127.0.0.1:0\"\n";
    let text =
        format!("[server]\nstate_dir = {state:?}\n{listen}[public]\n{listen}[catcher]\n{listen}");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    let output = run_to_end(command.arg("serve").arg("--config").arg(config), LIMIT);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_directory_that_others_can_write_is_refused_for_good() {
    let folder = tempdir().unwrap();
    for (others, path) in [(0o777, "a"), (0o770, "b"), (0o702, "c")] {
        let state = folder.path().join(path);
        fs::create_dir(&state).unwrap();
        mode(&state, others);
        let (code, printed) = serve(&state);
        assert_eq!(code, Some(64), "{printed}");
        assert!(printed.contains("server.state_dir") && printed.contains("chmod 700"), "{printed}");
        mode(&state, 0o700);
        drop(StateDir::lock(&state).unwrap());
        // the folder of Redis counts, too: whoever writes there replaces the store
        fs::create_dir(state.join("redis")).unwrap();
        mode(&state.join("redis"), others);
        let refused = StateDir::lock(&state).unwrap_err();
        assert!(matches!(refused, StateError::NotPrivate { .. }), "{refused}");
    }
    let state = folder.path().join("d");
    fs::create_dir(&state).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, state.join("redis")).unwrap();
    let refused = StateDir::lock(&state).unwrap_err();
    assert!(refused.to_string().contains("a link is not followed"), "{refused}");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let folder = tempdir().unwrap();
    if folder.path().metadata().unwrap().uid() != 0 {
        return; // only root can give a directory away
    }
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    mode(&state, 0o700);
    std::os::unix::fs::chown(&state, Some(12_345), None).unwrap();
    let (code, printed) = serve(&state);
    assert_eq!(code, Some(64), "{printed}");
    assert!(printed.contains("12345") && printed.contains("chown"), "{printed}");
}

#[test]
fn planted_links_are_neither_followed_nor_written_through() {
    let folder = tempdir().unwrap();
    let (state, victim) = (folder.path().join("state"), folder.path().join("victim"));
    fs::write(&victim, "precious\n").unwrap();
    let (code, printed) = {
        fs::create_dir(&state).unwrap();
        mode(&state, 0o700);
        symlink(&victim, state.join("lock")).unwrap();
        serve(&state)
    };
    assert!(code != Some(0) && printed.contains("state/lock"), "{printed}");
    fs::remove_file(state.join("lock")).unwrap();
    // drafts of files that the daemon replaces
    for file in ["owner.new", "admin.token.new", "admin.secret.new"] {
        symlink(&victim, state.join(file)).unwrap();
    }
    let locked = StateDir::lock(&state).unwrap();
    locked.secret("admin").unwrap();
    locked.write_private("admin.token", b"secret\n").unwrap();
    for file in ["owner", "admin.token", "admin.secret", "lock"] {
        let meta = state.join(file).symlink_metadata().unwrap();
        assert!(meta.is_file(), "{file}");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{file}");
    }
    // a secret that somebody else has chosen, and a FIFO that would block the start
    fs::write(folder.path().join("chosen"), [7; 32]).unwrap();
    symlink(folder.path().join("chosen"), state.join("message.secret")).unwrap();
    assert!(locked.secret("message").is_err());
    run(Command::new("mkfifo").arg(state.join("token.secret")), LIMIT);
    let refused = locked.secret("token").unwrap_err();
    assert!(refused.to_string().contains("not a plain file"), "{refused}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
}

#[test]
fn a_copy_does_not_take_the_daemon_of_the_original_for_dead() {
    let folder = tempdir().unwrap();
    let (original, copied) = (folder.path().join("state"), folder.path().join("copied"));
    let running = StateDir::lock(&original).unwrap();
    copy(&original, &copied);
    let second = StateDir::lock(&copied).unwrap();
    assert!(second.predecessors().is_empty());
    assert_ne!(second.place(), running.place());
    let owner = running.owner();
    drop(running);
    assert_eq!(StateDir::lock(&original).unwrap().predecessors(), [owner]);
    // a directory that is renamed stays at its place
    let renamed = folder.path().join("renamed");
    fs::rename(&original, &renamed).unwrap();
    assert_eq!(StateDir::lock(&renamed).unwrap().predecessors().len(), 2);
    // An older version wrote owners only: they still count.
    fs::write(renamed.join("owner"), "00000000000000ab\n").unwrap();
    assert_eq!(StateDir::lock(&renamed).unwrap().predecessors(), [0xab]);
}

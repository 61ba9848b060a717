//! Backup, restore and verify at the real command line, also while the daemon sends.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::json;

use crate::harness::{
    LIMIT,
    client::{audience, definition},
    daemon::Daemon,
    eventually,
    relay::TestRelay,
    run, run_to_end,
};

const RECIPIENTS: usize = 500;

fn versand(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    command.args(arguments);
    command
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn refused(arguments: &[&str]) -> String {
    let output = run_to_end(&mut versand(arguments), LIMIT);
    assert!(!output.status.success(), "{}", printed(&output));
    printed(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_sending_daemon_is_whole_and_its_restore_sends_nobody_twice() {
    let relay = TestRelay::start(Duration::from_millis(4)).await;
    let settings = format!("{}[preparation]\nchunk_size = 50\n", relay.settings(4));
    let mut daemon = Daemon::start(&settings).await;
    let folder = tempfile::tempdir().unwrap();
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    eventually("the sending", LIMIT, async || (relay.accepted() > 100).then_some(())).await;
    let backup = folder.path().join("backup");
    let config = daemon.config_file();
    let before = relay.accepted();
    run(&mut versand(&["backup", "--config", text(&config), "--to", text(&backup)]), LIMIT);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&backup), 0o700);
    for file in ["manifest.json", "installation.secret"] {
        assert_eq!(mode(&backup.join(file)), 0o600, "{file}");
    }
    assert!(!backup.join("owner").exists() && !backup.join("lock").exists());
    let verified = run(&mut versand(&["verify", text(&backup)]), LIMIT);
    assert!(printed(&verified).contains("1 deliveries, 500 recipients"), "{}", printed(&verified));
    // the daemon went on meanwhile
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(relay.accepted(), RECIPIENTS);
    assert!(daemon.terminate().await.success());

    let restored = Daemon::start_restored(&daemon, &backup).await;
    let hold = restored.client.get("/store").await["hold"].clone();
    assert_eq!(hold["why"], "restored", "{hold}");
    restored.passes("reconcile", 3).await;
    assert_eq!(relay.accepted(), RECIPIENTS, "a restored store has sent");
    let (status, released) =
        restored.client.post("/store/release", &json!({ "since": hold["since"] })).await;
    assert!(status.is_success(), "{released}");
    let in_doubt = released["in_doubt"].as_u64().unwrap() as usize;
    assert!(in_doubt > 0 && in_doubt <= RECIPIENTS - before + 16, "{in_doubt} of {before}");
    restored.client.wait_for(&id, &["finished"]).await;
    restored.passes("reconcile", 2).await;
    assert_eq!(relay.accepted(), RECIPIENTS, "somebody got a second mail");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_whose_mark_is_removed_is_held_all_the_same() {
    let relay = TestRelay::start(Duration::ZERO).await;
    let mut daemon = Daemon::start(&relay.settings(1)).await;
    daemon.client.send(&definition(), audience(3)).await;
    assert!(daemon.terminate().await.success());
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    // a daemon that does not run is backed up, too
    let config = daemon.config_file();
    run(&mut versand(&["backup", "--config", text(&config), "--to", text(&backup)]), LIMIT);
    let mut restored = Daemon::unstarted(&daemon);
    let state = restored.state_dir();
    run(&mut versand(&["restore", text(&backup), "--state-dir", text(&state)]), LIMIT);
    fs::remove_file(state.join("restored")).unwrap();
    restored.restart().await;
    assert_eq!(restored.client.get("/store").await["hold"]["why"], "copied");
    // a restart releases nothing
    restored.restart().await;
    assert_eq!(restored.client.get("/store").await["hold"]["why"], "copied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_changed_or_cut_off_is_refused() {
    let relay = TestRelay::start(Duration::ZERO).await;
    let daemon = Daemon::start(&relay.settings(1)).await;
    let id = daemon.client.send(&definition(), audience(30)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let config = daemon.config_file();
    run(&mut versand(&["backup", "--config", text(&config), "--to", text(&backup)]), LIMIT);
    let not_empty = refused(&["backup", "--config", text(&config), "--to", text(&backup)]);
    assert!(not_empty.contains("is not empty"), "{not_empty}");
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("x"), "").unwrap();
    let full = refused(&["restore", text(&backup), "--state-dir", text(&state)]);
    assert!(full.contains("is not empty"), "{full}");
    fs::remove_dir_all(&state).unwrap();

    let manifest = fs::read_to_string(backup.join("manifest.json")).unwrap();
    let outside = manifest.replacen("installation.secret", "../installation.secret", 1);
    fs::write(backup.join("manifest.json"), outside).unwrap();
    let refusal = refused(&["restore", text(&backup), "--state-dir", text(&state)]);
    assert!(refusal.contains("is no file of a backup"), "{refusal}");
    fs::write(backup.join("manifest.json"), &manifest).unwrap();
    let secret = fs::read(backup.join("installation.secret")).unwrap();
    fs::write(backup.join("installation.secret"), [8; 32]).unwrap();
    let refusal = refused(&["verify", text(&backup)]);
    assert!(refusal.contains("installation.secret") && refusal.contains("SHA-256"), "{refusal}");
    fs::write(backup.join("installation.secret"), secret).unwrap();
    run(&mut versand(&["verify", text(&backup)]), LIMIT);
    fs::remove_file(backup.join("manifest.json")).unwrap();
    assert!(refused(&["verify", text(&backup)]).contains("manifest.json"));
    assert!(!state.exists() || fs::read_dir(&state).unwrap().next().is_none());
}

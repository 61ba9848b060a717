//! SIGHUP: the daemon reads its settings again, goes on sending, and loses nothing.

use std::{fs, time::Duration};

use reqwest::{Method, StatusCode};
use versand::config::LIVE_SETTINGS;

use crate::harness::{
    LIMIT, app,
    client::{audience, definition},
    daemon::Daemon,
    eventually,
    relay::TestRelay,
    repository, text,
};

const RECIPIENTS: usize = 600;

fn settings(relay: &TestRelay, more: &str) -> String {
    format!("{}[preparation]\nchunk_size = 100\n{more}", relay.settings(4))
}

/// The status of a request with the token `late`.
async fn status_of_late(daemon: &Daemon) -> StatusCode {
    let client = daemon.client.with_token("late");
    client.request(Method::GET, "/deliveries").send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sighup_in_the_middle_of_a_send_takes_tokens_and_log_level_over() {
    let relay = TestRelay::start(Duration::from_millis(4)).await;
    let mut daemon = Daemon::start(&settings(&relay, "")).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    assert_eq!(status_of_late(&daemon).await, StatusCode::UNAUTHORIZED);
    eventually("the sending", LIMIT, async || (relay.accepted() > 20).then_some(())).await;
    let with_token = format!(
        "[auth]\ntokens = [{}]\n[log]\nlevel = \"warn,versand::app=info\"\n[send]\nworkers = 3\n",
        app::token("late", &["monitoring"])
    );
    let log = daemon.reload(&settings(&relay, &with_token)).await;
    assert_eq!(status_of_late(&daemon).await, StatusCode::OK);
    for line in ["setting=\"auth.tokens\"", "setting=\"log.level\"", "need a restart"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(log.contains("settings=\"send.workers\""), "{log}");
    assert!(!log.contains("sha256"), "{log}");
    // a withdrawn token is refused at once
    daemon.reload(&settings(&relay, "[log]\nlevel = \"warn,versand::app=info\"\n")).await;
    assert_eq!(status_of_late(&daemon).await, StatusCode::UNAUTHORIZED);
    daemon.client.wait_for(&id, &["finished"]).await;
    assert!(daemon.terminate().await.success());
    assert_eq!(relay.received().values().map(Vec::len).collect::<Vec<_>>(), vec![1; RECIPIENTS]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_change_nothing_and_are_named_in_one_line() {
    let relay = TestRelay::start(Duration::ZERO).await;
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("machines.toml");
    fs::write(&rules, include_str!("../../../config/machines.toml")).unwrap();
    let token = format!("[auth]\ntokens = [{}]\n", app::token("late", &["monitoring"]));
    let tracked = format!("{token}[tracking]\nrules_file = {rules:?}\n");
    let mut daemon = Daemon::start(&settings(&relay, &tracked)).await;
    assert_eq!(daemon.metric("versand_reload_failed").await, 0.0);
    let wrong = [
        ("[send\n".to_owned(), "TOML"),
        ("[send]\nworkers = 0\n".to_owned(), "send.workers"),
        ("[auth]\ntokens = [{ name = \"x\", sha256 = \"1\", roles = [] }]\n".into(), "auth.tokens"),
        ("[log]\nlevel = \"versand=loud\"\n".to_owned(), "log.level"),
        ("[relay]\nhost = \"x\"\ntls = \"implicit\"\nca_file = \"/nowhere\"\n".into(), "ca_file"),
    ];
    for (text, named) in wrong {
        let log = daemon.reload_text(&text).await;
        assert!(log.contains("nothing has changed") && log.contains(named), "{named}: {log}");
        assert_eq!(log.lines().filter(|line| line.contains("ERROR")).count(), 1, "{log}");
        assert_eq!(daemon.metric("versand_reload_failed").await, 1.0);
        assert_eq!(status_of_late(&daemon).await, StatusCode::OK, "{named}");
    }
    // the settings are good, and a file that they name is not: no part is taken over
    fs::write(&rules, "version = \"x\"").unwrap();
    let log =
        daemon.reload(&settings(&relay, &format!("[tracking]\nrules_file = {rules:?}\n"))).await;
    assert!(log.contains("tracking.rules_file"), "{log}");
    assert_eq!(status_of_late(&daemon).await, StatusCode::OK);
    fs::write(&rules, include_str!("../../../config/machines.toml")).unwrap();
    daemon.reload(&settings(&relay, &format!("[tracking]\nrules_file = {rules:?}\n"))).await;
    assert_eq!(status_of_late(&daemon).await, StatusCode::UNAUTHORIZED);
    assert_eq!(daemon.metric("versand_reload_failed").await, 0.0);
    assert!(daemon.terminate().await.success());
}

/// `docs/operations.md` lists what a reload takes over.
#[test]
fn the_documentation_lists_the_live_settings() {
    let page = text(repository("docs/operations.md"));
    let (_, section) = page.split_once("## Reload").unwrap();
    let line = section.lines().find(|line| line.contains("taken over at once")).unwrap();
    for setting in LIVE_SETTINGS {
        let word = setting.strip_prefix("send.").or(setting.split_once("].").map(|(_, end)| end));
        let word = word.or(setting.strip_prefix("relay.")).unwrap_or(setting);
        assert!(line.contains(&format!("`{word}`")), "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_set_and_lifted_by_sighup_counts_for_the_next_chunk_jobs() {
    let relay = TestRelay::start(Duration::from_millis(2)).await;
    let mut daemon = Daemon::start(&settings(&relay, "")).await;
    let limit = "[throttle]\ndomains = [{ name = \"all\", domains = [\"*\"], \
                 messages_per_second = 0.001 }]\n";
    let id = daemon.client.send(&definition(), audience(20 * RECIPIENTS)).await;
    eventually("the sending", LIMIT, async || (relay.accepted() > 20).then_some(())).await;
    daemon.reload(&settings(&relay, limit)).await;
    // chunks that are being sent end without the limit: at most `workers` of them
    crate::harness::at_rest("the limit counts", Duration::from_secs(3), || relay.accepted()).await;
    assert!(relay.accepted() < 20 * RECIPIENTS, "the limit did not count");
    daemon.reload(&settings(&relay, "")).await;
    daemon.client.post(&format!("/deliveries/{id}/stop"), &serde_json::json!({})).await;
    daemon.client.wait_for(&id, &["stopped"]).await;
    let next = daemon.client.send(&definition(), audience(30)).await;
    daemon.client.wait_for(&next, &["finished"]).await;
    assert!(daemon.terminate().await.success());
}

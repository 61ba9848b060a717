//! The log, as text and as JSON: steps of a delivery, and the beginning and end of an outage.

use std::{
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use rustix::fs::fstat;
use serde_json::Value;
use versand::mail::catcher::{CatcherAction, CatcherFault, CatcherStage};

use crate::harness::{
    LIMIT,
    client::{audience, definition},
    daemon::Daemon,
    eventually,
    ports::ClosedPort,
    redis::RedisServer,
    relay::TestRelay,
};

/// The lines of a log that hold all these texts.
fn lines<'a>(log: &'a str, texts: &[&str]) -> Vec<&'a str> {
    log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_a_delivery_has_a_line_with_principal_and_figures() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(2), redis.url())).await;
    let id = daemon.client.send(&definition(), audience(120)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let steps = [
        &["action=\"create\"", "principal=\"test\"", "state=\"editing\""][..],
        &["action=\"upload\"", "principal=\"test\"", "recipients=120"],
        &["action=\"prepare\"", "principal=\"test\"", "state=\"preparing\""],
        &["action=\"prepared\"", "to_deliver=120", "excluded=0"],
        &["action=\"confirm\"", "principal=\"test\"", "to_deliver=120"],
        &["state=\"in_progress\"", "principal=\"versand\""],
        &["action=\"finish\"", "state=\"finished\"", "sent=120", "failed=0", "in_doubt=0"],
    ];
    let log = daemon.log();
    for step in steps {
        let found = lines(&log, &[&["delivery: step", id.as_str(), " INFO "], step].concat());
        assert_eq!(found.len(), 1, "{step:?} in:\n{log}");
    }
    assert!(!log.contains('@'), "no address is logged:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_redis_has_one_line_at_its_beginning_and_one_at_its_end() {
    let (mut redis, relay) =
        (RedisServer::start(), TestRelay::start(Duration::from_millis(20)).await);
    let daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(2), redis.url())).await;
    let id = daemon.client.send(&definition(), audience(400)).await;
    eventually("some messages", LIMIT, async || (relay.accepted() > 20).then_some(())).await;
    let before = daemon.log().lines().count();
    redis.kill();
    eventually("the daemon notices it", LIMIT, async || {
        (daemon.series("versand_redis_writable").await? == 0.0).then_some(())
    })
    .await;
    for _ in 0..20 {
        let request = daemon.client.request(Method::GET, &format!("/deliveries/{id}"));
        let _ = request.timeout(Duration::from_millis(300)).send().await;
    }
    redis.restart();
    daemon.client.wait_for(&id, &["finished"]).await;
    let log = daemon.log();
    let address = redis.socket().display().to_string();
    let began = lines(&log, &["Redis takes no writes", &address]);
    let ended = lines(&log, &["Redis takes writes again", &address, "seconds="]);
    assert_eq!((began.len(), ended.len()), (1, 1), "{log}");
    let others: Vec<&str> = log
        .lines()
        .skip(before)
        .filter(|line| line.contains(" WARN ") || line.contains("ERROR"))
        .filter(|line| *line != began[0] && *line != ended[0])
        // the replay of batches that Redis may have lost has warnings of its own
        .filter(|line| !line.contains("chunk"))
        .collect();
    assert_eq!(others, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_relay_has_one_warning_with_its_address_and_the_cause() {
    let closed = ClosedPort::new();
    let port = closed.port();
    for (host, cause) in [("127.0.0.1", "refused"), ("no-such-host.invalid", "lookup")] {
        let daemon = Daemon::start(&format!("[relay]\nhost = \"{host}\"\nport = {port}\n")).await;
        daemon.client.send(&definition(), audience(3)).await;
        eventually("five faults", LIMIT, async || {
            (daemon.metric("versand_relay_faults{relay=\"default\"}").await >= 5.0).then_some(())
        })
        .await;
        let log = daemon.log();
        let address = format!("{host}:{port}");
        assert_eq!(lines(&log, &["outage of the relay begins", &address, cause]).len(), 1, "{log}");
        let warnings = lines(&log, &[" WARN "]);
        // the embedded Redis may warn about settings of the machine
        let own = warnings.iter().filter(|line| !line.contains("server_log"));
        assert_eq!(own.count(), 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_break_again_and_again_are_one_outage() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let broken = || Some(CatcherFault::new(CatcherStage::Body, CatcherAction::Close));
    relay.catcher.change_rules(|rules| {
        // every third recipient, so that the relay works again in between
        for i in (0..120).step_by(3) {
            rules.scripts.insert(format!("user{i}@example.com"), [broken()].into());
        }
    });
    let daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(4), redis.url())).await;
    let id = daemon.client.send(&definition(), audience(120)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    eventually("all faults are counted", LIMIT, async || {
        (daemon.series("versand_relay_faults{relay=\"default\"}").await? == 40.0).then_some(())
    })
    .await;
    let over = "the outage of the relay is over";
    eventually(over, LIMIT, async || daemon.log().contains(over).then_some(())).await;
    let log = daemon.log();
    let warnings = lines(&log, &[" WARN "]);
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(warnings[0].contains("closed by the server"), "the cause: {}", warnings[0]);
    assert!(warnings[1].contains("faults=40"), "{}", warnings[1]);
}

/// Starts a daemon that ends at once because its Redis is away, and reads its standard error. With
/// `is_journal`, the environment says that a journal reads it.
fn last_words(format: &str, is_journal: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("versand.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nstate_dir = {:?}\n[public]\nlisten = \"127.0.0.1:0\"\n\
         [catcher]\nlisten = \"127.0.0.1:0\"\n[redis]\nurl = \"redis+unix:///nowhere/redis.sock\"\n\
         [log]\nformat = \"{format}\"\n",
        folder.path().join("state")
    );
    std::fs::write(&config, text).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let place = fstat(&theirs).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    command.arg("serve").arg("--config").arg(&config);
    if is_journal {
        command.env("JOURNAL_STREAM", format!("{}:{}", place.st_dev, place.st_ino));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(theirs));
    let mut child = command.spawn().unwrap();
    // this process still holds the other end of the socket until the command is gone
    drop(command);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert!(!child.wait().unwrap().success());
    text
}

#[test]
fn the_journal_gets_priorities_and_no_second_time_stamp() {
    let text = last_words("text", true);
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
    assert!(text.lines().last().unwrap().starts_with("<3>versand: redis.url"), "{text}");
    let warning = text.lines().find(|line| line.contains("catcher takes all mail")).unwrap();
    assert!(warning.starts_with("<4> WARN versand"), "no time stamp: {text}");
    let text = last_words("text", false);
    assert!(text.lines().all(|line| !line.starts_with('<')), "{text}");
}

#[test]
fn a_json_log_is_json_to_its_last_line() {
    let text = last_words("json", false);
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = events.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(last["fields"]["message"].as_str().unwrap().contains("redis.url"), "{last}");
}

//! Crashes of the real binary in the middle of its work.
//!
//! Every recipient is accounted for. Depending on the policy, nobody gets a message twice, or
//! nobody misses one.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{
    client::{Client, audience, definition},
    daemon::Daemon,
    eventually,
    redis::RedisServer,
    relay::TestRelay,
};

mod between_steps;
mod embedded_redis;
mod rollback;
mod several_daemons;

const RECIPIENTS: usize = 2000;
/// The `preparation.chunk_size` of these tests.
const CHUNK: usize = 125;
const CONNECTIONS: usize = 8;
/// The default of `send.claim_window`.
const WINDOW: usize = 4;
/// The delay before every reply of the relay: a delivery takes two or three seconds.
const DELAY: Duration = Duration::from_millis(2);
const RECOVERY: Duration = Duration::from_secs(30);

fn settings(redis: &RedisServer, relay: &TestRelay) -> String {
    settings_with(redis, relay, "")
}

/// Like [`settings`], with more settings of the relay.
fn settings_with(redis: &RedisServer, relay: &TestRelay, more: &str) -> String {
    let sizes = format!("[preparation]\nchunk_size = {CHUNK}\n");
    format!("{}{more}{sizes}[redis]\nurl = \"{}\"\n", relay.settings(CONNECTIONS), redis.url())
}

fn with_policy(policy: &str) -> Value {
    let mut definition = definition();
    definition["settings"]["in_doubt"] = json!(policy);
    definition
}

/// Waits until the relay has accepted `n` messages.
async fn accepted(relay: &TestRelay, n: usize) {
    eventually(&format!("{n} messages"), RECOVERY, async || (relay.accepted() >= n).then_some(()))
        .await;
}

/// Waits for the state `finished`, within the time that is promised after a crash.
async fn finished(client: &Client, id: &str) {
    tokio::time::timeout(RECOVERY, client.wait_for(id, &["finished"])).await.unwrap();
}

/// The outcome of a finished delivery, as the daemons and as the relay report it.
struct Account {
    log: BTreeMap<String, Value>,
    received: BTreeMap<String, Vec<String>>,
}

impl Account {
    async fn of(client: &Client, id: &str, relay: &TestRelay) -> Self {
        let log: BTreeMap<_, _> = client
            .log(id)
            .await
            .into_iter()
            .map(|line| (line["email"].as_str().unwrap().to_owned(), line))
            .collect();
        let received = relay.received();
        for recipient in received.keys() {
            assert!(log.contains_key(recipient), "{recipient} is in no log");
        }
        let account = Self { log, received };
        let counts = client.get(&format!("/deliveries/{id}/progress")).await["counts"].clone();
        for status in
            ["sent", "in_doubt", "failed", "deferred", "pending", "attempting", "cancelled"]
        {
            assert_eq!(counts[status], json!(account.with_status(status)), "{status} in {counts}");
        }
        account
    }

    fn with_status(&self, status: &str) -> usize {
        self.log.values().filter(|line| line["status"] == status).count()
    }

    fn copies(&self, recipient: &str) -> usize {
        self.received.get(recipient).map_or(0, Vec::len)
    }

    /// Checks that nobody got a message twice and nobody is lost. The relay has every message that
    /// counts as sent. All others are in doubt, and they are few.
    fn nobody_twice(&self, recipients: usize, most_in_doubt: usize) {
        assert_eq!(self.log.len(), recipients);
        for (recipient, line) in &self.log {
            match line["status"].as_str().unwrap() {
                "sent" => assert_eq!(self.copies(recipient), 1, "{line}"),
                "in_doubt" => assert!(self.copies(recipient) <= 1, "{line}"),
                _ => panic!("{line}"),
            }
        }
        let in_doubt = self.with_status("in_doubt");
        assert!(in_doubt <= most_in_doubt, "{in_doubt} are in doubt, {most_in_doubt} at the most");
    }

    /// Checks that nobody is missing. A recipient gets a message twice only if the log says so, and
    /// then it is the same message.
    fn nobody_missing(&self, recipients: usize) {
        assert_eq!(self.log.len(), recipients);
        for (recipient, line) in &self.log {
            assert_eq!(line["status"], "sent", "{line}");
            let ids = &self.received[recipient];
            assert!(
                ids.len() == 1 || ids.len() == 2 && line["resent"] == true,
                "{} copies: {line}",
                ids.len()
            );
            assert!(ids.iter().all(|id| *id == ids[0] && !id.is_empty()), "{ids:?}");
        }
    }
}

/// Checks that the conservation figures agree once the daemon has computed them.
async fn figures_agree(daemon: &Daemon) {
    daemon.passes("observe", 1).await;
    assert_eq!(daemon.metric("versand_conservation_difference").await, 0.0);
    assert_eq!(daemon.metric("versand_acceptance_difference").await, 0.0);
    assert_eq!(daemon.metric("versand_in_doubt_bound").await, (CONNECTIONS * WINDOW) as f64);
    assert!(!daemon.log().contains("figures that must agree differ"));
}

async fn killed_and_restarted(kills_at: &[usize], policy: &str) -> (Account, Daemon) {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let mut daemon = Daemon::start(&settings(&redis, &relay)).await;
    let id = daemon.client.send(&with_policy(policy), audience(RECIPIENTS)).await;
    for at in kills_at {
        accepted(&relay, *at).await;
        daemon.restart().await;
    }
    finished(&daemon.client, &id).await;
    let account = Account::of(&daemon.client, &id, &relay).await;
    figures_agree(&daemon).await;
    (account, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_goes_on_and_nobody_gets_a_mail_twice() {
    // The kills hit the first messages, the middle and the last chunks.
    let runs = [3, 700, 1850].map(async |at| killed_and_restarted(&[at], "hold").await);
    for (account, _daemon) in join_all(runs).await {
        account.nobody_twice(RECIPIENTS, CONNECTIONS * WINDOW);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_again_and_again_goes_on() {
    let kills_at = [200, 600, 1000, 1400];
    let (account, _daemon) = killed_and_restarted(&kills_at, "hold").await;
    account.nobody_twice(RECIPIENTS, kills_at.len() * CONNECTIONS * WINDOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_goes_on_and_nobody_misses_a_mail() {
    let runs = [350, 1200].map(async |at| killed_and_restarted(&[at], "resend").await);
    for (account, _daemon) in join_all(runs).await {
        account.nobody_missing(RECIPIENTS);
        let doubled = account.received.values().filter(|ids| ids.len() == 2).count();
        assert!(doubled <= CONNECTIONS * WINDOW, "{doubled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frequent_replacement_of_connections_leaves_no_more_recipients_in_doubt() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let mut daemon =
        Daemon::start(&settings_with(&redis, &relay, "messages_per_connection = 3\n")).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    for at in [300, 900] {
        accepted(&relay, at).await;
        daemon.restart().await;
    }
    finished(&daemon.client, &id).await;
    let account = Account::of(&daemon.client, &id, &relay).await;
    account.nobody_twice(RECIPIENTS, 2 * CONNECTIONS * WINDOW);
    assert!(
        account.log.values().all(|line| line["attempts"] == 1),
        "a claim that was given back counts as an attempt"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_left_in_doubt_by_a_crash_can_be_settled() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let mut daemon = Daemon::start(&settings(&redis, &relay)).await;
    let id = daemon.client.send(&definition(), audience(400)).await;
    accepted(&relay, 150).await;
    daemon.restart().await;
    finished(&daemon.client, &id).await;
    let account = Account::of(&daemon.client, &id, &relay).await;
    assert!(account.with_status("in_doubt") > 0, "the kill hit nothing");
    let settle = json!({ "as": "resend", "recipients": "all" });
    let (status, answer) = daemon.client.post(&format!("/deliveries/{id}/in-doubt"), &settle).await;
    assert_eq!(
        (status, &answer["settled"]),
        (StatusCode::OK, &json!(account.with_status("in_doubt")))
    );
    finished(&daemon.client, &id).await;
    Account::of(&daemon.client, &id, &relay).await.nobody_missing(400);
}

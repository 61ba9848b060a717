//! An attacker who can write to Redis rewrites, cuts or removes audit chains.

use std::{io::Write, process::Command};

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use versand::domain::delivery::{AuditAct, AuditEntry, AuditHead};

use crate::harness::{
    LIMIT,
    client::{audience, definition},
    daemon::{Daemon, TOKEN},
    eventually,
    redis::{RedisServer, connect},
    run_to_end,
};

const HEADS: &str = "versand:{audit}:heads";
const NOTED: &str = "versand:{audit}:noted";
const OPERATIONS: &str = "versand:{audit}:operations";

fn chain_of(id: &str) -> String {
    format!("versand:{{{id}}}:audit")
}

/// A daemon that has sent one delivery and denied one address, and the attacker's connection.
struct Target {
    daemon: Daemon,
    conn: MultiplexedConnection,
    id: String,
    _redis: RedisServer,
}

impl Target {
    async fn new() -> Self {
        let redis = RedisServer::start();
        let daemon = Daemon::start(&format!("[redis]\nurl = \"{}\"\n", redis.url())).await;
        let id = daemon.client.send(&definition(), audience(3)).await;
        daemon.client.wait_for(&id, &["finished"]).await;
        let deny = daemon.client.request(reqwest::Method::PUT, "/denylist/ann@example.com");
        assert!(deny.send().await.unwrap().status().is_success());
        let conn = connect(&redis.url()).await;
        let mut target = Self { daemon, conn, id, _redis: redis };
        assert_eq!(target.verify(&[]), (0, Vec::new()));
        assert_eq!(target.chain(OPERATIONS).await.len(), 1);
        target
    }

    /// Runs `versand audit verify`. Returns its exit code and the faults that it names.
    fn verify(&self, arguments: &[&str]) -> (i32, Vec<String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{TOKEN}").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
        let url = &self.daemon.client.url;
        command.args(["audit", "verify", "--url", url, "--token-file"]).arg(file.path());
        let output = run_to_end(command.args(arguments), LIMIT);
        let printed = String::from_utf8(output.stdout).unwrap();
        let faults = printed.lines().filter_map(|line| line.strip_prefix("BROKEN "));
        (output.status.code().unwrap(), faults.map(str::to_owned).collect())
    }

    fn expect_fault(&self, what: &str, named: &[&str]) {
        let (code, faults) = self.verify(&[]);
        let found = faults.iter().any(|fault| named.iter().all(|part| fault.contains(part)));
        assert!(code == 1 && found, "{what}: {code} {faults:?}");
    }

    async fn chain(&mut self, key: &str) -> Vec<String> {
        let mut read = redis::cmd("LRANGE");
        read.arg(key).arg(0).arg(-1).query_async(&mut self.conn).await.unwrap()
    }

    async fn write(&mut self, key: &str, chain: &[String]) {
        let mut write = redis::pipe();
        write.del(key).ignore();
        for entry in chain {
            write.rpush(key, entry).ignore();
        }
        write.exec_async(&mut self.conn).await.unwrap();
    }

    /// Writes a chain anew with right hashes. `alter` changes its entries.
    async fn rewrite(&mut self, key: &str, alter: impl Fn(&mut AuditAct)) {
        let mut head = AuditHead::default();
        let mut forged = Vec::new();
        for stored in self.chain(key).await {
            let stored: Value = serde_json::from_str(&stored).unwrap();
            let old: AuditEntry = serde_json::from_value(stored.clone()).unwrap();
            // in the program an action is one of a few words
            let action: &'static str = old.action.leak();
            let AuditEntry { subject, principal, details, at, .. } = old;
            let mut act = AuditAct { subject, principal, action, details };
            alter(&mut act);
            let entry = AuditEntry::after(&head, at, act);
            head = entry.head();
            let mut text = json!(entry);
            text["seal"] = stored["seal"].clone();
            forged.push(text.to_string());
        }
        self.write(key, &forged).await;
    }
}

/// An attacker without the key gives the history right hashes, but its seals do not fit.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_rewritten_without_the_key_is_found() {
    let mut target = Target::new().await;
    let (own, id) = (chain_of(&target.id), target.id.clone());
    // the whole log of the delivery, and the chain of heads to fit
    target.rewrite(&own, |act| act.principal = "somebody".into()).await;
    let last: AuditEntry = serde_json::from_str(target.chain(&own).await.last().unwrap()).unwrap();
    let (seq, hash) = (last.seq, last.hash);
    target
        .rewrite(HEADS, |act| {
            if act.subject == id && act.details["seq"] == seq {
                act.details["hash"] = json!(hash);
            }
        })
        .await;
    target.expect_fault("rewritten", &["chain of heads", "no daemon of this installation"]);
    target.expect_fault("rewritten", &[&id, "entry 1: no daemon of this installation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_another_chain_or_without_a_seal_is_found() {
    let mut target = Target::new().await;
    let (own, id) = (chain_of(&target.id), target.id.clone());
    let genuine = target.chain(&own).await;
    // an entry that follows the last one rightly, but was never sealed
    let last: AuditEntry = serde_json::from_str(genuine.last().unwrap()).unwrap();
    let act = AuditAct {
        subject: id.clone(),
        principal: "root".into(),
        action: "approve",
        details: json!({}),
    };
    let forged = AuditEntry::after(&last.head(), Timestamp::now(), act);
    target.write(&own, &[&genuine[..], &[json!(forged).to_string()]].concat()).await;
    target.expect_fault("unsealed", &[&id, "no daemon of this installation"]);

    // the genuine chain of another delivery
    let other = target.daemon.client.create(&definition()).await;
    let strange = target.chain(&chain_of(&other)).await;
    target.write(&own, &strange).await;
    target.expect_fault("strange", &[&id]);
    target.write(&own, &[]).await;
    target.expect_fault("removed", &[&id, "is not the entry that the chain of heads names"]);
    target.write(&own, &genuine).await;
    assert_eq!(target.verify(&[]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_end_of_the_chain_of_heads_is_found_by_what_the_daemon_kept() {
    let mut target = Target::new().await;
    let (own, id) = (chain_of(&target.id), target.id.clone());
    let heads = target.chain(HEADS).await;
    let last: AuditEntry = serde_json::from_str(heads.last().unwrap()).unwrap();
    eventually("the daemon keeps the head in a file", LIMIT, async || {
        let kept = std::fs::read(target.daemon.state_dir().join("audit.head")).ok()?;
        (serde_json::from_slice::<AuditHead>(&kept).unwrap() == last.head()).then_some(())
    })
    .await;
    // the attacker removes all that happened after the creation
    let begin = heads.iter().position(|entry| entry.contains(&id)).unwrap() + 1;
    target.write(HEADS, &heads[..begin]).await;
    let entries = target.chain(&own).await;
    target.write(&own, &entries[..1]).await;
    target.write(OPERATIONS, &[]).await;
    let mut note = redis::cmd("HSET");
    note.arg(NOTED).arg(&id).arg(1).exec_async(&mut target.conn).await.unwrap();
    redis::cmd("HDEL").arg(NOTED).arg("operations").exec_async(&mut target.conn).await.unwrap();
    let fault = format!("the chain of heads: entry {} is missing", last.seq);
    target.expect_fault("cut", &[&fault]);
    target.daemon.restart().await;
    target.expect_fault("cut, after a restart", &[&fault]);
    // further entries do not cover the cut
    for _ in 0..heads.len() {
        target.daemon.client.create(&definition()).await;
    }
    target.expect_fault("grown again", &[&fault]);
    assert_eq!(target.daemon.log().matches("was changed by hand").count(), 1);

    // a daemon that kept nothing finds no fault; the command finds the cut by a head from the log
    target.daemon.kill();
    std::fs::remove_file(target.daemon.state_dir().join("audit.head")).unwrap();
    target.daemon.restart().await;
    assert_eq!(target.verify(&[]).0, 0);
    let copied = format!("{}:{}", last.seq, last.hash);
    assert!(target.daemon.log().contains(&last.hash), "the log names each head");
    let (code, faults) = target.verify(&["--head", &copied]);
    assert!(code == 1 && faults[0].starts_with(&fault), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_head_that_an_attacker_wrote_keeps_no_head_out() {
    let mut target = Target::new().await;
    for chain in [target.id.clone(), "operations".to_owned()] {
        for place in ["1000000000000000000", "1", "nonsense"] {
            let mut note = redis::cmd("HSET");
            note.arg(NOTED).arg(&chain).arg(place).exec_async(&mut target.conn).await.unwrap();
            target.daemon.restart().await;
            let before = target.chain(HEADS).await.len();
            let change =
                target.daemon.client.request(reqwest::Method::PUT, "/denylist/a@b.example");
            assert!(change.send().await.unwrap().status().is_success());
            let copy = target.daemon.client.create(&definition()).await;
            assert_eq!(target.chain(&chain_of(&copy)).await.len(), 1);
            assert_eq!(target.chain(HEADS).await.len(), before + 2, "{chain} {place}");
        }
    }
    // the end of a chain whose head was noted cannot go
    let operations = target.chain(OPERATIONS).await;
    target.write(OPERATIONS, &operations[..operations.len() - 1]).await;
    target.expect_fault("cut", &["the chain of operations"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_log_without_seals_is_found_by_a_daemon_that_kept_nothing() {
    let mut target = Target::new().await;
    let (own, id) = (chain_of(&target.id), target.id.clone());
    target.daemon.kill();
    std::fs::remove_file(target.daemon.state_dir().join("audit.head")).unwrap();
    for key in [own.as_str(), OPERATIONS, HEADS] {
        let stripped: Vec<String> =
            target.chain(key).await.iter().map(|entry| without_seal(entry)).collect();
        target.write(key, &stripped).await;
    }
    target.daemon.restart().await;
    target.expect_fault("unsealed", &["the chain of heads", "the first seal is missing"]);
    target.expect_fault("unsealed", &[&id, "no daemon of this installation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_head_is_not_walked_past_a_cut_by_putting_its_entry_back() {
    let mut target = Target::new().await;
    let heads = target.chain(HEADS).await;
    let kept: AuditEntry = serde_json::from_str(heads.last().unwrap()).unwrap();
    let cut = heads.len() - 2;
    target.write(HEADS, &heads[..cut]).await;
    redis::cmd("DEL").arg(NOTED).exec_async(&mut target.conn).await.unwrap();
    for _ in 0..3 {
        target.daemon.client.create(&definition()).await;
    }
    // the entry that the daemon kept stands at its place while the next one is written
    let grown = target.chain(HEADS).await;
    let mut with_kept = grown.clone();
    with_kept[heads.len() - 1] = heads.last().unwrap().clone();
    target.write(HEADS, &with_kept).await;
    target.daemon.client.create(&definition()).await;
    let mut healed = target.chain(HEADS).await;
    healed[heads.len() - 1] = grown[heads.len() - 1].clone();
    target.write(HEADS, &healed).await;
    let fault = format!("the chain of heads: entry {} is missing", kept.seq);
    target.expect_fault("walked past", &[&fault]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_chain_of_heads_is_found_also_when_it_grows_again() {
    let mut target = Target::new().await;
    target.write(HEADS, &[]).await;
    redis::cmd("DEL").arg(NOTED).exec_async(&mut target.conn).await.unwrap();
    target.expect_fault("removed", &["the chain of heads", "is missing"]);
    target.daemon.client.create(&definition()).await;
    target.expect_fault("grown", &["the chain of heads", "the first seal is missing"]);
    target.daemon.restart().await;
    target.expect_fault("restarted", &["the chain of heads", "the first seal is missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_version_without_seals_is_covered_by_the_first_seal() {
    let mut target = Target::new().await;
    let (own, id) = (chain_of(&target.id), target.id.clone());
    target.daemon.kill();
    std::fs::remove_file(target.daemon.state_dir().join("audit.head")).unwrap();
    target.daemon.forget_installation();
    redis::cmd("DEL").arg("versand:installation").exec_async(&mut target.conn).await.unwrap();
    let mut remove = redis::cmd("DEL");
    remove.arg(&["versand:secret:message", "versand:secret:token", OPERATIONS, HEADS, NOTED]);
    remove.exec_async(&mut target.conn).await.unwrap();
    let unsealed: Vec<String> = target.chain(&own).await.iter().map(|e| without_seal(e)).collect();
    target.write(&own, &unsealed).await;
    target.daemon.restart().await;
    assert_eq!(target.verify(&[]), (0, Vec::new()));

    // an entry without a seal that is added after the first seal is foreign
    let other = target.daemon.client.create(&definition()).await;
    let stripped: Vec<String> =
        target.chain(&chain_of(&other)).await.iter().map(|e| without_seal(e)).collect();
    target.write(&chain_of(&other), &stripped).await;
    target.expect_fault("stripped", &[&other, "no daemon of this installation"]);
    let (_, faults) = target.verify(&[]);
    assert!(!faults.iter().any(|fault| fault.contains(&id)), "{faults:?}");
}

fn without_seal(entry: &str) -> String {
    let mut entry: Value = serde_json::from_str(entry).unwrap();
    entry.as_object_mut().unwrap().remove("seal").expect("it has a seal");
    entry.to_string()
}

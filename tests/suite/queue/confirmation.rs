//! Good and bad confirmations that come over the queue from a program in another language.

use std::{path::PathBuf, process::Command};

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use versand::{
    domain::Role,
    identity::{CONFIRM_SEND, Claims},
    queue::QueueName,
};

use crate::harness::{
    LIMIT,
    client::{answer, audience, definition},
    daemon::Daemon,
    eventually, python,
    redis::{RedisServer, connect, connect_as},
    repository, run_to_end,
};

const SECRET: &str = "a secret that is long enough: 32 bytes and more";
const RECIPIENTS: usize = 20;

/// A daemon that knows the issuer `crm`, with the Redis and the key that a producer needs.
struct World {
    daemon: Daemon,
    redis: RedisServer,
    folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
        let key = folder.path().join("key");
        std::fs::write(&key, SECRET).unwrap();
        let issuer = format!("issuer = \"crm\", algorithm = \"HS256\", key_file = {key:?}");
        let roles = "roles = [\"start_deliveries\", \"monitoring\"]";
        let settings = format!(
            "[redis]\nurl = \"{}\"\n[auth]\njwt_keys = [{{ {issuer}, {roles} }}]\n",
            redis.url()
        );
        Self { daemon: Daemon::start(&settings).await, redis, folder }
    }

    /// A prepared delivery and its digest.
    async fn prepared(&self) -> (String, String) {
        self.prepared_for(RECIPIENTS).await
    }

    async fn prepared_for(&self, recipients: usize) -> (String, String) {
        let id = self.daemon.client.create(&definition()).await;
        self.daemon.client.upload(&id, audience(recipients)).await;
        let digest =
            self.daemon.client.prepare(&id).await["plan"]["digest"].as_str().unwrap().to_owned();
        (id, digest)
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// Runs the example producer and waits. Returns its exit code, the job's id and the outcome.
    fn produce(&self, delivery: &str, digest: &str, more: &[&str]) -> (i32, String, Value) {
        let mut command = Command::new(python::interpreter());
        command.arg(repository("examples/confirm_send.py"));
        command.args(self.redis.producer_arguments());
        command.args(["--delivery", delivery, "--digest", digest]);
        command.args(["--issuer", "crm", "--subject", "campaigns", "--wait", "15", "--key-file"]);
        let output = run_to_end(command.arg(self.key_file()).args(more), LIMIT);
        let text = String::from_utf8(output.stdout).unwrap();
        let (job, outcome) = text
            .split_once('\n')
            .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), job.to_owned(), serde_json::from_str(outcome).unwrap())
    }

    /// Puts any payload on the queue, as the Redis user `producer`. The script is the earlier one
    /// that docs/queue.md mentions, without `queued_at`.
    async fn enqueue(&self, job: &str, payload: &[u8]) {
        const SCRIPT: &str = "if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end \
            redis.call('HSET', KEYS[2], 'attempts', 0, 'max_attempts', 25, 'status', 'Pending', 'idempotency_key', '') \
            redis.call('RPUSH', KEYS[3], ARGV[1]) return 1";
        let queue = QueueName::Confirm.redis_name();
        let mut connection = connect_as(self.redis.connection_info("producer")).await;
        let script = redis::Script::new(SCRIPT);
        let mut call = script.key(format!("{queue}:data"));
        call.key(format!("{queue}:meta:{job}"))
            .key(format!("{queue}:active"))
            .arg(job)
            .arg(payload);
        assert_eq!(call.invoke_async::<i64>(&mut connection).await.unwrap(), 1);
    }

    async fn connection(&self) -> redis::aio::MultiplexedConnection {
        connect(&self.redis.url()).await
    }

    /// The outcome over HTTP, once it exists.
    async fn outcome(&self, job: &str) -> Value {
        eventually(&format!("the outcome of {job}"), LIMIT, async || {
            let asked =
                self.daemon.client.request(reqwest::Method::GET, &format!("/jobs/{job}/outcome"));
            let (status, outcome) = answer(asked.send().await.ok()?).await;
            (status == StatusCode::OK).then_some(outcome)
        })
        .await
    }

    /// Checks that the job was refused for this reason, that the reason is logged, and that the job
    /// is kept.
    async fn is_refused(&self, job: &str, reason: &str) {
        let outcome = self.outcome(job).await;
        assert_eq!(outcome["status"], "refused", "{job}: {outcome}");
        assert!(outcome["reason"].as_str().unwrap().contains(reason), "{job}: {outcome}");
        let dead = eventually(&format!("{job} among the dead"), LIMIT, async || {
            let page = self.daemon.client.get("/queues/confirm/dead?limit=1000").await;
            page["items"].as_array().unwrap().iter().find(|dead| dead["id"] == job).cloned()
        })
        .await;
        assert!(dead["result"].as_str().unwrap().contains(reason), "{dead}");
        assert_eq!(dead["payload"], Value::Null, "a payload holds a token");
        let log = self.daemon.log();
        let line = log
            .lines()
            .find(|line| line.contains("a confirmation was refused") && line.contains(job));
        assert!(line.unwrap_or_default().contains(reason), "{job} is not in the log:\n{log}");
    }

    async fn state(&self, id: &str) -> Value {
        self.daemon.client.get(&format!("/deliveries/{id}")).await["state"].clone()
    }
}

fn claims(delivery: &str, digest: &str) -> Claims {
    let now = get_current_timestamp();
    Claims {
        iss: "crm".into(),
        sub: "campaigns".into(),
        aud: "versand".into(),
        exp: now + 600,
        iat: now,
        jti: Some("the one and only".into()),
        roles: vec![Role::StartDeliveries],
        unit: None,
        action: Some(CONFIRM_SEND.into()),
        delivery: Some(delivery.into()),
        digest: Some(digest.into()),
    }
}

fn signed(claims: &Claims, secret: &str) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn payload(delivery: &str, digest: &str, token: &str) -> Vec<u8> {
    json!({ "delivery": delivery, "digest": digest, "token": token }).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_confirms_a_delivery_and_reads_the_outcome() {
    let world = World::start().await;
    let (id, digest) = world.prepared().await;
    let (code, job, outcome) = world.produce(&id, &digest, &["--job-id", "confirm:crm-1"]);
    assert_eq!(
        (code, job.as_str(), &outcome["status"]),
        (0, "confirm:crm-1", &json!("confirmed")),
        "{outcome}"
    );
    assert_eq!((&outcome["delivery"], &outcome["digest"]), (&json!(id), &json!(digest)));
    assert_eq!(
        (&outcome["confirmed_by"], &outcome["to_deliver"]),
        (&json!("crm/campaigns"), &json!(RECIPIENTS))
    );
    assert!(outcome["confirmed_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(world.outcome(&job).await, outcome, "the outcome over HTTP is the same");
    world.daemon.client.wait_for(&id, &["finished"]).await;
    let audit = world.daemon.client.get(&format!("/deliveries/{id}/audit")).await;
    let entry = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["action"] == "confirm")
        .cloned()
        .unwrap();
    assert_eq!(
        (&entry["principal"], &entry["details"]["via"]),
        (&json!("crm/campaigns"), &json!("queue")),
        "{entry}"
    );
    // Another token for the same delivery comes too late.
    let (code, job, outcome) = world.produce(&id, &digest, &[]);
    assert_eq!((code, &outcome["status"]), (1, &json!("refused")), "{outcome}");
    world.is_refused(&job, "cannot be confirmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_producer_is_told_why_its_job_was_refused() {
    let world = World::start().await;
    let (id, digest) = world.prepared().await;
    let forged = world.folder.path().join("forged");
    std::fs::write(&forged, "another secret that is long enough, too").unwrap();
    let stale = "0".repeat(64);
    let refusals: [(&str, &[&str], &str); 6] = [
        (&digest, &["--key-file", forged.to_str().unwrap()], "signature"),
        (&digest, &["--lifetime", "-100"], "expired"),
        (&digest, &["--lifetime", "90000"], "longer"),
        (&digest, &["--audience", "other"], "aud"),
        (&digest, &["--role", "monitoring"], "the role start_deliveries is missing"),
        (&stale, &[], "digest"),
    ];
    for (digest, options, reason) in refusals {
        let (code, job, outcome) = world.produce(&id, digest, options);
        assert_eq!(code, 1, "{options:?}: {outcome}");
        world.is_refused(&job, reason).await;
    }
    // A role that the issuer may not give.
    let (_, job, _) =
        world.produce(&id, &digest, &["--role", "administration", "--role", "start_deliveries"]);
    world.is_refused(&job, "a role that its issuer may not give").await;
    assert_eq!(world.state(&id).await, "prepared", "nothing was confirmed");
    assert!(world.daemon.metric("versand_login_failures_total").await >= 5.0);
    assert!(!world.daemon.log().contains("eyJ"), "a token was logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_confirms_only_what_it_names_and_a_bad_one_nothing() {
    let world = World::start().await;
    let (id, digest) = world.prepared().await;
    let (other, other_digest) = world.prepared_for(RECIPIENTS + 1).await;
    let good = claims(&id, &digest);
    let with = |change: &dyn Fn(&mut Claims)| {
        let mut claims = good.clone();
        change(&mut claims);
        payload(&id, &digest, &signed(&claims, SECRET))
    };
    let token = signed(&good, SECRET);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "other-delivery",
            payload(&other, &other_digest, &token),
            "is not the delivery of the job",
        ),
        ("other-digest", payload(&id, &other_digest, &token), "is not the digest of the job"),
        ("other-action", with(&|claims| claims.action = Some("stop".into())), "confirm_send"),
        ("session", with(&|claims| claims.action = None), "confirm_send"),
        ("no-jti", with(&|claims| claims.jti = None), "must have 1 to 200 bytes"),
        ("other-issuer", with(&|claims| claims.iss = "shop".into()), "signature"),
        ("no-such-delivery", payload("nonesuch", &digest, &token), ""),
        ("garbage", b"\xff\x00{".to_vec(), "the payload is not a job of this queue"),
        ("empty", Vec::new(), "the payload is not a job of this queue"),
        (
            "more-fields",
            payload(&id, &digest, &token)[..]
                .strip_suffix(b"}")
                .unwrap()
                .iter()
                .chain(b",\"x\":1}")
                .copied()
                .collect(),
            "the payload is not",
        ),
        ("not-a-token", payload(&id, &digest, "a.b.c"), "unknown"),
    ];
    for (job, payload, reason) in &cases {
        world.enqueue(&format!("confirm:{job}"), payload).await;
        world.is_refused(&format!("confirm:{job}"), reason).await;
    }
    let bearer = world.daemon.client.with_token(&token);
    let (status, problem) = bearer.confirm(&id, &digest).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a job's token is no session: {problem}");
    assert_eq!(
        (world.state(&id).await, world.state(&other).await),
        (json!("prepared"), json!("prepared"))
    );
    // The daemon still works.
    world.enqueue("confirm:good", &payload(&id, &digest, &token)).await;
    assert_eq!(world.outcome("confirm:good").await["status"], "confirmed");
    // The id of a used token with other claims.
    world.enqueue("confirm:spent", &with(&|claims| claims.sub = "somebody else".into())).await;
    world.is_refused("confirm:spent", "used for another request").await;
    world.daemon.client.wait_for(&id, &["finished"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_delivered_twice_gets_its_first_outcome() {
    let mut world = World::start().await;
    let (id, digest) = world.prepared().await;
    let job = payload(&id, &digest, &signed(&claims(&id, &digest), SECRET));
    for twice in ["confirm:a", "confirm:b"] {
        world.enqueue(twice, &job).await;
    }
    let first = world.outcome("confirm:a").await;
    assert_eq!(
        (&first["status"], &world.outcome("confirm:b").await),
        (&json!("confirmed"), &first)
    );
    world.daemon.client.wait_for(&id, &["finished"]).await;
    // A crash between the confirmation and the end of the job: Redis still has it as running,
    // without an outcome.
    world.daemon.kill();
    let queue = QueueName::Confirm.redis_name();
    let mut connection = world.connection().await;
    let _: () = redis::pipe()
        .srem(format!("{queue}:done"), "confirm:a")
        .hset(format!("{queue}:meta:confirm:a"), "status", "Running")
        .rpush(format!("{queue}:active"), "confirm:a")
        .del("versand:outcome:confirm:a")
        .query_async(&mut connection)
        .await
        .unwrap();
    world.enqueue("confirm:c", &job).await;
    world.daemon.restart().await;
    assert_eq!(world.outcome("confirm:a").await, first);
    assert_eq!(world.outcome("confirm:c").await, first);
    let log = world.daemon.client.log(&id).await;
    assert!(
        log.len() == RECIPIENTS && log.iter().all(|line| line["attempts"] == 1),
        "each message is sent once"
    );
    let dead = world.daemon.client.get("/queues/confirm/dead").await;
    assert_eq!(dead["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_come_while_the_daemon_is_down_wait_for_it() {
    let mut world = World::start().await;
    let (id, digest) = world.prepared().await;
    world.daemon.kill();
    world
        .enqueue("confirm:early", &payload(&id, &digest, &signed(&claims(&id, &digest), SECRET)))
        .await;
    world.daemon.restart().await;
    assert_eq!(world.outcome("confirm:early").await["status"], "confirmed");
    world.daemon.client.wait_for(&id, &["finished"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_set_aside_unread_has_an_outcome_too() {
    let mut world = World::start().await;
    let (id, digest) = world.prepared().await;
    let job = payload(&id, &digest, &signed(&claims(&id, &digest), SECRET));
    world.daemon.kill();
    let (queue, mut connection) = (QueueName::Confirm.redis_name(), world.connection().await);
    world.enqueue("007", &job).await;
    world.enqueue("confirm:no-meta", &job).await;
    world.enqueue("confirm:crasher", &job).await;
    let _: () = redis::pipe()
        .del(format!("{queue}:meta:confirm:no-meta"))
        .hset(format!("{queue}:meta:confirm:crasher"), "starts", 3)
        .query_async(&mut connection)
        .await
        .unwrap();
    world.daemon.restart().await;
    for (job, reason) in
        [("007", "id"), ("confirm:no-meta", "meta"), ("confirm:crasher", "never ended")]
    {
        let outcome = world.outcome(job).await;
        assert_eq!(outcome["status"], "refused", "{job}: {outcome}");
        assert!(outcome["reason"].as_str().unwrap().contains(reason), "{job}: {outcome}");
    }
    assert_eq!(world.state(&id).await, "prepared");
}

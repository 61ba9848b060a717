//! An attacker who can read and write every key of Redis, but has no key of the installation.

use redis::aio::MultiplexedConnection;
use reqwest::StatusCode;
use serde_json::{Value, json};
use versand::queue::{Job, QueueName};

use crate::harness::{
    LIMIT,
    app::App,
    client::{audience, definition},
    eventually,
    people::start,
    redis::{RedisServer, connect},
    tracking,
};

/// The daemon under attack, and the attacker's connection.
struct Target {
    app: App,
    conn: MultiplexedConnection,
    _redis: RedisServer,
}

impl Target {
    async fn new(settings: &str) -> Self {
        let redis = RedisServer::start();
        let app = start(&redis, settings).await;
        let conn = connect(&redis.url()).await;
        Self { app, conn, _redis: redis }
    }

    /// A delivery of three recipients that is prepared. With [`ONE_EACH`], each recipient is a
    /// chunk of its own.
    async fn prepared(&self, definition: &Value) -> (String, String) {
        let id = self.app.client.create(definition).await;
        self.app.client.upload(&id, audience(3)).await;
        let view = self.app.client.prepare(&id).await;
        assert_eq!(view["state"], "prepared", "{}", view["checks"]);
        (id, view["plan"]["digest"].as_str().unwrap().to_owned())
    }

    async fn read(&mut self, id: &str, field: &str) -> String {
        let mut ask = redis::cmd("HGET");
        ask.arg(format!("versand:{{{id}}}:delivery")).arg(field);
        ask.query_async(&mut self.conn).await.unwrap()
    }

    async fn document(&mut self, id: &str) -> Value {
        serde_json::from_str(&self.read(id, "document").await).unwrap()
    }

    async fn write(&mut self, id: &str, field: &str, value: impl redis::ToSingleRedisArg) {
        let mut write = redis::cmd("HSET");
        write.arg(format!("versand:{{{id}}}:delivery")).arg(field).arg(value);
        let _: i64 = write.query_async(&mut self.conn).await.unwrap();
    }

    async fn get(&mut self, key: &str) -> Vec<u8> {
        redis::cmd("GET").arg(key).query_async(&mut self.conn).await.unwrap()
    }

    async fn set(&mut self, key: &str, value: &[u8]) {
        redis::cmd("SET").arg(key).arg(value).exec_async(&mut self.conn).await.unwrap();
    }

    /// Forges the state, lists the delivery as moving and due, and queues jobs that start it and
    /// send its chunks.
    async fn set_in_motion(&mut self, id: &str, state: &str) {
        self.write(id, "state", state).await;
        for list in ["SADD versand:moving", "ZADD versand:due 0"] {
            let mut words = list.split(' ');
            let mut add = redis::cmd(words.next().unwrap());
            words.for_each(|word| {
                add.arg(word);
            });
            let _: i64 = add.arg(id).query_async(&mut self.conn).await.unwrap();
        }
        let queue = &self.app.services.journey.preparations.jobs.queue;
        let delivery = id.to_owned();
        let start = Job::StartDelivery { delivery: delivery.clone() };
        queue.enqueue(QueueName::Steps, &format!("{id}:evil"), &start.encode()).await.unwrap();
        for chunk in 0..3 {
            let job = Job::SendChunk { delivery: delivery.clone(), chunk, round: 99 };
            let name = format!("{id}:{chunk}:99");
            queue.enqueue(QueueName::Chunks, &name, &job.encode()).await.unwrap();
        }
    }

    /// Waits until the view of the delivery names the altered part. Returns the view.
    async fn found(&self, id: &str, part: &str) -> Value {
        let view = eventually(&format!("{part} is found"), LIMIT, async || {
            let view = self.app.client.get(&format!("/deliveries/{id}")).await;
            (view["altered"]["part"] == part).then_some(view)
        })
        .await;
        let audit = self.app.client.get(&format!("/deliveries/{id}/audit?limit=1000")).await;
        let named =
            |entry: &&Value| entry["action"] == "altered" && entry["details"]["part"] == part;
        let entries = audit["items"].as_array().unwrap();
        assert_eq!(entries.iter().filter(named).count(), 1, "{audit}");
        view
    }

    fn sent(&self) -> usize {
        self.app.catcher.as_ref().unwrap().messages().len()
    }

    /// Sends another delivery, as if nothing had happened. Returns the number of its messages.
    async fn others_go_on(&self) -> usize {
        let before = self.sent();
        let id = self.app.client.send(&definition(), audience(5)).await;
        self.app.client.wait_for(&id, &["finished"]).await;
        self.sent() - before
    }
}

const ONE_EACH: &str = "[preparation]\nchunk_size = 1\nproof_addresses = [\"*@test.example\"]\n";

/// The confirmation that the attacker invents.
fn invented() -> Value {
    json!({ "by": "starter", "confirmed_at": "2026-01-01T00:00:00Z", "started": false })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_delivery_that_was_altered_is_never_sent_and_all_others_are() {
    let mut target = Target::new(ONE_EACH).await;
    type Alter = fn(&mut Value);
    let alterations: [(&str, Alter); 8] = [
        ("confirmation", |_| {}),
        ("content", |d| d["definition"]["content"]["html"] = "<p>Pay here</p>".into()),
        ("subject", |d| d["definition"]["content"]["subject"] = "Pay".into()),
        ("sender", |d| d["definition"]["sender"]["email"] = "evil@shop.example".into()),
        ("settings", |d| d["plan"]["settings"]["denylist"] = false.into()),
        ("schedule", |d| {
            d["definition"]["schedule"] =
                json!({ "type": "at", "at": "2031-01-01T09:00:00", "zone": "UTC" })
        }),
        ("digest", |d| d["plan"]["digest"] = "0".repeat(64).into()),
        ("audience", |d| d["plan"]["audience_sha256"] = "".into()),
    ];
    for (what, alter) in alterations {
        for state in ["start_pending", "in_progress", "scheduled"] {
            let (id, digest) = target.prepared(&definition()).await;
            let mut document = target.document(&id).await;
            document["release"] = invented();
            alter(&mut document);
            target.write(&id, "document", document.to_string()).await;
            target.set_in_motion(&id, state).await;
            let view = target.found(&id, "document").await;
            let is_at_rest = ["paused", "pausing"].contains(&view["state"].as_str().unwrap());
            assert!(is_at_rest, "{what} {state}: {}", view["state"]);
            target.app.client.wait_for(&id, &["paused"]).await;
            for action in ["resume", "release", "prepare", "unschedule"] {
                let path = format!("/deliveries/{id}/{action}");
                let (status, answer) = target.app.client.post(&path, &json!({})).await;
                assert_eq!(status, StatusCode::CONFLICT, "{action}: {answer}");
            }
            assert_eq!(target.app.client.confirm(&id, &digest).await.0, StatusCode::CONFLICT);
            let proof = json!({ "recipients": [0], "to": ["qa@test.example"] });
            let (status, answer) =
                target.app.client.post(&format!("/deliveries/{id}/proofs"), &proof).await;
            assert_eq!(status, StatusCode::CONFLICT, "{answer}");
        }
    }
    assert_eq!(target.sent(), 0);
    assert_eq!(target.others_go_on().await, 5);
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_or_a_document_fits_only_its_own_delivery_and_state() {
    let mut target = Target::new(ONE_EACH).await;
    let sent = target.app.client.send(&definition(), audience(3)).await;
    target.app.client.wait_for(&sent, &["finished"]).await;
    let (confirmed, seal) =
        (target.read(&sent, "document").await, seal_of(&mut target, &sent).await);
    // the whole confirmed document, with its seal
    let (id, _) = target.prepared(&definition()).await;
    target.write(&id, "document", confirmed).await;
    target.write(&id, "seal", seal.clone()).await;
    target.set_in_motion(&id, "start_pending").await;
    target.found(&id, "document").await;
    // the seal alone, no seal, and a seal of the right length
    for forged in [seal, Vec::new(), vec![0; 16]] {
        let (id, _) = target.prepared(&definition()).await;
        target.write(&id, "seal", forged).await;
        target.set_in_motion(&id, "start_pending").await;
        target.found(&id, "document").await;
    }
    // the state alone
    for state in ["start_pending", "in_progress", "scheduled", "held", "finished"] {
        let (id, _) = target.prepared(&definition()).await;
        target.set_in_motion(&id, state).await;
        target.found(&id, "document").await;
    }
    // The forged state `finished` makes figures differ, so the test leaves out the check of `stop`.
    assert_eq!(target.sent(), 3);
}

async fn seal_of(target: &mut Target, id: &str) -> Vec<u8> {
    let mut ask = redis::cmd("HGET");
    ask.arg(format!("versand:{{{id}}}:delivery")).arg("seal");
    ask.query_async(&mut target.conn).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_or_paused_delivery_is_not_set_in_motion_again() {
    let mut target = Target::new(&format!("{ONE_EACH}\n[send]\nmessages_per_second = 1\n")).await;
    for action in ["pause", "stop"] {
        let id = target.app.client.send(&definition(), audience(3)).await;
        let (status, answer) =
            target.app.client.post(&format!("/deliveries/{id}/{action}"), &json!({})).await;
        assert!(status.is_success(), "{answer}");
        target.app.client.wait_for(&id, &["paused", "stopped"]).await;
        let before = target.sent();
        target.set_in_motion(&id, "in_progress").await;
        target.found(&id, "document").await;
        assert_eq!(target.sent(), before, "{action}");
    }
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_was_swapped_or_changed_is_not_used_and_the_delivery_pauses() {
    let mut target = Target::new(ONE_EACH).await;
    let victim = format!("{}\n", json!({ "email": "victim@example.com", "name": "x" }));
    let evil = target.app.client.create(&definition()).await;
    target.app.client.upload(&evil, victim).await;
    assert_eq!(target.app.client.prepare(&evil).await["state"], "prepared");
    let foreign = target.get(&format!("versand:{{{evil}}}:chunks.2:0")).await;
    for (what, part) in [
        ("swapped", "slice 0 of chunks.2"),
        ("of another delivery", "slice 0 of chunks.2"),
        ("of an older generation", "slice 0 of chunks.4"),
        ("without its seal", "slice 0 of chunks.2"),
        ("cut", "slice 0 of chunks.2"),
    ] {
        let (id, mut digest) = target.prepared(&definition()).await;
        let mut key = format!("versand:{{{id}}}:chunks.2:0");
        let own = target.get(&key).await;
        let forged = match what {
            "swapped" => target.get(&format!("versand:{{{id}}}:chunks.2:1")).await,
            "of another delivery" => foreign.clone(),
            "of an older generation" => {
                let view = target.app.client.prepare(&id).await;
                digest = view["plan"]["digest"].as_str().unwrap().to_owned();
                key = format!("versand:{{{id}}}:chunks.4:0");
                own
            }
            "without its seal" => own[21..].to_vec(),
            _ => own[..own.len() - 1].to_vec(),
        };
        target.set(&key, &forged).await;
        assert_eq!(target.app.client.confirm(&id, &digest).await.0, StatusCode::ACCEPTED);
        target.found(&id, part).await;
        target.app.client.wait_for(&id, &["paused"]).await;
    }
    let all = target.app.catcher.as_ref().unwrap().messages();
    let to = |address: &str| all.iter().filter(|message| message.to[0] == address).count();
    assert_eq!((to("victim@example.com"), to("user0@example.com")), (0, 0));
    assert!(all.len() <= 10, "the other chunks may be sent: {}", all.len());
    assert_eq!(target.others_go_on().await, 5);
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_is_restored_is_sent_after_a_resume() {
    let mut target = Target::new(ONE_EACH).await;
    let (id, digest) = target.prepared(&definition()).await;
    let key = format!("versand:{{{id}}}:chunks.2:1");
    let own = target.get(&key).await;
    target.set(&key, b"x").await;
    target.app.client.confirm(&id, &digest).await;
    target.found(&id, "slice 1 of chunks.2").await;
    target.app.client.wait_for(&id, &["paused"]).await;
    target.set(&key, &own).await;
    let (status, answer) =
        target.app.client.post(&format!("/deliveries/{id}/resume"), &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let view = target.app.client.wait_for(&id, &["finished"]).await;
    assert_eq!((view["altered"].is_null(), target.sent()), (true, 3));
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_was_altered_before_the_preparation_is_not_prepared() {
    let mut target = Target::new(ONE_EACH).await;
    let (id, _) = target.prepared(&definition()).await;
    let (other, _) = target.prepared(&definition()).await;
    let foreign = target.get(&format!("versand:{{{other}}}:upload.1:2")).await;
    target.set(&format!("versand:{{{id}}}:upload.1:2"), &foreign).await;
    let (status, answer) =
        target.app.client.post(&format!("/deliveries/{id}/prepare"), &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let view = target.found(&id, "slice 2 of upload.1").await;
    assert_eq!((&view["state"], &view["plan"]), (&json!("editing"), &Value::Null));
    // a new upload makes the delivery good again
    target.app.client.upload(&id, audience(2)).await;
    let view = target.app.client.prepare(&id).await;
    assert_eq!((&view["state"], &view["altered"]), (&json!("prepared"), &Value::Null));
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_cannot_be_moved_in_the_table_of_waves() {
    let mut target = Target::new(ONE_EACH).await;
    let mut later = definition();
    later["schedule"] =
        json!({ "type": "at", "at": "2099-01-01T09:00:00", "zone": "Europe/Berlin" });
    // Each row has the due time and the time of the release that the attacker writes. `u32::MAX`
    // stands for the true due time.
    let now = jiff::Timestamp::now().as_second() as u32;
    for row in [[0, now], [u32::MAX, 1], [u32::MAX, now], [u32::MAX, u32::MAX]] {
        let (id, digest) = target.prepared(&later).await;
        target.app.client.confirm(&id, &digest).await;
        target.app.client.wait_for(&id, &["scheduled"]).await;
        let key = format!("versand:{{{id}}}:waves.2:0");
        let mut table = target.get(&key).await;
        let due = u32::from_be_bytes(table[..4].try_into().unwrap());
        let [forged_due, released_at] = row.map(|n| if n == u32::MAX { due } else { n });
        table[..4].copy_from_slice(&forged_due.to_be_bytes());
        table[4..8].copy_from_slice(&released_at.to_be_bytes());
        table[12] = 1;
        target.set(&key, &table).await;
        target.set_in_motion(&id, "start_pending").await;
        target.found(&id, "the table of waves").await;
        target.app.client.wait_for(&id, &["paused"]).await;
    }
    assert_eq!(target.sent(), 0);
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_never_leads_to_a_target_from_an_altered_table_or_template() {
    let mut target = Target::new("").await;
    let id = target.app.client.send(&tracking::definition(), audience(3)).await;
    target.app.client.wait_for(&id, &["finished"]).await;
    let links = tracking::links(&target.app.client, &id, 1).await;
    let (plain, merged) = (&links[&'c'][0], &links[&'c'][1]);
    let key = format!("versand:{{{id}}}:links.2:0");
    let stored = target.get(&key).await;
    // the attacker's own table, sealed for his own delivery
    let mut evil = tracking::definition();
    evil["content"]["html"] =
        "<a href=\"https://evil.example/\">x</a> <a href='{{ unsubscribe_url }}'>off</a>".into();
    let (other, _) = target.prepared(&evil).await;
    let foreign = target.get(&format!("versand:{{{other}}}:links.2:0")).await;
    for forged in [foreign.clone(), foreign[21..].to_vec()] {
        target.set(&key, &forged).await;
        let (status, location, _) = tracking::visit(plain, tracking::FIREFOX).await;
        assert_eq!((status, location.as_str()), (StatusCode::SERVICE_UNAVAILABLE, ""));
    }
    target.set(&key, &stored).await;
    let (status, location, _) = tracking::visit(plain, tracking::FIREFOX).await;
    assert_eq!(
        (status, location.as_str()),
        (StatusCode::FOUND, "https://shop.example/autumn?a=1&b=2")
    );
    // a target with merge fields comes from the document
    let altered =
        target.read(&id, "document").await.replace("shop.example/for", "evil.example/for");
    target.write(&id, "document", altered).await;
    let (status, location, _) = tracking::visit(merged, tracking::FIREFOX).await;
    assert!(status.is_client_error() && location.is_empty(), "{status} {location}");
    target.found(&id, "document").await;
    target.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_ledger_reaches_nobody_beyond_the_approved_recipients() {
    let mut target = Target::new("").await;
    let (id, digest) = target.prepared(&definition()).await;
    // A ledger for a thousand recipients is there before the start.
    let ledger = versand::domain::ledger::Ledger::new(1000);
    target.set(&format!("versand:{{{id}}}:ledger:0"), ledger.bytes()).await;
    target.app.client.confirm(&id, &digest).await;
    eventually("the approved recipients", LIMIT, async || (target.sent() >= 3).then_some(())).await;
    target.app.client.post(&format!("/deliveries/{id}/stop"), &json!({})).await;
    target.app.client.wait_for(&id, &["stopped"]).await;
    let to: std::collections::BTreeSet<_> = target
        .app
        .catcher
        .as_ref()
        .unwrap()
        .messages()
        .iter()
        .map(|message| message.to[0].clone())
        .collect();
    assert_eq!(to.len(), 3, "{to:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secrets_of_links_cannot_be_read_or_replaced_in_redis() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let mut conn = connect(&redis.url()).await;
    for name in ["message", "token"] {
        let key = format!("versand:secret:{name}");
        let stored: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut conn).await.unwrap();
        assert_eq!(stored.len(), 72, "sealed");
        let secret = crate::harness::installation_key().derive(name);
        assert!(!stored.windows(32).any(|bytes| bytes == secret));
    }
    // a daemon does not take a secret that the attacker knows
    redis::cmd("SET")
        .arg("versand:secret:token")
        .arg(&[0u8; 32][..])
        .exec_async(&mut conn)
        .await
        .unwrap();
    let (config, _state) = crate::harness::app::config(&redis, "");
    let refused = versand::app::Application::build(config, crate::harness::app::metrics()).await;
    let error = format!("{:#}", refused.err().expect("refused"));
    assert!(error.contains("versand:secret:token: was altered in Redis"), "{error}");
    app.stop().await;
}

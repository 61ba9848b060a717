//! SMTP test mode: the whole journey, and no recipient gets a message.

use versand::{
    domain::ledger::{ChunkRef, Ledger, Status},
    mail::catcher::CatcherCounts,
    store::{
        Redis, Stores,
        chunks::{Batch, Claim, Taken, TakeoverGrounds},
        keys,
    },
};

use super::*;
use crate::harness::{daemon::Daemon, postfix::Postfix, relay::TestRelay};

fn test() -> Value {
    let mut definition = definition();
    definition["settings"]["smtp_test"] = json!(true);
    definition
}

fn load(
    counts: &CatcherCounts,
    which: impl Fn(&CatcherCounts) -> &std::sync::atomic::AtomicU64,
) -> u64 {
    which(counts).load(Ordering::Relaxed)
}

async fn runs_and_delivers_nothing(pipelining: bool) {
    let redis = RedisServer::start();
    let app = App::start(
        &redis,
        "[relay]\nconnections = 1\n[preparation]\nchunk_size = 50\n[send]\nkeep_replies = \"all\"",
    )
    .await;
    let catcher = app.catcher.clone().unwrap();
    catcher.change_rules(|rules| {
        rules.pipelining = pipelining;
        rules.script(
            "user7@example.com",
            [Some(CatcherFault::new(CatcherStage::Recipient, CatcherAction::Close)), None],
        );
        rules.script(
            "user8@example.com",
            [Some(CatcherFault::reply(CatcherStage::Recipient, "421 4.3.2 bye")), None],
        );
    });
    let more = ["refuse1", "full1", "defer1"]
        .map(|name| format!("{{\"email\":\"{name}@example.com\",\"name\":\"N\"}}\n"));
    let id = app.client.send(&test(), audience(130) + &more.concat()).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(
        (&view["smtp_test"], &view["plan"]["settings"]["smtp_test"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(app.client.get(&format!("/deliveries/{id}/progress")).await["smtp_test"], true);
    assert_eq!(
        (&view["counts"]["sent"], &view["counts"]["failed"]),
        (&json!(131), &json!(2)),
        "{}",
        view["counts"]
    );
    let kpis = &view["kpis"];
    assert_eq!(
        (&kpis["test"], &kpis["to_deliver"], &kpis["in_doubt"]),
        (&json!(true), &json!(133), &json!(0))
    );
    for figure in ["processed", "delivered", "bounces_and_errors"] {
        assert_eq!(kpis[figure], 0, "{figure}");
    }
    for rate in ["delivered_rate", "bounce_and_error_rate", "hard_bounce_rate", "soft_bounce_rate"]
    {
        assert_eq!(kpis[rate], Value::Null, "{rate}");
    }

    let log = app.client.log(&id).await;
    assert!(log.len() == 133 && log.iter().all(|line| line["test"] == true), "{log:?}");
    let of = |name: &str| {
        log.iter().find(|line| line["email"] == format!("{name}@example.com")).unwrap()
    };
    for (name, status, attempts, reply) in [
        ("user0", "sent", 1, "250 2.1.5 Ok"),
        ("user7", "sent", 2, "250 2.1.5 Ok"),
        ("user8", "sent", 2, "421 4.3.2 bye"),
        ("defer1", "sent", 2, "451 4.2.1 Mailbox busy"),
        ("refuse1", "failed", 1, "550 5.1.1 User unknown"),
        ("full1", "failed", 1, "552 5.2.2 Mailbox full"),
    ] {
        let line = of(name);
        assert_eq!(
            (&line["status"], &line["attempts"]),
            (&json!(status), &json!(attempts)),
            "{line}"
        );
        assert!(line["reply"].as_str().unwrap().contains(reply), "{line}");
        assert_eq!((&line["resent"], &line["duplicate"]), (&json!(false), &json!(false)), "{line}");
    }
    let refused = of("refuse1");
    assert_eq!(
        (&refused["failure_reason"], &refused["failure_type"]),
        (&json!("user_unknown"), &json!("hard"))
    );
    let csv = String::from_utf8(
        app.client.bytes(&format!("/deliveries/{id}/log/export?format=csv")).await,
    )
    .unwrap();
    let column = csv.lines().next().unwrap().split(',').position(|name| name == "test").unwrap();
    assert_eq!(csv.lines().nth(1).unwrap().split(',').nth(column), Some("true"));

    let counts = catcher.counts();
    assert_eq!((load(counts, |c| &c.accepted), load(counts, |c| &c.unexpected)), (0, 0));
    assert!(
        load(counts, |c| &c.resets) >= 134,
        "each transaction ends with RSET, unless its connection was closed"
    );
    assert!(
        load(counts, |c| &c.connections) >= 3,
        "a connection is closed before the server refuses more RSET"
    );
    assert_eq!(acceptances(&app), (0, 0));

    // A real delivery can use the connections of SMTP tests, and it is shown as a real one.
    let id = app.client.send(&definition(), audience(3)).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(
        (&view["smtp_test"], &view["kpis"]["test"], &view["kpis"]["delivered"]),
        (&json!(false), &json!(false), &json!(3))
    );
    assert!(app.client.log(&id).await.iter().all(|line| line["test"] == false));
    assert_eq!((catcher.messages().len(), acceptances(&app)), (3, (3, 3)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_runs_the_whole_journey_and_delivers_nothing() {
    runs_and_delivers_nothing(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_sends_one_command_at_a_time_where_pipelining_is_not_offered() {
    runs_and_delivers_nothing(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_a_test_differs_from_that_of_a_sending() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let (mut digests, mut ids) = (BTreeSet::new(), Vec::new());
    for definition in [definition(), test()] {
        let id = prepared(&app.client, &definition, audience(3)).await;
        let view = app.client.get(&format!("/deliveries/{id}")).await;
        digests.insert(view["plan"]["digest"].as_str().unwrap().to_owned());
        ids.push(id);
    }
    assert_eq!(digests.len(), 2);
    // Proofs of an SMTP test are sent all the same, because somebody has asked for each of them.
    let proofs =
        prove(&app.client, &ids[1], &json!({ "recipients": [0], "to": ["a@test.example"] })).await;
    assert_eq!(outcomes(&proofs), ["accepted"]);
    let mut bad = test();
    bad["settings"]["smtp_test"] = json!("yes");
    let (status, problem) = app.client.post("/deliveries", &bad).await;
    assert_eq!(
        (status, &problem["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("settings.smtp_test")),
        "{problem}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_a_test_leaves_nobody_in_doubt() {
    let relay = TestRelay::start(Duration::from_millis(5)).await;
    let mut daemon = Daemon::start(&relay.settings(4)).await;
    let id = daemon.client.send(&test(), audience(300)).await;
    for wanted in [20, 100] {
        eventually("some transactions", LIMIT, async || {
            let progress = daemon.client.get(&format!("/deliveries/{id}/progress")).await;
            (progress["counts"]["sent"].as_u64()? > wanted).then_some(())
        })
        .await;
        daemon.restart().await;
    }
    let view = daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(
        (&view["counts"]["sent"], &view["counts"]["resent"]),
        (&json!(300), &json!(0)),
        "{}",
        view["counts"]
    );
    let log = daemon.client.log(&id).await;
    assert!(log.iter().all(|line| line["status"] == "sent" && line["resent"] == false), "{log:?}");
    assert_eq!((relay.accepted(), daemon.metric("versand_acceptance_difference").await), (0, 0.0));
    assert_eq!(daemon.metric("versand_conservation_difference").await, 0.0);
}

/// A dead holder, a chunk given back, and a roll-back: in test mode attempted recipients are
/// deferred, and all others do not change.
#[tokio::test]
async fn the_scripts_put_nobody_in_doubt_in_a_test() {
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let stores = Stores::new(
        Redis::connect(&redis.settings()).await.unwrap(),
        &crate::harness::installation_key(),
    );
    stores.redis.durability().await.unwrap();
    for is_test in [true, false] {
        let at = ChunkRef { delivery: DeliveryId::from_random([u8::from(is_test); 10]), chunk: 0 };
        let mut conn = stores.redis.connection();
        let mut pipe = redis::pipe();
        pipe.set(keys::ledger(&at.delivery, 0), Ledger::new(3).in_test_mode(is_test).bytes())
            .ignore();
        pipe.hset(keys::delivery(&at.delivery), "state", "in_progress").ignore();
        let () = pipe.query_async(&mut conn).await.unwrap();
        let statuses = async || -> Vec<Status> {
            let ledger =
                stores.ledgers.ledgers(&at.delivery, 0..1).await.unwrap().remove(0).unwrap();
            ledger.records().map(|record| record.status).collect()
        };
        let lost = if is_test { Status::Deferred } else { Status::InDoubt };
        let take = async |grounds: TakeoverGrounds| match stores
            .ledgers
            .take_lease(&at, 7, grounds, 100)
            .await
            .unwrap()
        {
            Taken::Yes(lease, _) => lease,
            held => panic!("{held:?}"),
        };
        let claim = async |position, mut lease: versand::store::chunks::Lease| {
            let batch = Batch { claims: vec![Claim { position, n: 1 }], ..Batch::default() };
            assert_eq!(
                stores.ledgers.write_batch(&at, &lease, &batch, 100, None).await.unwrap().granted,
                [true]
            );
            lease.seq += 1;
            lease
        };
        // The holder died.
        claim(0, take(TakeoverGrounds::default()).await).await;
        let lease = take(TakeoverGrounds { dead: Some(7), ..TakeoverGrounds::default() }).await;
        assert_eq!(statuses().await, [lost, Status::Pending, Status::Pending]);
        // The holder gives the chunk back, and the outcome of a claim is not recorded.
        let lease = claim(1, lease).await;
        let (_, due) = stores.ledgers.give_back(&at, &lease, 101, None).await.unwrap();
        assert_eq!(statuses().await, [lost, lost, Status::Pending]);
        assert_eq!(due, Some(0));
        // Redis went back in time.
        let lease = take(TakeoverGrounds::default()).await;
        let doubted = stores.ledgers.put_in_doubt(&at, &lease, 102, None).await.unwrap();
        let third = if is_test { Status::Pending } else { Status::InDoubt };
        assert_eq!((statuses().await, doubted), (vec![lost, lost, third], u64::from(!is_test)));
        let open: Option<u32> = redis::cmd("ZSCORE")
            .arg(keys::open(&at.delivery))
            .arg(0)
            .query_async(&mut conn)
            .await
            .unwrap();
        assert_eq!(open, is_test.then_some(102), "open chunks are indexed");
        assert_eq!(
            stores.ledgers.counts(&at.delivery).await.unwrap().in_doubt,
            if is_test { 0 } else { 3 }
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_queues_nothing_of_a_test() {
    let (redis, postfix) = (RedisServer::start(), Postfix::start());
    let relay =
        format!("[relay]\nhost = \"127.0.0.1\"\nport = {}\nconnections = 1\n", postfix.port());
    let app = App::start(&redis, &format!("{relay}[send]\nkeep_replies = \"all\"\n")).await;
    let of = |name: String| format!("{{\"email\":\"{name}@inbox.test\",\"name\":\"N\"}}\n");
    let good: String = (0..250).map(|i| of(format!("alice+{i}"))).collect();
    let id = app.client.send(&test(), good + &of("rejectme".into())).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(
        (&view["counts"]["sent"], &view["counts"]["failed"]),
        (&json!(250), &json!(1)),
        "{}",
        view["counts"]
    );
    let log = app.client.log(&id).await;
    for line in &log[..250] {
        assert_eq!(
            (&line["attempts"], &line["reply"]),
            (&json!(1), &json!("250 2.1.5 Ok")),
            "{line}"
        );
    }
    assert!(log[250]["reply"].as_str().unwrap().starts_with("550 5.7.1"), "{}", log[250]);
    app.stop().await;
    let log = postfix.log();
    assert!(!log.contains("message-id=") && !log.contains("queue active"), "{log}");
    assert!(
        !log.contains("too many errors") && !log.contains("improper command pipelining"),
        "{log}"
    );
}

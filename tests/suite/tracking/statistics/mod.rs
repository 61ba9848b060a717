//! Statistics of a log that changes while they are computed.

mod recording;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use versand::{
    domain::{
        delivery::DeliveryId,
        tracking::{HIT_BYTES, Hit, HitKind, HitLabel, NO_AGENT, NO_LINK, Relabelled, Statistics},
    },
    store::tracking::{PreparationRef, StatisticsBasis},
};

use crate::harness::{
    LIMIT,
    app::{App, idle},
    client::audience,
    daemon::Daemon,
    direct_calls::{aged, connection, keys, names},
    eventually,
    redis::RedisServer,
    relay::TestRelay,
    tracking,
};

/// The bytes of a label in the log: the label of a machine, and the version of the rules.
const AGENT: [u8; 3] = [HitLabel::Agent as u8, 0, 2];
const HUMAN: [u8; 3] = [HitLabel::Human as u8, 0, 2];

fn hit(recipient: u32, kind: HitKind, label: HitLabel) -> Hit {
    let from = IpAddr::from([192, 0, 2, 1]);
    Hit {
        recipient,
        at_ms: u64::from(recipient) * 5000,
        kind,
        label,
        rules: 2,
        link: NO_LINK,
        signs: 0,
        agent: NO_AGENT,
        from,
    }
}

/// A delivery that was sent to five recipients, with these hits in its log, each with its user
/// agent.
async fn sent(app: &App, hits: &[(Hit, &str)]) -> DeliveryId {
    let id = app.client.send(&tracking::definition(), audience(5)).await;
    app.client.wait_for(&id, &["finished"]).await;
    let id: DeliveryId = id.parse().unwrap();
    let plan = app.services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap();
    let mailing = PreparationRef {
        delivery: id.clone(),
        generation: plan.generation,
        chunk_size: plan.chunk_size,
    };
    assert_eq!(
        app.services.stores.tracking.record_hits(&mailing, hits, 0).await.unwrap(),
        hits.len() as u64
    );
    id
}

async fn basis(app: &App, id: &DeliveryId) -> StatisticsBasis {
    let revision = app.services.deliveries.delivery(id).await.unwrap().revision;
    StatisticsBasis {
        delivery: id.clone(),
        revision,
        label_changes: app.services.stores.tracking.log_extent(id).await.unwrap().label_changes,
    }
}

/// Fills so many blocks of the tracking log with opens of the first recipient.
fn fill_with_opens(id: &str, blocks: u64) -> redis::Pipeline {
    let opens = hit(0, HitKind::Open, HitLabel::Human).encode().repeat(4096);
    let mut log = redis::pipe();
    for block in 0..blocks {
        log.set(format!("versand:{{{id}}}:hits:{block}"), &opens).ignore();
    }
    log.hset(format!("versand:{{{id}}}:tracking"), "hits", blocks * 4096).ignore();
    log
}

/// Runs the hourly job, even if another daemon did it before.
async fn run_hourly_job(app: &App) {
    let mut connection = crate::harness::redis::observe(&app.services.stores.redis).await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("versand:statistics:*").query_async(&mut connection).await.unwrap();
    for key in keys {
        let _: u64 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
    }
    app.services.feedback.statistics.hourly_statistics().await.unwrap();
}

/// The stored figures, which must agree with the logs.
async fn stored_figures(app: &App, id: &DeliveryId) -> Value {
    let kept = app.client.get(&format!("/deliveries/{id}/statistics")).await;
    let log = tracking::export(&app.client, id.as_str(), "tracking/export?format=ndjson").await;
    tracking::compare(&kept, &app.client.log(id.as_str()).await, &log);
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_relabelling_is_counted_by_the_next_hourly_job() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let opens =
        [0, 1, 2].map(|number| (hit(number, HitKind::Open, HitLabel::Human), tracking::FIREFOX));
    let id = sent(&app, &opens).await;
    run_hourly_job(&app).await;
    assert_eq!(stored_figures(&app, &id).await["unique_opens"], json!(3));
    // A crash came after the first changed label.
    let mut basis = basis(&app, &id).await;
    let line = Relabelled { place: 1, before: HUMAN, now: AGENT };
    assert!(app.services.stores.tracking.relabel(&mut basis, &[line]).await.unwrap());
    run_hourly_job(&app).await;
    let kept = stored_figures(&app, &id).await;
    assert_eq!((&kept["unique_opens"], &kept["machine_opens"]), (&json!(2), &json!(1)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_outdated_labels_are_not_stored() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(
        &app,
        &[0, 1].map(|number| (hit(number, HitKind::Open, HitLabel::Human), tracking::FIREFOX)),
    )
    .await;
    let stores = &app.services.stores;
    let old = app.services.feedback.statistics.compute(&id, false).await.unwrap();
    let (before, mut now) = (basis(&app, &id).await, basis(&app, &id).await);
    assert!(
        stores
            .tracking
            .relabel(&mut now, &[Relabelled { place: 0, before: HUMAN, now: AGENT }])
            .await
            .unwrap()
    );
    app.services.feedback.statistics.compute(&id, false).await.unwrap();

    assert!(!stores.tracking.keep_statistics(&before, &old).await.unwrap());
    let line = Relabelled { place: 1, before: HUMAN, now: AGENT };
    assert!(!stores.tracking.relabel(&mut before.clone(), &[line]).await.unwrap());
    let record = async || {
        stores.ledgers.ledgers(&id, 0..1).await.unwrap()[0]
            .as_ref()
            .unwrap()
            .records()
            .next()
            .unwrap()
    };
    assert_eq!(record().await.tracked, 2, "the message was opened by a machine");
    stores.tracking.correct_tracked(&before, 0, &[(0, 2, 1, 1)]).await.unwrap();
    assert_eq!(record().await.tracked, 2);
    stores.tracking.correct_tracked(&now, 0, &[(0, 2, 2, 1)]).await.unwrap();
    assert_eq!(record().await.tracked, 2, "another hit came meanwhile");
    stores.tracking.correct_tracked(&now, 0, &[(0, 2, 1, 1)]).await.unwrap();
    assert_eq!(record().await.tracked, 1);
    assert_eq!(stored_figures(&app, &id).await["unique_opens"], json!(1));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_computation_does_not_restore_removed_data() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[retention]\nlogs_days = 1\ntracking_days = 1").await;
    let opens = [(hit(0, HitKind::Open, HitLabel::Human), tracking::FIREFOX)];
    for is_deleted in [true, false] {
        let id = sent(&app, &opens).await;
        let old = app.services.feedback.statistics.compute(&id, false).await.unwrap();
        let left = if is_deleted {
            &["delivery", "audit"][..]
        } else {
            &["delivery", "audit", "tracking", "statistics"]
        };
        if !is_deleted {
            aged(&app, id.as_str(), 25).await;
        }
        let before = basis(&app, &id).await;
        if is_deleted {
            let gone = app
                .client
                .request(Method::DELETE, &format!("/deliveries/{id}"))
                .send()
                .await
                .unwrap();
            assert!(gone.status().is_success());
        } else {
            app.services.journey.operate.retention.run().await;
        }
        assert_eq!(keys(&redis, id.as_str()).await, names(left));
        let frozen = app.services.stores.tracking.statistics(&id).await.unwrap();
        let wrong = Statistics { hits: 77, ..old };
        assert!(!app.services.stores.tracking.keep_statistics(&before, &wrong).await.unwrap());
        let line = Relabelled { place: 0, before: HUMAN, now: AGENT };
        assert!(!app.services.stores.tracking.relabel(&mut before.clone(), &[line]).await.unwrap());
        app.services.stores.tracking.correct_tracked(&before, 0, &[(0, 1, 1, 2)]).await.unwrap();
        assert_eq!(keys(&redis, id.as_str()).await, names(left));
        assert_eq!(app.services.stores.tracking.statistics(&id).await.unwrap(), frozen);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_different_rules_that_compute_at_once_end_with_figures_that_agree_with_the_log()
 {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let app = App::start(&redis, "").await;
    let file = folder.path().join("machines.toml");
    let other_rules = versand::domain::tracking::BUILT_IN
        .replace("version = 2", "version = 3")
        .replace("\"scrapy\", ", "");
    std::fs::write(&file, other_rules).unwrap();
    let (other, _state) = idle(&redis, &format!("[tracking]\nrules_file = {file:?}")).await;
    let opens =
        [0, 1, 2, 3].map(|number| (hit(number, HitKind::Open, HitLabel::Agent), "Scrapy/2"));
    let id = sent(&app, &opens).await;
    for round in 0..20 {
        let (one, two) = tokio::join!(
            app.services.feedback.statistics.compute(&id, round % 2 == 0),
            other.services().feedback.statistics.compute(&id, true)
        );
        assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
        run_hourly_job(&app).await;
        stored_figures(&app, &id).await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_stored_user_agent_stays_a_machine_after_relabelling() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(&app, &[]).await;
    let mut fill = redis::pipe();
    for number in 0..10_000 {
        fill.hset(format!("versand:{{{id}}}:agents"), format!("agent {number}"), number).ignore();
    }
    let () = fill.query_async(&mut app.services.stores.redis.connection()).await.unwrap();
    for (number, agent) in
        [(0, "python-requests/2.32"), (1, tracking::FIREFOX), (2, "YahooMailProxy")]
    {
        let of = tracking::links(&app.client, id.as_str(), number).await;
        tracking::visit(&of[&'o'][0], agent).await;
    }
    let labels = async || -> Vec<Value> {
        let log = tracking::export(&app.client, id.as_str(), "tracking/export?format=ndjson").await;
        assert!(log.iter().all(|line| line["agent"].is_null()), "{log:?}");
        log.iter().map(|line| line["label"].clone()).collect()
    };
    assert_eq!(labels().await, ["agent", "human", "image_proxy"]);
    let (status, _) = app.client.post(&format!("/deliveries/{id}/relabel"), &json!({})).await;
    assert!(status.is_success());
    assert_eq!(labels().await, ["agent", "human", "image_proxy"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_few_matches_among_many_lines_says_where_to_continue() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(&app, &[]).await;
    let mut log = fill_with_opens(id.as_str(), 70);
    // The last counted line is the only click that the page may show. The click after it stands
    // for a line that came after the count was read.
    let lines = 69 * 4096 + 3;
    let click = hit(4, HitKind::Click, HitLabel::Human).encode();
    log.setrange(format!("versand:{{{id}}}:hits:69"), 2 * 36, &click[..]).ignore();
    log.setrange(format!("versand:{{{id}}}:hits:69"), 3 * 36, &click[..]).ignore();
    log.hset(format!("versand:{{{id}}}:tracking"), "hits", lines).ignore();
    let () = log.query_async(&mut app.services.stores.redis.connection()).await.unwrap();
    let page = async |from: u64| {
        app.client.get(&format!("/deliveries/{id}/tracking?kind=click&from={from}")).await
    };
    let first = page(0).await;
    assert_eq!((&first["items"], first["next"].as_u64()), (&json!([]), Some(64 * 4096)));
    let last = page(64 * 4096).await;
    let found: Vec<u64> = last["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["line"].as_u64().unwrap())
        .collect();
    assert_eq!((found, &last["next"]), (vec![lines - 1], &Value::Null));
    assert_eq!(page(u64::MAX).await, json!({ "items": [], "next": null }));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_tracking_log_can_be_of_one_recipient_class_or_label() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(&app, &[]).await;
    let hits = [
        (1, HitKind::Open, HitLabel::Human),
        (2, HitKind::Open, HitLabel::Agent),
        (2, HitKind::Click, HitLabel::Human),
        (3, HitKind::Click, HitLabel::Head),
    ];
    let bytes: Vec<u8> = hits
        .iter()
        .flat_map(|(recipient, kind, label)| hit(*recipient, *kind, *label).encode())
        .collect();
    let mut log = redis::pipe();
    log.set(format!("versand:{{{id}}}:hits:0"), bytes).ignore();
    log.hset(format!("versand:{{{id}}}:tracking"), "hits", hits.len()).ignore();
    let () = log.query_async(&mut app.services.stores.redis.connection()).await.unwrap();
    for (query, lines) in [
        ("", vec![0, 1, 2, 3]),
        ("recipient=2", vec![1, 2]),
        ("recipient=2&kind=open", vec![1]),
        ("recipient=9", vec![]),
        ("label=human", vec![0, 2]),
        ("label=head", vec![3]),
        ("class=machine", vec![1, 3]),
        ("class=machine&recipient=3", vec![3]),
    ] {
        let page = app.client.get(&format!("/deliveries/{id}/tracking?{query}")).await;
        let found: Vec<u64> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["line"].as_u64().unwrap())
            .collect();
        assert_eq!(found, lines, "{query}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_computes_hourly_statistics_whose_daemon_was_killed() {
    const BLOCKS: u64 = 150;
    let redis = RedisServer::start();
    let relay = TestRelay::start(Duration::ZERO).await;
    let mut daemon = Daemon::start_with_clock(&format!(
        "{}[redis]\nurl = \"{}\"\n",
        relay.settings(4),
        redis.url()
    ))
    .await;
    let id = daemon.client.send(&tracking::definition(), audience(5)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let mut connection = connection(&redis).await;
    let () = fill_with_opens(&id, BLOCKS).query_async(&mut connection).await.unwrap();
    let kept = format!("versand:{{{id}}}:statistics");
    let _: u64 = redis::cmd("DEL").arg(&kept).query_async(&mut connection).await.unwrap();

    // The clock stands in a later hour, five seconds before the task of the statistics.
    let ahead = |now: i64| (now.div_euclid(3600) + 3) * 3600 + 625 - now;
    let now = jiff::Timestamp::now().as_second();
    let lock = format!("versand:statistics:{}", (now + ahead(now)).div_euclid(3600));
    daemon.set_clock(ahead(now));
    let lasts = async |connection: &mut redis::aio::MultiplexedConnection| -> i64 {
        redis::cmd("TTL").arg(&lock).query_async(connection).await.unwrap()
    };
    // The loop makes no pause, so that the daemon is killed before the job is done.
    let limit = Instant::now() + LIMIT;
    while lasts(&mut connection).await < 0 {
        assert!(Instant::now() < limit, "no daemon took the hour");
    }
    daemon.kill();
    let exists: bool = redis::cmd("EXISTS").arg(&kept).query_async(&mut connection).await.unwrap();
    assert!(
        !exists && (1..=120).contains(&lasts(&mut connection).await),
        "the job ended before the kill"
    );

    // The test deletes the lock, which would otherwise expire after two minutes.
    let _: u64 = redis::cmd("DEL").arg(&lock).query_async(&mut connection).await.unwrap();
    daemon.set_clock(ahead(jiff::Timestamp::now().as_second()));
    daemon.restart().await;
    let figures = eventually("the figures of the next daemon", LIMIT, async || {
        let answer = daemon
            .client
            .request(Method::GET, &format!("/deliveries/{id}/statistics"))
            .send()
            .await
            .unwrap();
        if answer.status().is_success() { answer.json::<Value>().await.ok() } else { None }
    })
    .await;
    assert_eq!((&figures["hits"], &figures["unique_opens"]), (&json!(BLOCKS * 4096), &json!(1)));
}

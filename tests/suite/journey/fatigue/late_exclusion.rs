//! Late exclusions: recipients who reach the limit or opt out after the preparation.

use versand::mail::catcher::{CatcherAction, CatcherFault, CatcherStage};

use super::*;
use crate::harness::client::audience;

#[tokio::test(flavor = "multi_thread")]
async fn a_late_exclusion_removes_recipients_who_reached_the_limit_since_the_preparation() {
    let redis = RedisServer::start();
    let app = App::start(&redis, ONE_IN_SEVEN_DAYS).await;
    let client = &app.client;
    let prepared = async |emails: &[&str]| {
        let id = client.create(&definition_with(Value::Null, 0)).await;
        client.upload(&id, audience_of(emails)).await;
        let view = client.prepare(&id).await;
        (id, view["plan"]["digest"].as_str().unwrap().to_owned())
    };
    let (first, its_digest) = prepared(&["ann@example.com", "nobody"]).await;
    let (second, digest) =
        prepared(&["bob@example.com", "Ann@Example.com", "nobody", "cleo@example.com"]).await;
    for (id, digest) in [(&first, &its_digest), (&second, &digest)] {
        assert_eq!(client.confirm(id, digest).await.0, StatusCode::ACCEPTED);
        client.wait_for(id, &["finished"]).await;
    }
    let view = client.get(&format!("/deliveries/{second}")).await;
    assert_eq!(
        (&view["counts"]["excluded"], &view["counts"]["sent"]),
        (&json!(1), &json!(2)),
        "{view}"
    );
    let kpis = &view["kpis"];
    assert_eq!(
        (&kpis["targeted"], &kpis["to_deliver"], &kpis["delivered"]),
        (&json!(4), &json!(2), &json!(2)),
        "{kpis}"
    );
    let log = client.log(&second).await;
    let lines: Vec<_> =
        log.iter().map(|line| (line["status"].as_str().unwrap(), line["cause"].as_str())).collect();
    assert_eq!(lines, [("sent", None), ("excluded", Some("fatigue")), ("sent", None)]);
    assert_eq!(
        (&log[1]["attempts"], &log[1]["failure_reason"], log[1]["at"].is_string()),
        (&json!(0), &Value::Null, true)
    );
    let csv = String::from_utf8(
        client.bytes(&format!("/deliveries/{second}/log/export?format=csv")).await,
    )
    .unwrap();
    assert!(csv.lines().nth(2).unwrap().contains("Ann@Example.com,excluded,0,,,fatigue,"), "{csv}");
    let only = client.get(&format!("/deliveries/{second}/log?status=excluded")).await;
    assert_eq!(only["items"].as_array().unwrap().len(), 1);
    assert!(
        client
            .get("/exclusion-causes")
            .await
            .as_array()
            .unwrap()
            .iter()
            .any(|cause| cause["cause"] == "fatigue")
    );
    // This also checks that the conservation figures agree.
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_one_of_six_deliveries_released_at_the_same_time_by_two_daemons() {
    const DELIVERIES: usize = 6;
    let redis = RedisServer::start();
    let settings = format!("{ONE_IN_SEVEN_DAYS}\n[preparation]\nchunk_size = 20");
    let (first, second) =
        (App::start(&redis, &settings).await, App::start(&redis, &settings).await);
    let addresses: Vec<String> = (0..100).map(|n| format!("r{n}@example.com")).collect();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut prepared = Vec::new();
    for _ in 0..DELIVERIES {
        let id = first.client.create(&definition_with(Value::Null, 0)).await;
        first.client.upload(&id, audience_of(&all)).await;
        let view = first.client.prepare(&id).await;
        prepared.push((id, view["plan"]["digest"].as_str().unwrap().to_owned()));
    }
    let confirmations = prepared.iter().enumerate().map(async |(n, (id, digest))| {
        let client = if n % 2 == 0 { &first.client } else { &second.client };
        assert_eq!(client.confirm(id, digest).await.0, StatusCode::ACCEPTED);
    });
    futures_util::future::join_all(confirmations).await;
    let (mut sent, mut excluded) = (std::collections::BTreeMap::new(), 0);
    for (id, _) in &prepared {
        let view = first.client.wait_for(id, &["finished"]).await;
        excluded += view["counts"]["excluded"].as_u64().unwrap();
        for line in first.client.log(id).await.iter().filter(|line| line["status"] == "sent") {
            *sent.entry(line["email"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert!(sent.len() == 100 && sent.values().all(|n| *n == 1), "{sent:?}");
    assert_eq!(excluded, 100 * (DELIVERIES as u64 - 1));
    // Some jobs that find nothing to send in their chunks may still run.
    eventually("no job is left", LIMIT, async || {
        let depths = first.services.journey.preparations.jobs.queue.depths().await.unwrap();
        depths
            .iter()
            .all(|depth| (depth.active, depth.in_flight, depth.scheduled) == (0, 0, 0))
            .then_some(())
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earlier_of_two_started_deliveries_wins_whichever_is_sent_first() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, ONE_IN_SEVEN_DAYS).await;
    let services = application.services();
    let ann = ["ann@example.com"];
    let (earlier, later) = (
        prepare(services, definition_with(Value::Null, 0), &ann).await,
        prepare(services, definition_with(Value::Null, 0), &ann).await,
    );
    for (delivery, ago) in [(&earlier, 20), (&later, 10)] {
        confirm(services, delivery).await;
        services.journey.release.starts.start(&delivery.id).await.unwrap();
        released_at(&redis, services, &delivery.id, unix_now() - ago).await;
    }
    send(services, &later.id).await;
    send(services, &earlier.id).await;
    let counts = async |id| services.stores.ledgers.counts(id).await.unwrap();
    assert_eq!(counts(&later.id).await.excluded, 1);
    assert_eq!(counts(&earlier.id).await.sent, 1);
    // The third delivery is released later than the fourth one, which must count it all the same.
    let third = prepare(services, definition_with(json!(false), 0), &["bob@example.com"]).await;
    let fourth = prepare(services, definition_with(Value::Null, 0), &["bob@example.com"]).await;
    for delivery in [&third, &fourth] {
        confirm(services, delivery).await;
        services.journey.release.starts.start(&delivery.id).await.unwrap();
    }
    released_at(&redis, services, &fourth.id, unix_now() - 100).await;
    send(services, &fourth.id).await;
    send(services, &third.id).await;
    assert_eq!((counts(&fourth.id).await.excluded, counts(&third.id).await.sent), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_holder_excludes_and_only_pending_or_deferred_recipients() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let delivery = prepare(
        services,
        definition_with(Value::Null, 0),
        &["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
    )
    .await;
    confirm(services, &delivery).await;
    services.journey.release.starts.start(&delivery.id).await.unwrap();
    let at = ChunkRef { delivery: delivery.id.clone(), chunk: 0 };
    let stores = &services.stores;
    let Taken::Yes(mut lease, _) =
        stores.ledgers.take_lease(&at, 7, TakeoverGrounds::default(), unix_now()).await.unwrap()
    else {
        panic!("the lease was not granted")
    };
    let exclude = async |lease: &Lease, positions: &[u16]| {
        let who = positions.iter().map(|position| (*position, ExclusionCause::Fatigue)).collect();
        stores.ledgers.exclude_late(&at, lease, &who, unix_now()).await.unwrap()
    };
    let statuses = async || {
        let ledger = stores.ledgers.ledgers(&at.delivery, 0..1).await.unwrap().remove(0).unwrap();
        (
            ledger.is_fatigue_checked(),
            ledger.records().map(|record| record.status).collect::<Vec<_>>(),
        )
    };
    // Recipient 0 is being attempted, and recipient 1 is deferred.
    let claims = vec![Claim { position: 0, n: 1 }, Claim { position: 1, n: 1 }];
    stores
        .ledgers
        .write_batch(&at, &lease, &Batch { claims, ..Batch::default() }, unix_now(), None)
        .await
        .unwrap();
    lease.seq += 1;
    let claim = versand::domain::ledger::ClaimNumber { epoch: lease.epoch, n: 1 };
    let deferred = Report {
        position: 1,
        claim,
        status: Some(Status::Deferred),
        reason: 3,
        flags: 0,
        when: unix_now(),
        reply: String::new(),
    };
    stores
        .ledgers
        .write_batch(
            &at,
            &lease,
            &Batch { reports: vec![deferred], ..Batch::default() },
            unix_now(),
            None,
        )
        .await
        .unwrap();
    lease.seq += 1;
    use Status::{Attempting, Deferred, Excluded, Pending};
    let before = (false, vec![Attempting, Deferred, Pending, Pending]);
    assert_eq!(exclude(&Lease { owner: 8, ..lease }, &[2]).await, (LeaseVerdict::Lost, 0));
    assert_eq!(exclude(&Lease { epoch: 0, ..lease }, &[2]).await, (LeaseVerdict::Lost, 0));
    assert_eq!(
        exclude(&Lease { seq: lease.seq + 5, ..lease }, &[2]).await,
        (LeaseVerdict::RolledBack, 0)
    );
    assert_eq!(statuses().await, before);
    assert_eq!(exclude(&lease, &[0, 1, 2, 900]).await, (LeaseVerdict::Ok, 2));
    let after = (true, vec![Attempting, Excluded, Excluded, Pending]);
    assert_eq!(statuses().await, after);
    // An exclusion with the old sequence number: the answer to the first one was lost.
    assert_eq!(exclude(&lease, &[0, 1, 2, 3]).await, (LeaseVerdict::Ok, 0));
    assert_eq!(statuses().await, after);
    let counts = stores.ledgers.counts(&at.delivery).await.unwrap();
    assert_eq!((counts.pending, counts.attempting, counts.deferred, counts.excluded), (1, 1, 0, 2));
    let page =
        services.reports.sending_log.page(&at.delivery, 0, 10, Some(Excluded), None).await.unwrap();
    assert!(
        page.items.iter().all(
            |line| line.cause == Some(ExclusionCause::Fatigue) && line.failure_reason.is_none()
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_who_opts_out_while_in_doubt_gets_nothing_and_keeps_no_worker_busy() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let catcher = app.catcher.as_ref().unwrap();
    catcher.change_rules(|rules| {
        let breaks = CatcherFault::new(CatcherStage::End, CatcherAction::Close);
        rules.script("user1@example.com", [Some(breaks)]);
    });
    let mut definition = definition_with(Value::Null, 0);
    definition["settings"]["in_doubt"] = json!("resend");
    let id = app.client.send(&definition, audience(3)).await;
    let counts = async || app.client.get(&format!("/deliveries/{id}")).await["counts"].clone();
    eventually("one is in doubt", LIMIT, async || (counts().await["in_doubt"] == 1).then_some(()))
        .await;
    let deny = app.client.request(reqwest::Method::PUT, "/denylist/user1@example.com");
    assert_eq!(deny.send().await.unwrap().status(), StatusCode::CREATED);
    // after the doubt is old enough for a second try, the chunk waits
    let mut conn = connection(&redis).await;
    eventually("the chunk is looked at much later", LIMIT, async || {
        let mut read = redis::cmd("ZSCORE");
        read.arg(format!("versand:{{{id}}}:open")).arg(0);
        let due: Option<f64> = read.query_async(&mut conn).await.unwrap();
        due.filter(|due| *due > f64::from(unix_now()) + 30.0)
    })
    .await;
    let counts = counts().await;
    assert_eq!((&counts["sent"], &counts["in_doubt"]), (&json!(2), &json!(1)), "{counts}");
    assert_eq!(catcher.messages().len(), 2, "a second try was made");
    app.stop().await;
}

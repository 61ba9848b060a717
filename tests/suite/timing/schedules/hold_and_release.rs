//! Deliveries with a schedule: hold, release, withdraw, pause, stop, copy; who may confirm them.

use super::*;
use crate::harness::app::token;

async fn state(client: &Client, id: &str) -> String {
    client.get(&format!("/deliveries/{id}")).await["state"].as_str().unwrap().to_owned()
}

async fn ask(client: &Client, id: &str, what: &str) -> (StatusCode, Value) {
    client.post(&format!("/deliveries/{id}/{what}"), &json!({})).await
}

/// Two passes over due waves and moving deliveries, and time for their effects.
async fn two_passes(app: &App) {
    for _ in 0..2 {
        assert!(app.services.journey.release.due_waves.release_due().await);
        app.services.journey.recover.reconciler.reconcile().await.unwrap();
        eventually("the jobs end", LIMIT, async || {
            let depths = app.services.journey.preparations.jobs.queue.depths().await.unwrap();
            depths.iter().all(|depth| depth.active + depth.in_flight == 0).then_some(())
        })
        .await;
    }
}

/// Moves the times of the first `waves` waves of a delivery far into the past.
fn make_overdue(redis: &RedisServer, id: &str, waves: usize) {
    for wave in 0..waves {
        redis
            .ask(&format!(
                "SETRANGE versand:{{{id}}}:waves.2:0 {} \"\\x10\\x00\\x00\\x00\"",
                16 * wave
            ))
            .unwrap();
    }
    redis.ask(&format!("ZADD versand:due 1 {id}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_wave_is_held_shown_and_waits_for_a_person() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let definition = with(at(in_seconds(3600)), json!({ "grace_minutes": 30 }));
    let [to_release, to_stop, to_change] =
        [(); 3].map(|()| scheduled(client, &definition, ten_recipients()));
    let (to_release, to_stop, to_change) = (to_release.await, to_stop.await, to_change.await);
    for id in [&to_release, &to_stop, &to_change] {
        make_overdue(&redis, id, 1);
        let view = client.wait_for(id, &["held"]).await;
        assert_eq!(view["waves"]["held"], 1);
        assert_eq!(waves(client, id).await[0]["state"], "held");
    }
    let held_waves = async || {
        let text =
            reqwest::get(format!("{}/metrics", client.url)).await.unwrap().text().await.unwrap();
        text.lines().any(|line| line == "versand_waves_held 3").then_some(())
    };
    eventually("the metric for the alert shows three held waves", LIMIT, held_waves).await;
    two_passes(&app).await;
    assert_eq!(
        app.catcher.as_ref().unwrap().messages().len(),
        0,
        "nothing is sent without a person"
    );

    assert_eq!(ask(client, &to_release, "unschedule").await.0, StatusCode::CONFLICT);
    assert_eq!(ask(client, &to_release, "release").await.0, StatusCode::ACCEPTED);
    client.wait_for(&to_release, &["finished"]).await;
    assert_eq!(ask(client, &to_release, "release").await.0, StatusCode::CONFLICT);
    assert_eq!(app.catcher.as_ref().unwrap().messages().len(), 10);

    assert_eq!(ask(client, &to_stop, "stop").await.0, StatusCode::ACCEPTED);
    let stopped = client.wait_for(&to_stop, &["stopped"]).await;
    assert_eq!(stopped["counts"]["cancelled"], 10);
    assert!(client.log(&to_stop).await.iter().all(|line| line["status"] == "cancelled"));

    let put = client
        .request(reqwest::Method::PUT, &format!("/deliveries/{to_change}"))
        .json(&definition)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (put.status(), state(client, &to_change).await.as_str()),
        (StatusCode::OK, "editing")
    );
    let audit = client.get(&format!("/deliveries/{to_release}/audit")).await;
    let actions: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["create", "upload", "prepare", "prepared", "confirm", "release", "finish"]
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_wave_is_sent_within_its_grace_window_and_a_held_one_delays_no_other() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let late = scheduled(
        client,
        &with(at(in_seconds(3600)), json!({ "grace_minutes": 10_080 })),
        ten_recipients(),
    )
    .await;
    let a_minute_ago =
        (in_seconds(-60).as_second() as u32).to_be_bytes().map(|b| format!("\\x{b:02x}")).concat();
    redis.ask(&format!("SETRANGE versand:{{{late}}}:waves.2:0 0 \"{a_minute_ago}\"")).unwrap();
    redis.ask(&format!("ZADD versand:due 1 {late}")).unwrap();
    client.wait_for(&late, &["finished"]).await;

    // The first of two waves is held before the second one comes.
    let second = in_seconds(12);
    let dates: Vec<Value> =
        (0..10).map(|n| json!(if n < 5 { in_seconds(10) } else { second }.to_string())).collect();
    let schedule = json!({ "type": "per_recipient", "field": "when" });
    let id =
        scheduled(client, &with(schedule, json!({ "grace_minutes": 30 })), dated(&dates)).await;
    make_overdue(&redis, &id, 1);
    client.wait_for(&id, &["held"]).await;
    let progress = eventually("the second wave", LIMIT, async || {
        let progress = client.get(&format!("/deliveries/{id}/progress")).await;
        (progress["counts"]["sent"] == 5).then_some(progress)
    })
    .await;
    assert_eq!(
        (progress["state"].as_str(), &progress["waves"]["held"]),
        (Some("in_progress"), &json!(1))
    );
    two_passes(&app).await;
    assert_eq!(
        state(client, &id).await,
        "in_progress",
        "the delivery is not finished while a wave is held"
    );
    assert_eq!(ask(client, &id, "release").await.0, StatusCode::ACCEPTED);
    assert_eq!(client.wait_for(&id, &["finished"]).await["counts"]["sent"], 10);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_can_be_withdrawn_paused_changed_and_stopped() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let hour = with(at(in_seconds(3600)), json!({}));

    // A delivery whose confirmation is withdrawn is prepared, and can be confirmed again.
    let id = scheduled(client, &hour, ten_recipients()).await;
    assert_eq!(
        ask(client, &id, "unschedule").await,
        (StatusCode::ACCEPTED, json!({ "id": id, "state": "prepared" }))
    );
    let view = client.get(&format!("/deliveries/{id}")).await;
    assert_eq!(view["release"], Value::Null);
    let (status, answer) = client.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await;
    assert_eq!((status, answer["state"].as_str()), (StatusCode::ACCEPTED, Some("scheduled")));

    // A changed delivery must be prepared again, and its old time passes without a message.
    let soon = scheduled(client, &with(at(in_seconds(6)), json!({})), ten_recipients()).await;
    let put = client
        .request(reqwest::Method::PUT, &format!("/deliveries/{soon}"))
        .json(&hour)
        .send()
        .await
        .unwrap();
    assert_eq!((put.status(), state(client, &soon).await.as_str()), (StatusCode::OK, "editing"));
    let (status, _) = client.confirm(&soon, view["plan"]["digest"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::CONFLICT);

    // A delivery that is paused beyond its time is sent when it is resumed.
    let due = in_seconds(8);
    let paused = scheduled(client, &with(at(due), json!({})), ten_recipients()).await;
    assert_eq!(ask(client, &paused, "pause").await.1["state"], "paused");
    let copy = client
        .post(&format!("/deliveries/{paused}/copy"), &json!({ "name": "copy", "audience": true }))
        .await;
    eventually("the time of the wave has come", LIMIT, async || {
        (Timestamp::now() > due).then_some(())
    })
    .await;
    two_passes(&app).await;
    assert_eq!(app.catcher.as_ref().unwrap().messages().len(), 0);
    let progress = client.get(&format!("/deliveries/{paused}/progress")).await;
    assert_eq!((progress["state"].as_str(), &progress["counts"]), (Some("paused"), &Value::Null));
    assert_eq!(ask(client, &paused, "resume").await.1["state"], "scheduled");
    client.wait_for(&paused, &["finished"]).await;
    assert_eq!(app.catcher.as_ref().unwrap().messages().len(), 10);

    // The first delivery is stopped before its time.
    assert_eq!(ask(client, &id, "stop").await.0, StatusCode::ACCEPTED);
    client.wait_for(&id, &["stopped"]).await;

    // A copy has neither schedule nor confirmation, and needs a new preparation.
    let (status, copy) = copy;
    assert_eq!((status, copy["state"].as_str()), (StatusCode::CREATED, Some("editing")), "{copy}");
    assert_eq!(
        (&copy["definition"]["schedule"], &copy["plan"], &copy["release"]),
        (&json!({ "type": "now" }), &Value::Null, &Value::Null)
    );
    assert_eq!(copy["audience"]["recipients"], 10);
    let copy = copy["id"].as_str().unwrap();
    assert_eq!(client.prepare(copy).await["state"], "prepared");
    two_passes(&app).await;
    assert_eq!(state(client, copy).await, "prepared");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sign_offs_are_given_by_two_persons() {
    let redis = RedisServer::start();
    let both = ["prepare_deliveries", "start_deliveries", "monitoring", "administration"];
    let tokens = [
        token("ann", &both),
        token("bob", &both),
        token("carl", &both),
        token("dora", &["prepare_deliveries", "monitoring"]),
    ];
    let app = App::start(&redis, &format!("[auth]\ntokens = [{}]\n", tokens.join(", "))).await;
    let [ann, bob, carl, dora] =
        ["ann", "bob", "carl", "dora"].map(|name| app.client.with_token(name));
    let definition = with(json!({ "type": "now" }), json!({ "approvals": 2 }));
    let (id, view) = prepared(&ann, &definition, ten_recipients()).await;
    let digest = view["plan"]["digest"].as_str().unwrap().to_owned();
    let approve = async |client: &Client, digest: &str| {
        client.post(&format!("/deliveries/{id}/approve"), &json!({ "digest": digest })).await.0
    };
    let (status, problem) = ann.confirm(&id, &digest).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("second person"), "{problem}");
    assert_eq!(approve(&ann, &digest).await, StatusCode::FORBIDDEN, "the preparer may not approve");
    assert_eq!(
        approve(&dora, &digest).await,
        StatusCode::FORBIDDEN,
        "a person without the role may not approve"
    );
    assert_eq!(
        approve(&bob, &"0".repeat(64)).await,
        StatusCode::PRECONDITION_FAILED,
        "an outdated digest is refused"
    );
    assert_eq!(approve(&bob, &digest).await, StatusCode::OK);
    assert_eq!(approve(&bob, &digest).await, StatusCode::OK, "again");
    assert_eq!(approve(&carl, &digest).await, StatusCode::CONFLICT);
    assert_eq!(
        bob.confirm(&id, &digest).await.0,
        StatusCode::FORBIDDEN,
        "whoever approved may not confirm"
    );

    // Any change voids the approval.
    assert_eq!(ann.upload(&id, ten_recipients()).await.0, StatusCode::OK);
    let view = ann.prepare(&id).await;
    assert_eq!(view["approval"], Value::Null);
    let digest = view["plan"]["digest"].as_str().unwrap();
    assert_eq!(ann.confirm(&id, digest).await.0, StatusCode::CONFLICT);
    assert_eq!(approve(&bob, digest).await, StatusCode::OK);
    assert_eq!(
        ann.confirm(&id, digest).await.0,
        StatusCode::FORBIDDEN,
        "whoever wrote the content may not sign it off"
    );
    assert_eq!(carl.confirm(&id, digest).await.0, StatusCode::ACCEPTED);
    ann.wait_for(&id, &["finished"]).await;
    let audit = ann.get(&format!("/deliveries/{id}/audit")).await;
    let approvals: Vec<_> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["action"] == "approve")
        .map(|e| e["principal"].as_str().unwrap())
        .collect();
    assert_eq!(approvals, ["bob", "bob"]);
    app.stop().await;

    // The configuration may require two sign-offs, whatever a delivery says.
    let app = App::start(
        &redis,
        &format!("[send]\napprovals = 2\n[auth]\ntokens = [{}]\n", tokens.join(", ")),
    )
    .await;
    let ann = app.client.with_token("ann");
    let less = with(json!({ "type": "now" }), json!({ "approvals": 1 }));
    let (status, problem) = ann.post("/deliveries", &less).await;
    assert_eq!(
        (status, problem["field"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("settings.approvals"))
    );
    let unsaid = with(json!({ "type": "now" }), json!({}));
    let (id, view) = prepared(&ann, &unsaid, ten_recipients()).await;
    assert_eq!(
        ann.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await.0,
        StatusCode::CONFLICT
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_required_confirmation_a_preparer_with_the_role_confirms_by_preparing() {
    let redis = RedisServer::start();
    let all = ["prepare_deliveries", "start_deliveries", "monitoring", "administration"];
    let tokens = [token("ann", &["prepare_deliveries", "monitoring"]), token("bob", &all)];
    let app = App::start(&redis, &format!("[auth]\ntokens = [{}]\n", tokens.join(", "))).await;
    let [ann, client] = ["ann", "bob"].map(|name| app.client.with_token(name));
    let definition = with(at(in_seconds(4)), json!({ "request_confirmation": false }));
    let id = client.create(&definition).await;
    assert_eq!(client.upload(&id, ten_recipients()).await.0, StatusCode::OK);
    let (status, problem) = ask(&ann, &id, "prepare").await;
    assert_eq!(
        (status, problem["role"].as_str()),
        (StatusCode::FORBIDDEN, Some("start_deliveries")),
        "{problem}"
    );
    assert_eq!(ask(&client, &id, "prepare").await.0, StatusCode::PRECONDITION_REQUIRED);
    let revision = client.get(&format!("/deliveries/{id}")).await["revision"].clone();
    assert_eq!(client.prepare_revision(&id, &revision).await, StatusCode::ACCEPTED);
    let view = client.wait_for(&id, &["scheduled"]).await;
    assert_eq!(view["release"]["by"], view["plan"]["prepared_by"]);
    assert_eq!(client.wait_for(&id, &["finished"]).await["counts"]["sent"], 10);
    app.stop().await;
}

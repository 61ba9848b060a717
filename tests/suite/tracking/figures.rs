//! Tracking figures: the actions of recipients of messages that were really sent.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    app::App,
    client::audience,
    daemon::Daemon,
    redis::RedisServer,
    relay::TestRelay,
    tracking::{FIREFOX, checked_statistics, definition, export, forged, links, visit, visitor},
};

const GMAIL: &str =
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";

#[tokio::test(flavor = "multi_thread")]
async fn opens_clicks_mirror_pages_and_opt_outs_become_figures_that_agree_with_the_logs() {
    let redis = RedisServer::start();
    let app =
        App::start(&redis, "[preparation]\nchunk_size = 7\n[overrides]\ndenylist = true").await;
    let client = &app.client;
    let id = client.send(&definition(), audience(20)).await;
    client.wait_for(&id, &["finished"]).await;
    assert_eq!(
        client.get(&format!("/deliveries/{id}")).await["kpis"]["unique_opens"],
        Value::Null,
        "an unknown figure is not zero"
    );

    let mut of = Vec::new();
    for number in 0..20 {
        of.push(links(client, &id, number).await);
    }
    // Recipient 0 opens twice. 1 clicks both links. A script clicks for 2. 3 opens through Gmail.
    // Apple's proxy opens for 4. 5 looks at the mirror page. 6 opts out.
    let (status, _, body) = visit(&of[0][&'o'][0], FIREFOX).await;
    assert_eq!((status, body.starts_with("GIF89a")), (StatusCode::OK, true));
    visit(&of[0][&'o'][0], FIREFOX).await;
    assert_eq!(visit(&of[1][&'c'][0], FIREFOX).await.1, "https://shop.example/autumn?a=1&b=2");
    let (status, location, _) = visit(&of[1][&'c'][1], FIREFOX).await;
    assert_eq!(status, StatusCode::FOUND);
    assert!(location.starts_with("https://shop.example/for/"), "{location}");
    visit(&of[2][&'c'][0], "python-requests/2.32").await;
    visit(&of[3][&'o'][0], GMAIL).await;
    visit(&of[4][&'o'][0], "Mozilla/5.0").await;
    let (status, _, mirror) = visit(&of[5][&'m'][0], FIREFOX).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        mirror.contains("Dear ") && mirror.contains(&of[5][&'c'][0]),
        "the mirror page equals the message: {mirror}"
    );
    let (status, _, page) = visit(&of[6][&'u'][0], FIREFOX).await;
    assert_eq!((status, page.matches("<button").count()), (StatusCode::OK, 1));
    // Five clicks must arrive within a second. They run in parallel, as this computer may be busy.
    futures_util::future::join_all((0..5).map(|_| visit(&of[7][&'c'][0], FIREFOX))).await;
    let email = client.log(&id).await[6]["email"].as_str().unwrap().to_owned();
    let denied = format!("/denylist/{email}");
    assert_eq!(client.get(&denied).await["denylisted"], json!(false), "a GET changes nothing");
    let one_click =
        visitor().post(&of[6][&'u'][0]).body("List-Unsubscribe=One-Click").send().await.unwrap();
    assert_eq!(one_click.status(), StatusCode::OK);
    assert_eq!(client.get(&denied).await["denylisted"], json!(true));

    let computed = checked_statistics(client, &id).await;
    assert_eq!((&computed["unique_opens"], &computed["open_rate"]), (&json!(4), &json!(0.2)));
    assert_eq!((&computed["unique_clicks"], &computed["unsubscribes"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&computed["proxied_opens"], &computed["apple_opens"], &computed["machine_clicks"]),
        (&json!(1), &json!(1), &json!(2))
    );
    let log = export(client, &id, "tracking/export?format=ndjson").await;
    assert_eq!(log.iter().filter(|line| line["label"] == "burst").count(), 5);
    let links = client.get(&format!("/deliveries/{id}/links")).await;
    assert_eq!(
        (&links["items"][0]["label"], &links["items"][0]["human"]),
        (&json!("see the collection"), &json!(1))
    );
    assert_eq!(
        (&links["items"][1]["unique"], &links["items"][0]["machine"]),
        (&json!(1), &json!(6))
    );

    // The next delivery leaves out recipients who opted out. An exempt delivery does not.
    let next = client.send(&definition(), audience(20)).await;
    let view = client.wait_for(&next, &["finished"]).await;
    assert_eq!(view["plan"]["causes"], json!({ "denylisted": 1 }));
    let mut receipt = definition();
    receipt["settings"]["denylist"] = json!(false);
    let receipt = client.send(&receipt, audience(20)).await;
    assert_eq!(client.wait_for(&receipt, &["finished"]).await["plan"]["causes"], json!({}));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_links_get_a_harmless_answer_and_hits_before_the_confirmation_count_for_nothing() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[public]\nlisten = \"127.0.0.1:0\"").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(3)).await;
    client.prepare(&id).await;
    // The preview of an unconfirmed message: its links work, and nothing is recorded yet.
    let of = links(client, &id, 0).await;
    assert_eq!(visit(&of[&'c'][0], FIREFOX).await.0, StatusCode::FOUND);
    for at in [3, 8, 15] {
        let (status, _, body) = visit(&forged(&of[&'o'][0], at), FIREFOX).await;
        assert_eq!((status, body.starts_with("GIF89a")), (StatusCode::OK, true));
        let (status, location, page) = visit(&forged(&of[&'c'][0], at), FIREFOX).await;
        assert_eq!((status, location.as_str()), (StatusCode::NOT_FOUND, ""));
        assert!(page.contains("does not work"));
        let one_click = visitor().post(forged(&of[&'u'][0], at)).send().await.unwrap();
        assert_eq!(one_click.status(), StatusCode::NOT_FOUND);
    }
    // The token of one link is not valid for another.
    let token = of[&'o'][0].rsplit('/').next().unwrap();
    let crossed = of[&'u'][0].rsplit_once('/').unwrap().0.to_owned() + "/" + token;
    assert_eq!(visitor().post(&crossed).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let metrics =
        reqwest::get(format!("{}/metrics", client.url)).await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("versand_tracking_hits_total{type=\"open\",class=\"forged\"}"),
        "{metrics}"
    );
    let digest = client.get(&format!("/deliveries/{id}")).await["plan"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    client.confirm(&id, &digest).await;
    client.wait_for(&id, &["finished"]).await;
    let (_, statistics) = client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!(statistics["hits"], json!(0), "{statistics}");
    // Later hits count, though the statistics were computed before.
    visit(&of[&'c'][0], FIREFOX).await;
    let (_, statistics) = client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!(
        (&statistics["hits"], &statistics["unique_opens"]),
        (&json!(1), &json!(1)),
        "{statistics}"
    );
    // The delivery can be deleted.
    let (status, _) = crate::harness::client::answer(
        client.request(Method::DELETE, &format!("/deliveries/{id}")).send().await.unwrap(),
    )
    .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_that_was_answered_survives_a_crash_of_daemon_and_redis() {
    let mut redis = RedisServer::start();
    let relay = TestRelay::start(std::time::Duration::ZERO).await;
    let settings = format!("[redis]\nurl = \"{}\"\n{}", redis.url(), relay.settings(4));
    let mut daemon = Daemon::start(&settings).await;
    let id = daemon.client.send(&definition(), audience(50)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let mut answered = 0;
    for number in 0..50 {
        let of = links(&daemon.client, &id, number).await;
        answered += u64::from(visit(&of[&'o'][0], FIREFOX).await.0 == StatusCode::OK);
    }
    daemon.kill();
    redis.kill();
    redis.restart();
    daemon.restart().await;
    let (_, statistics) =
        daemon.client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!((&statistics["hits"], &statistics["unique_opens"]), (&json!(answered), &json!(50)));
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_daemon_computes_the_hourly_statistics_and_another_one_if_it_died() {
    let redis = RedisServer::start();
    let (app, _state) = crate::harness::app::idle(&redis, "").await;
    let (other, _other_state) = crate::harness::app::idle(&redis, "").await;
    let running = App::start(&redis, "").await;
    let id = running.client.send(&definition(), audience(5)).await;
    running.client.wait_for(&id, &["finished"]).await;
    let of = links(&running.client, &id, 0).await;
    visit(&of[&'o'][0], FIREFOX).await;
    let mut connection = crate::harness::redis::observe(&app.services().stores.redis).await;
    let mut forget = async |what: &str| {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(what).query_async(&mut connection).await.unwrap();
        for key in &keys {
            let _: i64 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
        }
        keys.len()
    };
    let statistics = async || {
        running
            .client
            .request(Method::GET, &format!("/deliveries/{id}/statistics"))
            .send()
            .await
            .unwrap()
    };
    forget("versand:statistics:*").await;
    forget(&format!("versand:{{{id}}}:statistics")).await;
    app.services().feedback.statistics.hourly_statistics().await.unwrap();
    let computed: Value = statistics().await.json().await.unwrap();
    assert_eq!((&computed["unique_opens"], &computed["hits"]), (&json!(1), &json!(1)));
    let (_, on_demand) =
        running.client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    let without_instant = |figures: &Value| {
        let mut figures = figures.clone();
        figures["computed_at"].take();
        figures
    };
    assert_eq!(
        without_instant(&computed),
        without_instant(&on_demand),
        "hourly figures equal those on demand"
    );

    // The hour is done: no other daemon computes it.
    forget(&format!("versand:{{{id}}}:statistics")).await;
    other.services().feedback.statistics.hourly_statistics().await.unwrap();
    assert_eq!(statistics().await.status(), StatusCode::CONFLICT);
    // The daemon with the lock has died, and its lock has expired.
    assert_eq!(forget("versand:statistics:*").await, 1);
    other.services().feedback.statistics.hourly_statistics().await.unwrap();
    assert_eq!(statistics().await.status(), StatusCode::OK);

    // The ratios are on the /metrics of every daemon.
    app.services().observation.ratios.observe().await;
    assert!(
        app.services()
            .observation
            .ratios
            .ratios
            .text()
            .contains(&format!("versand_delivery_open_ratio{{delivery=\"{id}\"}} 0.2\n"))
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_exclusion_removes_recipients_who_opted_out_since_the_preparation() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(10)).await;
    client.prepare(&id).await;
    let put = client.request(Method::PUT, "/denylist/USER3@example.com").send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    let digest = client.get(&format!("/deliveries/{id}")).await["plan"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    client.confirm(&id, &digest).await;
    let view = client.wait_for(&id, &["finished"]).await;
    assert_eq!((&view["counts"]["sent"], &view["counts"]["excluded"]), (&json!(9), &json!(1)));
    let log = client.log(&id).await;
    let out: Vec<&Value> = log.iter().filter(|line| line["status"] == "excluded").collect();
    assert_eq!(
        (&out[0]["email"], &out[0]["cause"]),
        (&json!("user3@example.com"), &json!("denylisted"))
    );
    let removed =
        client.request(Method::DELETE, "/denylist/user3@example.com").send().await.unwrap();
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_hit_proves_that_an_in_doubt_message_was_delivered_and_a_machine_hit_does_not() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let id = client.send(&definition(), audience(2)).await;
    client.wait_for(&id, &["finished"]).await;
    let got = [links(client, &id, 0).await, links(client, &id, 1).await];
    // Both recipients get the records that a crash would leave.
    let mut connection = app.services.stores.redis.connection();
    for number in 0..2 {
        let at = 32 + 16 * number;
        let ledger = format!("versand:{{{id}}}:ledger:0");
        let _: usize = redis::cmd("SETRANGE")
            .arg(&ledger)
            .arg(at)
            .arg(&[5u8][..])
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    for (word, by) in [("sent", -2), ("in_doubt", 2)] {
        let counts = format!("versand:{{{id}}}:counts");
        let _: i64 = redis::cmd("HINCRBY")
            .arg(counts)
            .arg(word)
            .arg(by)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    // The links of `got` are from before the doubt. A link from a preview of a recipient in doubt
    // proves nothing: a person may look at that preview to decide.
    visit(&links(client, &id, 0).await[&'o'][0], FIREFOX).await;
    assert_eq!(client.log(&id).await[0]["status"], "in_doubt");
    visit(&got[0][&'o'][0], FIREFOX).await;
    visit(&got[1][&'o'][0], "curl/8.9").await;
    let log = client.log(&id).await;
    assert_eq!((&log[0]["status"], &log[1]["status"]), (&json!("sent"), &json!("in_doubt")));
    checked_statistics(client, &id).await;
    app.stop().await;
}

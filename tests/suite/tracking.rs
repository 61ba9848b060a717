//! Tracking: what recipients do with a message that really went out, and the figures that come of it.

use std::collections::{BTreeSet, HashMap};

use reqwest::{Method, StatusCode, header, redirect::Policy};
use serde_json::{Value, json};

use crate::harness::{
    app::App,
    client::{Client, audience},
    daemon::Daemon,
    redis::RedisServer,
    relay::TestRelay,
};

pub const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const GMAIL: &str = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";

pub fn definition() -> Value {
    json!({
        "name": "Autumn",
        "sender": { "name": "The Shop", "email": "news@shop.example" },
        "content": {
            "subject": "Hello {{ name }}",
            "html": "<p>Dear {{ name }}, <a href=\"https://shop.example/autumn?a=1&amp;b=2\">see the collection</a>, \
                     <a href=\"https://shop.example/for/{{ name|urlencode }}\">yours</a> or <a href=\"{{ unsubscribe_url }}\">unsubscribe</a></p>"
        },
        "settings": { "tracking": { "mirror_link": "In the browser" } }
    })
}

/// Follows links as a mail program would, without going on.
pub fn visitor() -> reqwest::Client {
    reqwest::Client::builder().redirect(Policy::none()).build().unwrap()
}

pub async fn visit(url: &str, agent: &str) -> (StatusCode, String, String) {
    let response = visitor().get(url).header(header::USER_AGENT, agent).send().await.unwrap();
    let location = response.headers().get(header::LOCATION).map_or("", |value| value.to_str().unwrap()).to_owned();
    (response.status(), location, response.text().await.unwrap())
}

/// The link with one letter of its token changed.
pub fn forged(url: &str, at: usize) -> String {
    let (path, token) = url.rsplit_once('/').unwrap();
    let mut token = token.to_owned().into_bytes();
    token[at] = if token[at] == b'A' { b'B' } else { b'A' };
    format!("{path}/{}", String::from_utf8(token).unwrap())
}

/// The links of a recipient's message, by the letter of their path: `o`, `c` (in their order), `m`, `u`.
pub async fn links(client: &Client, id: &str, number: u64) -> HashMap<char, Vec<String>> {
    let raw = client.bytes(&format!("/deliveries/{id}/recipients/{number}/preview")).await;
    let text = String::from_utf8(raw).unwrap().replace("=\r\n", "").replace("=3D", "=");
    let html = &text[text.find("text/html").unwrap()..];
    let mut found: HashMap<char, Vec<String>> = HashMap::new();
    for (at, _) in html.match_indices("\"http://127.0.0.1") {
        let url = html[at + 1..].split('"').next().unwrap();
        let kind = url.rsplit_once('/').unwrap().0.chars().last().unwrap();
        found.entry(kind).or_default().push(url.to_owned());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_clicks_mirror_pages_and_opt_outs_become_figures_that_agree_with_the_logs() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nchunk_size = 7").await;
    let client = &app.client;
    let id = client.send(&definition(), audience(20)).await;
    client.wait_for(&id, &["finished"]).await;
    assert_eq!(client.get(&format!("/deliveries/{id}")).await["kpis"]["unique_opens"], Value::Null, "unknown is not zero");

    let mut of = Vec::new();
    for number in 0..20 {
        of.push(links(client, &id, number).await);
    }
    // 0 opens twice, 1 clicks both links, 2 by a script, 3 through Gmail, 4 by Apple, 5 looks at the mirror page, 6 opts out
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
    assert!(mirror.contains("Dear ") && mirror.contains(&of[5][&'c'][0]), "as its recipient got it: {mirror}");
    let (status, _, page) = visit(&of[6][&'u'][0], FIREFOX).await;
    assert_eq!((status, page.matches("<button").count()), (StatusCode::OK, 1));
    // five clicks within a second
    for _ in 0..5 {
        visit(&of[7][&'c'][0], FIREFOX).await;
    }
    let email = client.log(&id).await[6]["email"].as_str().unwrap().to_owned();
    let denied = format!("/denylist/{email}");
    assert_eq!(client.get(&denied).await["denylisted"], json!(false), "a GET changes nothing");
    let one_click = visitor().post(&of[6][&'u'][0]).body("List-Unsubscribe=One-Click").send().await.unwrap();
    assert_eq!(one_click.status(), StatusCode::OK);
    assert_eq!(client.get(&denied).await["denylisted"], json!(true));

    let computed = recounted(client, &id).await;
    assert_eq!((&computed["unique_opens"], &computed["open_rate"]), (&json!(4), &json!(0.2)));
    assert_eq!((&computed["unique_clicks"], &computed["unsubscribes"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&computed["proxied_opens"], &computed["apple_opens"], &computed["machine_clicks"]),
        (&json!(1), &json!(1), &json!(2))
    );
    let log = export(client, &id, "tracking/export?format=ndjson").await;
    assert_eq!(log.iter().filter(|line| line["label"] == "burst").count(), 5);
    let links = client.get(&format!("/deliveries/{id}/links")).await;
    assert_eq!((&links["items"][0]["label"], &links["items"][0]["human"]), (&json!("see the collection"), &json!(1)));
    assert_eq!((&links["items"][1]["unique"], &links["items"][0]["machine"]), (&json!(1), &json!(6)));

    // the next delivery leaves out who opted out, and an exempt one does not
    let next = client.send(&definition(), audience(20)).await;
    let view = client.wait_for(&next, &["finished"]).await;
    assert_eq!(view["plan"]["causes"], json!({ "denylisted": 1 }));
    let mut receipt = definition();
    receipt["settings"]["denylist"] = json!(false);
    let receipt = client.send(&receipt, audience(20)).await;
    assert_eq!(client.wait_for(&receipt, &["finished"]).await["plan"]["causes"], json!({}));
    app.stop().await;
}

pub async fn export(client: &Client, id: &str, what: &str) -> Vec<Value> {
    let raw = client.bytes(&format!("/deliveries/{id}/{what}")).await;
    raw.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Computes the statistics. Each of their figures, and of the KPIs, is counted anew from nothing but the exported logs.
pub async fn recounted(client: &Client, id: &str) -> Value {
    let (status, computed) = client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{computed}");
    let sending = export(client, id, "log/export?format=ndjson").await;
    compare(&computed, &sending, &export(client, id, "tracking/export?format=ndjson").await);
    let excluded = export(client, id, "exclusions/export?format=ndjson").await.len();
    let kpis = client.get(&format!("/deliveries/{id}")).await["kpis"].clone();
    assert_eq!(kpis, as_read(&kpis_of(&computed, &sending, excluded)));
    computed
}

/// As it comes out of an answer, whose ratios may be read as one digit more or less.
fn as_read(expected: &Value) -> Value {
    serde_json::from_str(&expected.to_string()).unwrap()
}

/// The statistics alone.
pub fn compare(computed: &Value, sending: &[Value], log: &[Value]) {
    assert_eq!(computed, &as_read(&statistics_of(computed, sending, log)));
}

fn rate(count: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}

/// `computed` gives what no log says: when, and how many links there are.
fn statistics_of(computed: &Value, sending: &[Value], log: &[Value]) -> Value {
    let with = |status: &'static str| sending.iter().filter(move |line| line["status"] == status);
    let sent: BTreeSet<u64> = with("sent").map(|line| line["recipient"].as_u64().unwrap()).collect();
    let who = |wanted: &dyn Fn(&Value) -> bool| -> BTreeSet<u64> {
        log.iter().filter(|line| wanted(line)).map(|line| line["recipient"].as_u64().unwrap()).collect()
    };
    let among = |all: &BTreeSet<u64>| all.intersection(&sent).count();
    let human = |line: &Value| line["class"] == "human";
    let opens = who(&|line| human(line) && ["open", "click", "mirror"].contains(&line["kind"].as_str().unwrap()));
    let clicks = who(&|line| human(line) && line["kind"] == "click");
    let raw_clicks = who(&|line| line["kind"] == "click");
    let raw_opens: BTreeSet<u64> = &(&who(&|line| line["kind"] == "open") | &raw_clicks) | &opens;
    let mirrors = among(&who(&|line| human(line) && line["kind"] == "mirror"));
    let opt_outs = among(&who(&|line| line["kind"] == "opt_out"));
    let machine = |kind: &'static str| among(&who(&|line| line["class"] == "machine" && line["kind"] == kind));
    let on_link = |number: usize| {
        let on_it = |line: &Value| line["kind"] == "click" && line["link"] == json!(number);
        let (all, by_humans) =
            log.iter().filter(|line| on_it(line)).fold((0, 0), |(all, n), l| (all + 1, n + u64::from(human(l))));
        json!({ "unique": among(&who(&|line| human(line) && on_it(line))), "human": by_humans, "machine": all - by_humans })
    };
    let mut totals = json!({});
    for line in log {
        let total = &mut totals[line["kind"].as_str().unwrap()][line["class"].as_str().unwrap()];
        *total = json!(total.as_u64().unwrap_or_default() + 1);
    }
    json!({
        "computed_at": computed["computed_at"],
        "hits": log.len(),
        "hits_beyond": computed["hits_beyond"],
        "labels": computed["labels"],
        "delivered": sent.len(),
        "failed": with("failed").count(),
        "unique_opens": among(&opens),
        "open_rate": rate(among(&opens), sent.len()),
        "unique_clicks": among(&clicks),
        "click_through_rate": rate(among(&clicks), sent.len()),
        "raw_opens": among(&raw_opens),
        "raw_open_rate": rate(among(&raw_opens), sent.len()),
        "raw_clicks": among(&raw_clicks),
        "raw_click_rate": rate(among(&raw_clicks), sent.len()),
        "unique_mirror_pages": mirrors,
        "mirror_page_rate": rate(mirrors, sent.len()),
        "unsubscribes": opt_outs,
        "unsubscribe_rate": rate(opt_outs, sent.len()),
        "proxied_opens": among(&who(&|line| line["label"] == "image_proxy")),
        "apple_opens": among(&who(&|line| line["class"] == "apple_proxy" && line["kind"] == "open")),
        "machine_opens": machine("open"),
        "machine_clicks": machine("click"),
        "opens_of_others": opens.difference(&sent).count(),
        "clicks_of_others": clicks.difference(&sent).count(),
        "totals": totals,
        "links": (0..computed["links"].as_array().unwrap().len()).map(on_link).collect::<Vec<_>>(),
    })
}

fn kpis_of(computed: &Value, sending: &[Value], excluded: usize) -> Value {
    let with = |status: &str| sending.iter().filter(|line| line["status"] == status).count();
    let (delivered, failed) = (with("sent"), with("failed"));
    let hard = sending.iter().filter(|line| line["status"] == "failed" && line["failure_type"] == "hard").count();
    let processed = delivered + failed;
    json!({
        "test": false,
        "targeted": sending.len() + excluded,
        "to_deliver": sending.len() - with("excluded"),
        "processed": processed,
        "delivered": delivered,
        "bounces_and_errors": failed,
        "delivered_rate": rate(delivered, processed),
        "bounce_and_error_rate": rate(failed, processed),
        "hard_bounce_rate": rate(hard, processed),
        "soft_bounce_rate": rate(failed - hard, processed),
        "in_doubt": with("in_doubt"),
        "unique_opens": computed["unique_opens"],
        "open_rate": computed["open_rate"],
        "unique_clicks": computed["unique_clicks"],
        "click_through_rate": computed["click_through_rate"],
        "unsubscribe_rate": computed["unsubscribe_rate"],
        "statistics_at": computed["computed_at"],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_links_get_a_harmless_answer_and_proofs_and_previews_count_for_nothing() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[public]\nlisten = \"127.0.0.1:0\"").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(3)).await;
    client.prepare(&id).await;
    // a preview of what is not sent: its links lead on, and nothing is recorded
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
    // one link's token is no other's
    let token = of[&'o'][0].rsplit('/').next().unwrap();
    let crossed = of[&'u'][0].rsplit_once('/').unwrap().0.to_owned() + "/" + token;
    assert_eq!(visitor().post(&crossed).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let metrics = reqwest::get(format!("{}/metrics", client.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("versand_tracking_hits_total{type=\"open\",class=\"forged\"}"), "{metrics}");
    let digest = client.get(&format!("/deliveries/{id}")).await["plan"]["digest"].as_str().unwrap().to_owned();
    client.confirm(&id, &digest).await;
    client.wait_for(&id, &["finished"]).await;
    let (_, statistics) = client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!(statistics["hits"], json!(0), "{statistics}");
    // and that somebody looked before does not keep what comes after from being counted
    visit(&of[&'c'][0], FIREFOX).await;
    let (_, statistics) = client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!((&statistics["hits"], &statistics["unique_opens"]), (&json!(1), &json!(1)), "{statistics}");
    // after its deletion the links are too old
    let (status, _) =
        crate::harness::client::answer(client.request(Method::DELETE, &format!("/deliveries/{id}")).send().await.unwrap()).await;
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
    let (_, statistics) = daemon.client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!((&statistics["hits"], &statistics["unique_opens"]), (&json!(answered), &json!(50)));
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hourly_statistics_are_computed_by_one_daemon_and_by_another_one_if_that_died() {
    let redis = RedisServer::start();
    let (app, _state) = crate::harness::app::idle(&redis, "").await;
    let (other, _other_state) = crate::harness::app::idle(&redis, "").await;
    let running = App::start(&redis, "").await;
    let id = running.client.send(&definition(), audience(5)).await;
    running.client.wait_for(&id, &["finished"]).await;
    let of = links(&running.client, &id, 0).await;
    visit(&of[&'o'][0], FIREFOX).await;
    let mut connection = app.context().store.connection();
    let mut forget = async |what: &str| {
        let keys: Vec<String> = redis::cmd("KEYS").arg(what).query_async(&mut connection).await.unwrap();
        for key in &keys {
            let _: i64 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
        }
        keys.len()
    };
    let statistics = async || running.client.request(Method::GET, &format!("/deliveries/{id}/statistics")).send().await.unwrap();
    forget("versand:statistics:*").await;
    forget(&format!("versand:{{{id}}}:statistics")).await;
    app.context().hourly_statistics().await.unwrap();
    let computed: Value = statistics().await.json().await.unwrap();
    assert_eq!((&computed["unique_opens"], &computed["hits"]), (&json!(1), &json!(1)));
    let (_, on_demand) = running.client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    let without_instant = |figures: &Value| {
        let mut figures = figures.clone();
        figures["computed_at"].take();
        figures
    };
    assert_eq!(without_instant(&computed), without_instant(&on_demand), "hourly and on demand agree");

    // the hour is done: nobody else computes it
    forget(&format!("versand:{{{id}}}:statistics")).await;
    other.context().hourly_statistics().await.unwrap();
    assert_eq!(statistics().await.status(), StatusCode::CONFLICT);
    // who had it has died, and its lock has expired
    assert_eq!(forget("versand:statistics:*").await, 1);
    other.context().hourly_statistics().await.unwrap();
    assert_eq!(statistics().await.status(), StatusCode::OK);

    // the ratios are on every replica's /metrics
    app.context().observe_ratios().await;
    assert!(app.context().ratios.text().contains(&format!("versand_delivery_open_ratio{{delivery=\"{id}\"}} 0.2\n")));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opts_out_after_the_preparation_is_taken_out_at_the_release() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(10)).await;
    client.prepare(&id).await;
    let put = client.request(Method::PUT, "/denylist/USER3@example.com").send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    let digest = client.get(&format!("/deliveries/{id}")).await["plan"]["digest"].as_str().unwrap().to_owned();
    client.confirm(&id, &digest).await;
    let view = client.wait_for(&id, &["finished"]).await;
    assert_eq!((&view["counts"]["sent"], &view["counts"]["excluded"]), (&json!(9), &json!(1)));
    let log = client.log(&id).await;
    let out: Vec<&Value> = log.iter().filter(|line| line["status"] == "excluded").collect();
    assert_eq!((&out[0]["email"], &out[0]["cause"]), (&json!("user3@example.com"), &json!("denylisted")));
    let removed = client.request(Method::DELETE, "/denylist/user3@example.com").send().await.unwrap();
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_hit_proves_that_a_recipient_in_doubt_was_sent_to_and_a_machine_s_does_not() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let id = client.send(&definition(), audience(2)).await;
    client.wait_for(&id, &["finished"]).await;
    let got = [links(client, &id, 0).await, links(client, &id, 1).await];
    // as a crash would have left both
    let mut connection = app.context.store.connection();
    for number in 0..2 {
        let at = 32 + 16 * number;
        let ledger = format!("versand:{{{id}}}:ledger:0");
        let _: usize = redis::cmd("SETRANGE").arg(&ledger).arg(at).arg(&[5u8][..]).query_async(&mut connection).await.unwrap();
    }
    for (word, by) in [("sent", -2), ("in_doubt", 2)] {
        let counts = format!("versand:{{{id}}}:counts");
        let _: i64 = redis::cmd("HINCRBY").arg(counts).arg(word).arg(by).query_async(&mut connection).await.unwrap();
    }
    // who looks at a preview to decide is not the recipient
    visit(&links(client, &id, 0).await[&'o'][0], FIREFOX).await;
    assert_eq!(client.log(&id).await[0]["status"], "in_doubt");
    visit(&got[0][&'o'][0], FIREFOX).await;
    visit(&got[1][&'o'][0], "curl/8.9").await;
    let log = client.log(&id).await;
    assert_eq!((&log[0]["status"], &log[1]["status"]), (&json!("sent"), &json!("in_doubt")));
    recounted(client, &id).await;
    app.stop().await;
}

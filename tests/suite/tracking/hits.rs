//! Requests of strangers to the public listener: classes, addresses, lifetimes and newer rules.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use jiff::{Timestamp, ToSpan};
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use versand::{
    domain::{delivery::DeliveryId, tracking::BUILT_IN},
    store::{CommitOutcome, DeliveryChange},
};

use crate::harness::{
    app::App,
    client::audience,
    daemon::Daemon,
    direct_calls::{aged, connection},
    redis::RedisServer,
    relay::TestRelay,
    tracking::{FIREFOX, checked_statistics, definition, export, forged, links, visit, visitor},
};

const TARGET: &str = "https://shop.example/autumn?a=1&b=2";
const ELSEWHERE: &str = "https://shop.example/gone?from=mail";

async fn sent(app: &App, definition: &Value, ndjson: String) -> String {
    let id = app.client.send(definition, ndjson).await;
    app.client.wait_for(&id, &["finished"]).await;
    id
}

/// A browser's request with one more header.
async fn ask(method: Method, url: &str, (name, value): (&str, &str)) -> Response {
    visitor()
        .request(method, url)
        .header(header::USER_AGENT, FIREFOX)
        .header(name, value)
        .send()
        .await
        .unwrap()
}

/// The status, and the target of the redirect.
async fn opt_out(url: &str) -> (StatusCode, Option<String>) {
    let answer = visitor().post(url).body("List-Unsubscribe=One-Click").send().await.unwrap();
    (
        answer.status(),
        answer.headers().get(header::LOCATION).map(|value| value.to_str().unwrap().to_owned()),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_machines_from_humans_by_their_requests() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(&app, &definition(), audience(3)).await;
    let of = links(&app.client, &id, 0).await;
    let (open, click) = (&of[&'o'][0], &of[&'c'][0]);
    let nothing = ("Accept", "*/*");
    let looked = ask(Method::HEAD, click, nothing).await;
    assert_eq!(
        (looked.status(), looked.headers()[header::LOCATION].to_str().unwrap()),
        (StatusCode::FOUND, TARGET)
    );
    assert_eq!(ask(Method::HEAD, open, nothing).await.status(), StatusCode::OK);
    for early in [
        ("Sec-Purpose", "prefetch;prerender"),
        ("Purpose", "prefetch"),
        ("X-Purpose", "preview"),
        ("X-Moz", "prefetch"),
    ] {
        assert_eq!(ask(Method::GET, click, early).await.status(), StatusCode::FOUND, "{early:?}");
    }
    // No proxy is trusted to give this address.
    ask(Method::GET, open, ("X-Forwarded-For", "198.51.100.7")).await;

    let log = export(&app.client, &id, "tracking/export?format=ndjson").await;
    let seen = |line: &Value| {
        ["kind", "label", "head", "prefetch", "address"].map(|field| line[field].clone())
    };
    let expected = |kind: &str, label: &str| {
        [
            json!(kind),
            json!(label),
            json!(label == "head"),
            json!(label == "prefetch"),
            json!("127.0.0.1"),
        ]
    };
    let mut lines = vec![expected("click", "head"), expected("open", "head")];
    lines.extend(vec![expected("click", "prefetch"); 4]);
    lines.push(expected("open", "human"));
    assert_eq!(log.iter().map(seen).collect::<Vec<_>>(), lines);
    let figures = checked_statistics(&app.client, &id).await;
    let found = ["unique_opens", "unique_clicks", "machine_opens", "machine_clicks"]
        .map(|name| figures[name].clone());
    assert_eq!(found, [1, 0, 1, 1].map(|n| json!(n)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_address_that_a_trusted_proxy_names() {
    let redis = RedisServer::start();
    let app =
        App::start(&redis, "[public]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]").await;
    let id = sent(&app, &definition(), audience(1)).await;
    let open = &links(&app.client, &id, 0).await[&'o'][0];
    for forwarded in ["203.0.113.9, 198.51.100.7, 10.2.2.2", "2001:db8::7"] {
        ask(Method::GET, open, ("X-Forwarded-For", forwarded)).await;
    }
    let log = export(&app.client, &id, "tracking/export?format=ndjson").await;
    assert_eq!(
        log.iter().map(|line| &line["address"]).collect::<Vec<_>>(),
        ["198.51.100.7", "2001:db8::7"]
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_cached_or_sends_a_referrer() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(&app, &definition(), audience(1)).await;
    let of = links(&app.client, &id, 0).await;
    let mut asked: Vec<(Method, String)> =
        ['o', 'c', 'm', 'u'].map(|kind| (Method::GET, of[&kind][0].clone())).into();
    asked.extend([(Method::POST, of[&'u'][0].clone()), (Method::GET, forged(&of[&'c'][0], 8))]);
    for (method, url) in asked {
        let answer = ask(method.clone(), &url, ("Accept", "*/*")).await;
        let of = |name: header::HeaderName| {
            answer.headers().get(name).map(|value| value.to_str().unwrap())
        };
        assert_eq!(of(header::CACHE_CONTROL), Some("no-store"), "{method} {url}");
        assert_eq!(of(header::SET_COOKIE), None);
        assert_eq!(of(header::REFERRER_POLICY), Some("no-referrer"), "{method} {url}");
        assert_eq!(of(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"), "{method} {url}");
        let policy = of(header::CONTENT_SECURITY_POLICY).expect("a policy");
        for rule in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{method} {url}: {policy}");
        }
        assert!(!policy.contains("script-src") && !policy.contains("allow-scripts"), "{policy}");
    }
    app.stop().await;
}

/// Moves the confirmation of a delivery `confirmed` hours, and its last wave `due` hours, into the
/// past.
async fn set_confirmed(app: &App, id: &str, confirmed: i64, due: Option<i64>) {
    let (id, stores): (DeliveryId, _) = (id.parse().unwrap(), &app.services.stores);
    let delivery = stores.deliveries.delivery(&id).await.unwrap().unwrap();
    let (mut document, now) = (delivery.document.clone(), Timestamp::now());
    document.confirmation.as_mut().unwrap().confirmed_at = now - confirmed.hours();
    document.plan.as_mut().unwrap().last_due = due.map(|due| now - due.hours());
    let change = DeliveryChange {
        id: &id,
        revision: delivery.revision,
        state: delivery.state,
        document: &document,
        entry: None,
        once: &[],
    };
    assert!(matches!(stores.deliveries.commit(&change).await.unwrap(), CommitOutcome::Done { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_expire_some_days_after_the_last_wave_and_opt_outs_do_not() {
    let redis = RedisServer::start();
    let app =
        App::start(&redis, &format!("[public]\nlink_days = 2\nsubstitution_url = \"{ELSEWHERE}\"\n[overrides]\ndenylist = true"))
            .await;
    let mut definition = definition();
    definition["settings"]["denylist"] = json!(false);
    for (confirmed, due, works) in [
        (47, None, true),
        (49, None, false),
        (1000, Some(47), true),
        (1000, Some(49), false),
        (1000, Some(-1000), true),
    ] {
        let id = sent(&app, &definition, audience(1)).await;
        set_confirmed(&app, &id, confirmed, due).await;
        let of = links(&app.client, &id, 0).await;
        let clicked = visit(&of[&'c'][0], FIREFOX).await;
        let target = if works { TARGET } else { ELSEWHERE };
        assert_eq!(
            (clicked.0, clicked.1.as_str()),
            (StatusCode::FOUND, target),
            "{confirmed} {due:?}"
        );
        let opened = visit(&of[&'o'][0], FIREFOX).await;
        assert_eq!((opened.0, opened.2.starts_with("GIF89a")), (StatusCode::OK, true));
        let page = visit(&of[&'m'][0], FIREFOX).await;
        let expected = if works { (StatusCode::OK, "") } else { (StatusCode::FOUND, ELSEWHERE) };
        assert_eq!((page.0, page.1.as_str()), expected);
        assert_eq!(visit(&of[&'u'][0], FIREFOX).await.0, StatusCode::OK);
        assert_eq!(opt_out(&of[&'u'][0]).await, (StatusCode::OK, None));
        let figures = checked_statistics(&app.client, &id).await;
        assert_eq!(
            (&figures["hits"], &figures["unsubscribes"]),
            (&json!(if works { 4 } else { 1 }), &json!(1))
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_in_one_click_that_fails_is_not_redirected() {
    let redis = RedisServer::start();
    let app = App::start(&redis, &format!("[public]\nsubstitution_url = \"{ELSEWHERE}\"")).await;
    let id = sent(&app, &definition(), audience(1)).await;
    let deleted = sent(&app, &definition(), audience(1)).await;
    let of_deleted = links(&app.client, &deleted, 0).await[&'u'][0].clone();
    let answer =
        app.client.request(Method::DELETE, &format!("/deliveries/{deleted}")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(opt_out(&of_deleted).await, (StatusCode::OK, None));
    let url = forged(&links(&app.client, &id, 0).await[&'u'][0], 15);
    let failed = opt_out(&url).await;
    assert_eq!(failed, (StatusCode::NOT_FOUND, None), "a redirect would look like success");
    let looked = visit(&url, FIREFOX).await;
    assert_eq!((looked.0, looked.1.as_str()), (StatusCode::FOUND, ELSEWHERE));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_recipients_that_were_not_sent_to_count_in_no_rate() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let others: String = ["refuse0", "full0"]
        .map(|name| format!("{{\"email\":\"{name}@example.com\",\"name\":\"R\"}}\n"))
        .concat();
    let id = sent(&app, &definition(), audience(3) + &others + "{\"email\":\"nobody\"}\n").await;
    for (number, kind) in [(0, 'o'), (3, 'c'), (4, 'o')] {
        visit(&links(&app.client, &id, number).await[&kind][0], FIREFOX).await;
    }
    let figures = checked_statistics(&app.client, &id).await;
    assert_eq!((&figures["opens_of_others"], &figures["clicks_of_others"]), (&json!(2), &json!(1)));
    assert_eq!(
        (&figures["unique_opens"], &figures["unique_clicks"], &figures["failed"]),
        (&json!(1), &json!(0), &json!(2))
    );
    let kpis = app.client.get(&format!("/deliveries/{id}")).await["kpis"].clone();
    let rates = ["delivered_rate", "bounce_and_error_rate", "hard_bounce_rate", "soft_bounce_rate"]
        .map(|name| kpis[name].clone());
    assert_eq!(rates, [0.6, 0.4, 0.2, 0.2].map(|rate| json!(rate)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_and_clicks_are_unknown_without_an_html_part() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let mut definition = definition();
    definition["content"] = json!({ "subject": "Hello", "text": "https://shop.example/autumn or unsubscribe: {{ unsubscribe_url }}" });
    let id = sent(&app, &definition, audience(2)).await;
    let (_, figures) = app.client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!(
        (&figures["delivered"], &figures["unsubscribe_rate"]),
        (&json!(2), &json!(0.0)),
        "{figures}"
    );
    let kpis = app.client.get(&format!("/deliveries/{id}")).await["kpis"].clone();
    for name in ["unique_opens", "open_rate", "unique_clicks", "click_through_rate"] {
        assert_eq!((&figures[name], &kpis[name]), (&Value::Null, &Value::Null), "{name}");
    }
    app.stop().await;
}

/// The built-in rules, and more.
fn write_rules(file: &Path, version: i64, more: &[(&str, &str)]) {
    let mut rules: toml::Table = BUILT_IN.parse().unwrap();
    rules.insert("version".into(), version.into());
    for (name, value) in more {
        rules[*name].as_array_mut().unwrap().push((*value).into());
    }
    std::fs::write(file, rules.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_rules_relabel_earlier_hits_by_route_and_by_command() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let [rules, token] = ["rules.toml", "token"].map(|name| folder.path().join(name));
    let settings = format!(
        "[tracking]\nrules_file = {rules:?}\n[public]\ntrusted_proxies = [\"127.0.0.1\"]\n[retention]\nlogs_days = 1"
    );
    write_rules(&rules, 900, &[]);
    let app = App::start(&redis, &settings).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = sent(&app, &definition(), audience(4)).await;
        visit(&links(&app.client, &id, 0).await[&'c'][0], "ShopScanner/1.0").await;
        let open = links(&app.client, &id, 1).await[&'o'][0].clone();
        ask(Method::GET, &open, ("X-Forwarded-For", "198.51.100.7")).await;
        visit(&links(&app.client, &id, 2).await[&'o'][0], FIREFOX).await;
        ids.push(id);
    }
    let unreleased = app.client.create(&definition()).await;
    app.stop().await;

    write_rules(&rules, 901, &[("agents", "shopscanner"), ("machine_networks", "198.51.100.0/24")]);
    let app = App::start(&redis, &settings).await;
    let of = |figures: &Value| {
        ["unique_opens", "unique_clicks", "machine_opens", "machine_clicks"]
            .map(|name| figures[name].as_u64().unwrap())
    };
    for id in &ids {
        assert_eq!(
            of(&checked_statistics(&app.client, id).await),
            [3, 1, 0, 0],
            "labels stay until somebody asks"
        );
    }
    let (status, relabelled) =
        app.client.post(&format!("/deliveries/{}/relabel", ids[0]), &json!({})).await;
    assert_eq!((status, of(&relabelled)), (StatusCode::OK, [1, 0, 1, 1]));
    assert_eq!(of(&checked_statistics(&app.client, &ids[0]).await), [1, 0, 1, 1]);
    let log = export(&app.client, &ids[0], "tracking/export?format=ndjson").await;
    let labels: Vec<_> = log
        .iter()
        .map(|line| (line["label"].as_str().unwrap(), line["rules"].as_u64().unwrap()))
        .collect();
    assert_eq!(labels, [("agent", 901), ("network", 901), ("human", 901)]);

    // One log is removed, and one delivery has no log yet. All others are relabelled.
    aged(&app, &ids[2], 25).await;
    app.services.journey.operate.retention.run().await;
    std::fs::write(&token, &app.client.token).unwrap();
    let relabel = async |which: &str| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
        command.args(["relabel", which, "--url", &app.client.url, "--token-file"]).arg(&token);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let all = relabel("all").await;
    assert!(all.status.success(), "{all:?}");
    let output = String::from_utf8(all.stdout).unwrap();
    assert!(!output.contains(ids[2].as_str()), "{output}");
    assert!(output.contains(&format!("{unreleased} 409 Conflict")), "{output}");
    for (id, is_told) in [(&ids[0], true), (&ids[1], true), (&ids[2], false), (&unreleased, false)]
    {
        assert_eq!(
            output.contains(&format!("{id} 3 hits, 1 unique opens, 0 unique clicks")),
            is_told,
            "{output}"
        );
    }
    assert_eq!(
        of(&app.client.get(&format!("/deliveries/{}/statistics", ids[1])).await),
        [1, 0, 1, 1]
    );
    assert_eq!(
        of(&app.client.get(&format!("/deliveries/{}/statistics", ids[2])).await),
        [3, 1, 0, 0],
        "the figures are frozen"
    );
    let refused = relabel(&ids[2]).await;
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stdout).contains("410"),
        "{refused:?}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_called_endlessly_fills_no_log_and_hides_no_click() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(&app, &definition(), audience(2)).await;
    let of = links(&app.client, &id, 0).await;
    let client = visitor();
    for _ in 0..11 {
        let calls =
            (0..100).map(|_| client.get(&of[&'o'][0]).header(header::USER_AGENT, FIREFOX).send());
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
    }
    visit(&of[&'c'][0], FIREFOX).await;
    let log = export(&app.client, &id, "tracking/export?format=ndjson").await;
    assert_eq!(log.len(), 1001);
    let computed = checked_statistics(&app.client, &id).await;
    assert_eq!((&computed["hits_beyond"], &computed["unique_clicks"]), (&json!(100), &json!(1)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_path_takes_its_methods_and_every_spelling_of_a_token() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(4), redis.url())).await;
    let id = daemon.client.send(&definition(), audience(3)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let of = links(&daemon.client, &id, 0).await;
    let [open, click, opt_out] = ['o', 'c', 'u'].map(|kind| of[&kind][0].clone());
    let nothing = ("Accept", "*/*");
    for (method, url, allowed) in [
        (Method::PUT, &open, "GET,HEAD"),
        (Method::POST, &click, "GET,HEAD"),
        (Method::DELETE, &opt_out, "GET,HEAD,POST"),
    ] {
        let answer = ask(method, url, nothing).await;
        assert_eq!(
            (answer.status(), &answer.headers()[header::ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &allowed.parse().unwrap())
        );
    }
    let (base, token) = open.split_once("/o/").unwrap();
    for path in ["", "/", "/o", "/o/", "/x/abc", "/o/a/b", "//o/abc"] {
        assert_eq!(
            ask(Method::GET, &format!("{base}{path}"), nothing).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let head = ask(Method::HEAD, &open, nothing).await;
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "42");
    assert_eq!(head.bytes().await.unwrap().len(), 0);
    let escaped: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(
        ask(Method::GET, &format!("{base}/o/{escaped}"), nothing)
            .await
            .bytes()
            .await
            .unwrap()
            .len(),
        42
    );
    // The body of a POST does not matter.
    let client = visitor();
    for _ in 0..3 {
        let answer = client.post(&opt_out).body("x".repeat(100_000)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let log = export(&daemon.client, &id, "tracking/export?format=ndjson").await;
    assert_eq!(
        log.iter().map(|line| line["kind"].as_str().unwrap()).collect::<Vec<_>>(),
        ["open", "open", "opt_out", "opt_out", "opt_out"]
    );
    for (route, method, status, times) in [
        ("/o/{token}", "GET", 200, 1.0),
        ("/o/{token}", "other", 200, 1.0),
        ("/o/{token}", "PUT", 405, 1.0),
        ("/u/{token}", "POST", 200, 3.0),
        ("none", "GET", 404, 7.0),
    ] {
        let series = format!(
            "versand_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}"
        );
        assert_eq!(daemon.series(&series).await, Some(times), "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_that_cannot_be_recorded_is_counted_and_answered_with_an_error() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(4), redis.url())).await;
    let id = daemon.client.send(&definition(), audience(3)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let of = links(&daemon.client, &id, 0).await;
    let mut connection = connection(&redis).await;
    let mut memory = async |bytes: u64| {
        let _: () = redis::cmd("CONFIG")
            .arg("SET")
            .arg("maxmemory")
            .arg(bytes)
            .query_async(&mut connection)
            .await
            .unwrap();
    };
    memory(1).await;
    for (kind, word) in [('o', "open"), ('c', "click"), ('u', "opt_out")] {
        let method = if kind == 'u' { Method::POST } else { Method::GET };
        let answer = ask(method, &of[&kind][0], ("Accept", "*/*")).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{word}");
        assert!(
            answer.headers().contains_key(header::RETRY_AFTER)
                && !answer.headers().contains_key(header::LOCATION)
        );
        let series = format!("versand_tracking_hits_total{{type=\"{word}\",class=\"unrecorded\"}}");
        assert_eq!(daemon.series(&series).await, Some(1.0), "{series}");
    }
    memory(0).await;
    assert_eq!(visit(&of[&'c'][0], FIREFOX).await.1, TARGET);
    let log = export(&daemon.client, &id, "tracking/export?format=ndjson").await;
    assert_eq!(
        log.iter().map(|line| line["kind"].as_str().unwrap()).collect::<Vec<_>>(),
        ["click"]
    );
}

//! Reports on a delivery: previews, logs, exports, events.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::harness::{
    LIMIT,
    app::App,
    client::{audience, definition},
    people::{problem, start},
    redis::RedisServer,
};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Recipients of many kinds: sent, refused, deferred, with unusual names. Three each are excluded
/// as duplicate, as invalid and as empty.
fn varied_delivery() -> String {
    let mut lines = audience(40);
    for i in 0..3 {
        lines += &format!("{{\"email\":\"refuse{i}@example.com\",\"name\":\"R, \\\"{i}\\\"\"}}\n");
        lines += &format!(
            "{{\"email\":\"defer{i}@example.com\",\"name\":\"例え\"}}\n{{\"email\":\"USER{i}@Example.com\"}}\n"
        );
        lines += &format!("{{\"email\":\"nobody, \\\"{i}\\\"\"}}\n{{\"email\":null}}\n\n");
    }
    lines + "{\"email\":\"=cmd@example.com\",\"name\":\"=1+1\"}\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preview_equals_the_sent_message_byte_for_byte() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 7").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, varied_delivery()).await;
    let view = client.prepare(&id).await;
    let get = async |number: u64, query: &str| {
        let path = format!("/deliveries/{id}/recipients/{number}/preview{query}");
        let response = client.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"message/rfc822".parse().unwrap())
        );
        let of = |name| response.headers()[name].to_str().unwrap().to_owned();
        (of("versand-date"), of("versand-date-assumed"), response.bytes().await.unwrap().to_vec())
    };
    let (date, assumed, _) = get(3, "").await;
    let age = jiff::Timestamp::now().duration_since(date.parse().unwrap());
    assert!(assumed == "true" && age < jiff::SignedDuration::from_secs(120), "{date}");
    let (date, assumed, message) = get(3, "?date=2031-02-03T04:05:06%2B01:00").await;
    assert_eq!((date.as_str(), assumed.as_str()), ("2031-02-03T03:05:06Z", "true"));
    assert!(
        text(message.clone()).contains("\r\nDate: Mon, 3 Feb 2031 03:05:06 +0000\r\n"),
        "{}",
        text(message)
    );
    assert_eq!(get(3, "?date=2031-02-03T03:05:06Z").await.2, message);

    client.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await;
    client.wait_for(&id, &["finished"]).await;
    let waves = client.get(&format!("/deliveries/{id}/waves")).await;
    let released_at = waves["items"][0]["released_at"].as_str().unwrap();
    let caught: BTreeMap<String, Vec<u8>> = app
        .catcher
        .as_ref()
        .unwrap()
        .messages()
        .iter()
        .map(|m| (m.to[0].clone(), m.bytes.clone()))
        .collect();
    let log = client.log(&id).await;
    assert_eq!(log.len(), 47);
    let mut compared = 0;
    for line in &log {
        let (date, assumed, message) =
            get(line["recipient"].as_u64().unwrap(), "?date=2031-02-03T03:05:06Z").await;
        assert_eq!((date.as_str(), assumed.as_str()), (released_at, "false"));
        if line["status"] == "sent" {
            let sent = &caught[line["email"].as_str().unwrap()];
            assert_eq!(text(message), text(sent.clone()), "{line}");
            compared += 1;
        }
    }
    assert_eq!((compared, caught.len()), (44, 44));
    let path = format!("/deliveries/{id}/recipients/47/preview");
    problem(client.request(Method::GET, &path).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    app.stop().await;
}

/// All pages of a log in one list.
async fn pages(app: &App, path: &str, limit: usize, query: &str) -> Vec<Value> {
    let (mut all, mut from) = (Vec::new(), json!(0));
    loop {
        let page = app.client.get(&format!("{path}?from={from}&limit={limit}{query}")).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit, "{page}");
        all.extend(items.iter().cloned());
        if page["next"].is_null() {
            return all;
        }
        assert_eq!(items.len(), limit, "only the last page is not full");
        assert!(page["next"].as_u64() > from.as_u64(), "{page}");
        from = page["next"].clone();
    }
}

/// The rows of a CSV text, each as its cells by column name.
fn table(csv: &str) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect()
}

/// The row of a line: a text that would begin a formula has an apostrophe before it.
fn row(line: &Value) -> BTreeMap<String, String> {
    let plain = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with('=') => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    line.as_object().unwrap().iter().map(|(name, value)| (name.clone(), plain(value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_exports_of_the_logs_agree() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 7\n[send]\nkeep_replies = \"all\"").await;
    let client = &app.client;
    let id = client.send(&definition(), varied_delivery()).await;
    client.wait_for(&id, &["finished"]).await;
    for log in ["log", "exclusions"] {
        let path = format!("/deliveries/{id}/{log}");
        let export = async |format: &str| {
            let response = client
                .request(Method::GET, &format!("{path}/export?format={format}"))
                .send()
                .await
                .unwrap();
            let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
            (kind, response.text().await.unwrap())
        };
        let (kind, ndjson) = export("ndjson").await;
        assert_eq!(kind, "application/x-ndjson");
        let lines: Vec<Value> =
            ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), if log == "log" { 47 } else { 9 });
        for limit in [1, 6, 7, 8, 1000] {
            assert_eq!(pages(&app, &path, limit, "").await, lines, "{log} in pages of {limit}");
        }
        let (kind, csv) = export("csv").await;
        assert_eq!(kind, "text/csv; charset=utf-8; header=present");
        assert_eq!(table(&csv), lines.iter().map(row).collect::<Vec<_>>());
    }
    let log = client.log(&id).await;
    let numbers: Vec<u64> = log.iter().map(|line| line["recipient"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..47).collect::<Vec<_>>());
    for status in
        ["pending", "attempting", "deferred", "sent", "failed", "in_doubt", "cancelled", "excluded"]
    {
        let expected: Vec<&Value> = log.iter().filter(|line| line["status"] == status).collect();
        let got =
            pages(&app, &format!("/deliveries/{id}/log"), 2, &format!("&status={status}")).await;
        assert_eq!(got.iter().collect::<Vec<_>>(), expected, "{status}");
    }
    let deferred = log.iter().find(|line| line["email"] == "defer1@example.com").unwrap();
    assert_eq!(
        (&deferred["attempts"], &deferred["status"], &deferred["due"]),
        (&json!(2), &json!("sent"), &Value::Null)
    );
    assert!(
        log.iter().all(|line| line["at"].as_str().is_some() && line["reply"].as_str().is_some()),
        "all replies are kept"
    );

    let causes: Vec<Value> = client.get("/exclusion-causes").await.as_array().unwrap().clone();
    assert!(causes.iter().all(|cause| cause["description"].as_str().unwrap().ends_with('.')));
    let view = client.get(&format!("/deliveries/{id}")).await;
    for (cause, n) in view["plan"]["causes"].as_object().unwrap() {
        assert_eq!(n, 3, "{cause}");
        assert!(causes.iter().any(|known| known["cause"] == *cause), "{cause}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_exist_before_the_start_and_empty_ones_have_their_header() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    let csv = async |log: &str| {
        text(client.bytes(&format!("/deliveries/{id}/{log}/export?format=csv")).await)
    };
    for log in ["log", "exclusions"] {
        assert_eq!(
            client.get(&format!("/deliveries/{id}/{log}")).await,
            json!({ "items": [], "next": null })
        );
        assert_eq!(
            text(client.bytes(&format!("/deliveries/{id}/{log}/export?format=ndjson")).await),
            ""
        );
        assert_eq!(csv(log).await.lines().count(), 1, "the CSV has a header");
    }
    assert_eq!(csv("exclusions").await, "line,email,cause\n");
    client.upload(&id, audience(3)).await;
    client.prepare(&id).await;
    let log = client.log(&id).await;
    assert!(
        log.len() == 3
            && log.iter().all(|line| line["status"] == "pending" && line["at"].is_null()),
        "{log:?}"
    );
    assert_eq!(csv("exclusions").await, "line,email,cause\n");
    let full = csv("log").await;
    assert!(
        full.lines().count() == 4 && full.starts_with("recipient,line,email,status,attempts,"),
        "{full}"
    );
    app.stop().await;
}

/// Server-sent events up to their end, as JSON. Calls `on_first` when the first ones come.
async fn events(app: &App, id: &str, on_first: impl FnOnce()) -> Vec<Value> {
    let mut response =
        app.client.request(Method::GET, &format!("/deliveries/{id}/events")).send().await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let read = async {
        let mut bytes = response.chunk().await.unwrap().unwrap().to_vec();
        on_first();
        while let Some(chunk) = response.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).unwrap()
    };
    let stream = tokio::time::timeout(LIMIT, read).await.unwrap();
    let blocks = stream.split("\n\n").filter(|block| block.starts_with("event:"));
    let parsed = blocks.map(|block| {
        let event =
            block.strip_prefix("event: progress\ndata: ").unwrap_or_else(|| panic!("{block}"));
        serde_json::from_str(event).unwrap()
    });
    parsed.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_follow_a_delivery_to_its_end_and_never_go_back() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 50\n[relay]\nconnections = 2").await;
    app.catcher.as_ref().unwrap().change_rules(|rules| rules.delay = Duration::from_millis(3));
    let id = app.client.create(&definition()).await;
    app.client.upload(&id, audience(500)).await;
    let (begun, first) = tokio::sync::oneshot::channel();
    let work = async {
        first.await.unwrap();
        let view = app.client.prepare(&id).await;
        app.client.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await;
    };
    let (seen, ()) = tokio::join!(events(&app, &id, || begun.send(()).unwrap()), work);
    assert!(seen.len() >= 5, "{seen:?}");
    assert_eq!(
        (&seen[0]["state"], &seen[seen.len() - 1]["state"]),
        (&json!("editing"), &json!("finished"))
    );
    let order = ["editing", "preparing", "prepared", "start_pending", "in_progress", "finished"];
    let (mut place, mut settled) = (0, 0);
    for event in &seen {
        let at = order.iter().position(|state| event["state"] == *state).unwrap();
        assert!(at >= place, "{seen:?}");
        place = at;
        let counts = &event["counts"];
        if let Some(counts) = counts.as_object() {
            let of = |name: &str| counts[name].as_u64().unwrap();
            assert!(of("sent") >= settled, "{seen:?}");
            settled = of("sent");
            let all = [
                "pending",
                "attempting",
                "deferred",
                "sent",
                "failed",
                "in_doubt",
                "cancelled",
                "excluded",
            ];
            assert_eq!(
                all.iter().map(|name| of(name)).sum::<u64>(),
                500,
                "every event accounts for all recipients"
            );
        }
    }
    assert_eq!(settled, 500);
    assert_eq!(
        events(&app, &id, || ()).await,
        [app.client.get(&format!("/deliveries/{id}/progress")).await],
        "a delivery that has ended gives one event"
    );
    app.stop().await;
}

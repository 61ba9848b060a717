//! Visitors who follow links, and tracking figures counted again from the logs alone.

use std::collections::{BTreeSet, HashMap};

use reqwest::{StatusCode, header, redirect::Policy};
use serde_json::{Value, json};

use crate::harness::client::Client;

pub const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

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

/// A client that opens links as a mail program would, and does not follow redirects.
pub fn visitor() -> reqwest::Client {
    reqwest::Client::builder().redirect(Policy::none()).build().unwrap()
}

pub async fn visit(url: &str, agent: &str) -> (StatusCode, String, String) {
    let response = visitor().get(url).header(header::USER_AGENT, agent).send().await.unwrap();
    let location = response
        .headers()
        .get(header::LOCATION)
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    (response.status(), location, response.text().await.unwrap())
}

/// The link with one letter of its token changed.
pub fn forged(url: &str, at: usize) -> String {
    let (path, token) = url.rsplit_once('/').unwrap();
    let mut token = token.to_owned().into_bytes();
    token[at] = if token[at] == b'A' { b'B' } else { b'A' };
    format!("{path}/{}", String::from_utf8(token).unwrap())
}

/// The links of a recipient's message, by the letter of their path: `o`, `c` (in order), `m`, `u`.
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

pub async fn export(client: &Client, id: &str, what: &str) -> Vec<Value> {
    let raw = client.bytes(&format!("/deliveries/{id}/{what}")).await;
    raw.split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Computes the statistics. Then counts each figure and each KPI again from the exported logs, as
/// far as the logs give it.
pub async fn checked_statistics(client: &Client, id: &str) -> Value {
    let (status, computed) = client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{computed}");
    let sending = export(client, id, "log/export?format=ndjson").await;
    compare(&computed, &sending, &export(client, id, "tracking/export?format=ndjson").await);
    let excluded = export(client, id, "exclusions/export?format=ndjson").await.len();
    let kpis = client.get(&format!("/deliveries/{id}")).await["kpis"].clone();
    assert_eq!(kpis, parsed(&kpis_of(&computed, &sending, excluded)));
    computed
}

/// The value as a client parses it from an answer: the last digit of a ratio may differ.
fn parsed(expected: &Value) -> Value {
    serde_json::from_str(&expected.to_string()).unwrap()
}

/// Like [`checked_statistics`], for the statistics alone.
pub fn compare(computed: &Value, sending: &[Value], log: &[Value]) {
    assert_eq!(computed, &parsed(&statistics_of(computed, sending, log)));
}

fn rate(count: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}

/// `computed` supplies the values that no log holds: the time, the hits beyond the maximum, the
/// number of label changes and the number of links.
fn statistics_of(computed: &Value, sending: &[Value], log: &[Value]) -> Value {
    let with = |status: &'static str| sending.iter().filter(move |line| line["status"] == status);
    let sent: BTreeSet<u64> =
        with("sent").map(|line| line["recipient"].as_u64().unwrap()).collect();
    let who = |wanted: &dyn Fn(&Value) -> bool| -> BTreeSet<u64> {
        log.iter()
            .filter(|line| wanted(line))
            .map(|line| line["recipient"].as_u64().unwrap())
            .collect()
    };
    let among = |all: &BTreeSet<u64>| all.intersection(&sent).count();
    let human = |line: &Value| line["class"] == "human";
    let opens = who(&|line| {
        human(line) && ["open", "click", "mirror"].contains(&line["kind"].as_str().unwrap())
    });
    let clicks = who(&|line| human(line) && line["kind"] == "click");
    let raw_clicks = who(&|line| line["kind"] == "click");
    let raw_opens: BTreeSet<u64> = &(&who(&|line| line["kind"] == "open") | &raw_clicks) | &opens;
    let mirrors = among(&who(&|line| human(line) && line["kind"] == "mirror"));
    let opt_outs = among(&who(&|line| line["kind"] == "opt_out"));
    let machine = |kind: &'static str| {
        among(&who(&|line| line["class"] == "machine" && line["kind"] == kind))
    };
    let on_link = |number: usize| {
        let on_it = |line: &Value| line["kind"] == "click" && line["link"] == json!(number);
        let (all, by_humans) = log
            .iter()
            .filter(|line| on_it(line))
            .fold((0, 0), |(all, n), l| (all + 1, n + u64::from(human(l))));
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
    let hard = sending
        .iter()
        .filter(|line| line["status"] == "failed" && line["failure_type"] == "hard")
        .count();
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

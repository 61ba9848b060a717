//! Exports and pages in the hands of a spreadsheet or a browser.

use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::harness::{
    client::definition,
    people::{PEOPLE, start},
    redis::RedisServer,
};

/// Texts that a spreadsheet would run or follow.
const FORMULAS: [&str; 8] = [
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "x;=1+1",
    "=x@example.org",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_export_hands_a_formula_to_a_spreadsheet() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let lines: String = FORMULAS
        .iter()
        .chain(&["+x@example.org", "-x@example.org", "ann@example.org"])
        .map(|email| format!("{}\n", json!({ "email": email, "name": "x" })))
        .collect();
    let id = app.client.send(&definition(), lines).await;
    app.client.wait_for(&id, &["finished"]).await;
    let (mut cells, mut emails) = (0, Vec::new());
    for log in ["log", "exclusions", "tracking"] {
        let path = format!("/deliveries/{id}/{log}/export?format=csv");
        let text = app.client.bytes(&path).await;
        // A spreadsheet splits at commas, and in some languages at semicolons.
        for separator in [b',', b';'] {
            let mut reader = csv::ReaderBuilder::new()
                .delimiter(separator)
                .flexible(true)
                .from_reader(text.as_slice());
            for record in reader.records() {
                for cell in &record.unwrap() {
                    let number = cell.parse::<f64>().is_ok();
                    let begins = cell
                        .trim_start_matches(' ')
                        .starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
                    assert!(number || !begins, "{log}: {cell:?}");
                    cells += 1;
                }
            }
        }
        let ndjson = format!("/deliveries/{id}/{log}/export?format=ndjson");
        let text = String::from_utf8(app.client.bytes(&ndjson).await).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            emails.extend(line["email"].as_str().map(str::to_owned));
        }
    }
    assert!(cells > 50, "{cells}");
    for formula in ["=x@example.org", "+x@example.org", "x;=1+1", "@SUM(1+1)*cmd|' /C calc'!A0"] {
        assert!(emails.iter().any(|email| email == formula), "NDJSON is as it was: {emails:?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_browser_may_store_sniff_or_frame_an_answer_of_the_admin_api() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = app
        .client
        .send(&definition(), "{\"email\":\"ann@example.org\",\"name\":\"x\"}\n".into())
        .await;
    app.client.wait_for(&id, &["finished"]).await;
    let of = |path: &str| format!("/api/v1/deliveries/{id}{path}");
    let number = 0;
    for (path, file) in [
        ("/healthz".to_owned(), None),
        ("/metrics".to_owned(), None),
        ("/nothing".to_owned(), None),
        (of(""), None),
        (of("/events"), None),
        (of("/log"), None),
        (of("/log/export?format=csv"), Some(format!("versand-{id}-log.csv"))),
        (of("/exclusions/export?format=ndjson"), Some(format!("versand-{id}-exclusions.ndjson"))),
        (of("/tracking/export?format=csv"), Some(format!("versand-{id}-tracking.csv"))),
        (of("/archive"), Some(format!("versand-{id}.ndjson.zst"))),
        (of(&format!("/recipients/{number}/preview")), Some(format!("versand-{id}-{number}.eml"))),
    ] {
        for token in [PEOPLE[0].0, "nobody"] {
            let request = reqwest::Client::new()
                .request(Method::GET, format!("{}{path}", app.client.url))
                .bearer_auth(token);
            let answer = request.send().await.unwrap();
            let of = |name: header::HeaderName| {
                answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
            };
            assert_eq!(of(header::CACHE_CONTROL).as_deref(), Some("no-store"), "{path}");
            assert_eq!(of(header::X_CONTENT_TYPE_OPTIONS).as_deref(), Some("nosniff"), "{path}");
            assert_eq!(of(header::REFERRER_POLICY).as_deref(), Some("no-referrer"), "{path}");
            let policy = of(header::CONTENT_SECURITY_POLICY).unwrap();
            for rule in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
                assert!(policy.contains(rule), "{path}: {policy}");
            }
            if answer.status().is_success() {
                let named = file.as_ref().map(|file| format!("attachment; filename=\"{file}\""));
                assert_eq!(of(header::CONTENT_DISPOSITION), named, "{path}");
            }
        }
    }
    app.stop().await;
}

//! Bad requests: a clear refusal names the field and the line, and nothing is half done.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    client::{Client, audience, definition},
    people::{problem, refused, start},
    redis::RedisServer,
};

const CREATE: (Method, &str) = (Method::POST, "/deliveries");
const JSON: &str = "application/json";

/// A good definition with one change.
fn with(pointer: &str, value: Value) -> Value {
    let mut changed = definition();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap()[member] = value;
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_json_is_refused_with_its_field() {
    let redis = RedisServer::start();
    let app = start(&redis, "[server]\nbody_limit_kib = 64").await;
    let client = &app.client;
    for (body, status) in [
        (b"".to_vec(), StatusCode::BAD_REQUEST),
        (b"{".to_vec(), StatusCode::BAD_REQUEST),
        (b"{\"name\":\"\xff\"}".to_vec(), StatusCode::BAD_REQUEST),
        (format!("{} x", definition()).into_bytes(), StatusCode::BAD_REQUEST),
        (vec![b'['; 10_000], StatusCode::UNPROCESSABLE_ENTITY),
        (
            with("/name", "x".repeat(70_000).into()).to_string().into_bytes(),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ] {
        refused(client, CREATE, JSON, body, status).await;
    }
    for (changed, field) in [
        (with("/colour", "red".into()), "colour"),
        (with("/sender/phone", 5.into()), "sender.phone"),
        (with("/content/subject", 5.into()), "content.subject"),
        (with("/settings/retry_minutes", json!([1, "x"])), "settings.retry_minutes[1]"),
        (with("/settings/retry_minutes", json!([])), "settings.retry_minutes"),
        (with("/settings/retry_minutes", json!([-1])), "settings.retry_minutes"),
        (with("/settings/validity_hours", json!(0)), "settings.validity_hours"),
        (with("/settings/validity_hours", json!(1e300)), "settings.validity_hours"),
        (with("/settings/in_doubt", json!("maybe")), "settings.in_doubt"),
        (with("/schedule", json!({ "type": "never" })), "schedule"),
        (with("/name", json!("")), "name"),
        (with("/name", json!("a\r\nb")), "name"),
        (with("/name", json!("x".repeat(201))), "name"),
    ] {
        let body =
            refused(client, CREATE, JSON, changed.to_string(), StatusCode::UNPROCESSABLE_ENTITY)
                .await;
        assert!(body["field"].as_str().unwrap().starts_with(field), "{field}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(field), "{body}");
    }
    let body = refused(client, CREATE, JSON, "{}", StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(body["detail"].as_str().unwrap().contains("`name`"), "{body}");
    for kind in ["text/plain", "application/x-ndjson", "garbage"] {
        refused(client, CREATE, kind, definition().to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .await;
    }
    let utf8 = client
        .request(CREATE.0, CREATE.1)
        .header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(
        utf8.body(definition().to_string()).send().await.unwrap().status(),
        StatusCode::CREATED
    );
    assert_eq!(
        client.get("/deliveries").await["items"].as_array().unwrap().len(),
        1,
        "a refused request creates nothing"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_sizes_and_numbers_are_refused() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(3)).await;
    client.prepare(&id).await;
    let pages = [
        "/deliveries".to_owned(),
        "/audit".to_owned(),
        format!("/deliveries/{id}/log"),
        format!("/deliveries/{id}/audit"),
    ];
    for page in pages
        .iter()
        .chain([&format!("/deliveries/{id}/exclusions"), &"/queues/steps/dead".to_owned()])
    {
        let from = if page == "/deliveries" { "offset" } else { "from" };
        for query in
            ["limit=0", "limit=1001", "limit=1000000000", "limit=-1", "limit=x", "color=red"]
        {
            refused(
                client,
                (Method::GET, &format!("{page}?{query}")),
                JSON,
                "",
                StatusCode::UNPROCESSABLE_ENTITY,
            )
            .await;
        }
        for number in ["18446744073709551616", "-1", "1.5"] {
            let path = format!("{page}?{from}={number}");
            refused(client, (Method::GET, &path), JSON, "", StatusCode::UNPROCESSABLE_ENTITY).await;
        }
        if !page.contains("queues") {
            for number in ["18446744073709551615", "9223372036854775807", "4294967296000"] {
                let beyond = client.get(&format!("{page}?{from}={number}&limit=1000")).await;
                assert_eq!(beyond, json!({ "items": [], "next": null }), "{page} from {number}");
            }
        }
    }
    let blamed = [
        ("status=bad", "status"),
        ("status=", "status"),
        ("limit=1&limit=2", "limit"),
        ("limit=x", "limit"),
        ("color=red", "color"),
        ("=1", "query"),
    ];
    for (query, field) in blamed {
        let path = format!("/deliveries/{id}/log?{query}");
        let body =
            refused(client, (Method::GET, &path), JSON, "", StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(body["field"], field, "{query}: {body}");
    }
    let path = format!("/deliveries/{id}/log/export");
    assert_eq!(
        refused(client, (Method::GET, &path), JSON, "", StatusCode::UNPROCESSABLE_ENTITY).await["field"],
        "format"
    );
    for query in ["", "format=xml", "format=csv&x=1"] {
        let path = format!("/deliveries/{id}/log/export?{query}");
        refused(client, (Method::GET, &path), JSON, "", StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    for number in ["3", "18446744073709551615", "18446744073709551616", "x", "-1"] {
        let path = format!("/deliveries/{id}/recipients/{number}/preview");
        refused(client, (Method::GET, &path), JSON, "", StatusCode::NOT_FOUND).await;
    }
    let path = format!("/deliveries/{id}/recipients/0/preview?date=yesterday");
    refused(client, (Method::GET, &path), JSON, "", StatusCode::UNPROCESSABLE_ENTITY).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_in_the_wrong_state_are_conflicts_and_outdated_ones_fail_their_precondition() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    let post = async |action: &str, body: Value, status| {
        let request =
            client.request(Method::POST, &format!("/deliveries/{id}/{action}")).json(&body);
        problem(request.send().await.unwrap(), status).await
    };
    let digest = |text: &str| json!({ "digest": text });
    let body = post("confirm", digest("x"), StatusCode::CONFLICT).await;
    assert_eq!(body["detail"], "a delivery that is editing cannot be confirmed");
    for action in ["pause", "resume", "stop"] {
        post(action, json!({}), StatusCode::CONFLICT).await;
    }
    post("in-doubt", json!({ "as": "sent", "recipients": "all" }), StatusCode::CONFLICT).await;
    let preview = format!("/deliveries/{id}/recipients/0/preview");
    refused(client, (Method::GET, &preview), JSON, "", StatusCode::CONFLICT).await;

    client.upload(&id, audience(3)).await;
    let prepared = client.prepare(&id).await;
    let approved = prepared["plan"]["digest"].as_str().unwrap();
    post("confirm", digest(&"0".repeat(64)), StatusCode::PRECONDITION_FAILED).await;
    post("confirm", digest(&approved.to_uppercase()), StatusCode::PRECONDITION_FAILED).await;
    for (body, field) in [
        (json!({}), "digest"),
        (json!({ "digest": 5 }), "digest"),
        (json!({ "digest": approved, "force": true }), "force"),
        (json!({ "digest": null }), "digest"),
    ] {
        let body = post("confirm", body, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert!(body["detail"].as_str().unwrap().contains(field), "{body}");
    }
    post("prepare", json!({ "now": true }), StatusCode::UNPROCESSABLE_ENTITY).await;
    let large =
        client.request(Method::POST, &format!("/deliveries/{id}/prepare")).body("x".repeat(5000));
    problem(large.send().await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await;
    for body in [
        json!({ "as": "lost", "recipients": "all" }),
        json!({ "as": "sent", "recipients": "some" }),
        json!({ "as": "sent" }),
    ] {
        post("in-doubt", body, StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    assert_eq!(
        client.get(&format!("/deliveries/{id}")).await["state"],
        "prepared",
        "a refused request changes nothing"
    );
    app.stop().await;
}

async fn put(client: &Client, id: &str, kind: &str, text: impl Into<reqwest::Body>) -> Value {
    refused(
        client,
        (Method::PUT, &format!("/deliveries/{id}/audience")),
        kind,
        text,
        StatusCode::UNPROCESSABLE_ENTITY,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_audience_is_refused_with_line_and_field() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 2\nline_limit_kib = 2").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    let uploaded = client.upload(&id, audience(5)).await.1;
    let good = "{\"email\":\"a@b.example\",\"name\":\"A\"}\n".repeat(7);
    let (ndjson, csv) = ("application/x-ndjson", "text/csv; charset=utf-8");
    let none = Value::Null;
    for (kind, text, line, field) in [
        (ndjson, format!("{good}{{\"email\"").into_bytes(), 8, &none),
        (ndjson, format!("{good}\n\n[]\n").into_bytes(), 10, &none),
        (ndjson, format!("{good}{{\"mail\":\"x\"}}\n{good}").into_bytes(), 8, &"email".into()),
        (ndjson, format!("{good}{{\"email\":[]}}\n").into_bytes(), 8, &"email".into()),
        (ndjson, b"{\"email\":\"\xc3\x28\"}\n".to_vec(), 1, &none),
        (ndjson, format!("{good}{{\"email\":\"{}\"}}\n", "x".repeat(3000)).into_bytes(), 8, &none),
        (
            ndjson,
            format!("{{\"email\":\"a@b.example\",\"deep\":{}", "[".repeat(1000)).into_bytes(),
            1,
            &none,
        ),
        (csv, b"mail,name\na@b.example,A\n".to_vec(), 1, &"email".into()),
        (csv, b"email,name,name\n".to_vec(), 1, &"name".into()),
        (csv, b"email,name\na@b.example,A\nc@d.example,C,3\n".to_vec(), 3, &none),
        (csv, b"email,name\na@b.example,\"two\nlines\"\nc@d.example\n".to_vec(), 4, &none),
        (csv, b"email,name\n\xff@b.example,A\n".to_vec(), 2, &none),
        (csv, format!("email,name\na@b.example,{}\n", "x".repeat(3000)).into_bytes(), 2, &none),
        (csv, b"".to_vec(), 1, &none),
    ] {
        let shown = String::from_utf8_lossy(&text).into_owned();
        let body = put(client, &id, kind, text).await;
        assert_eq!((&body["line"], &body["field"]), (&line.into(), field), "{shown}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(&format!("line {line}")), "{body}");
    }
    for kind in ["application/json", "text/plain", "application/octet-stream"] {
        let path = format!("/deliveries/{id}/audience");
        refused(client, (Method::PUT, &path), kind, "", StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    }
    let view = client.get(&format!("/deliveries/{id}")).await;
    assert_eq!(view["audience"], uploaded, "the earlier audience is still there");
    let prepared = client.prepare(&id).await;
    assert_eq!(prepared["plan"]["to_deliver"], 5);
    assert_eq!(
        client.prepare(&id).await["plan"]["digest"],
        prepared["plan"]["digest"],
        "the delivery can be prepared again"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_and_ndjson_of_the_same_people_are_the_same_audience() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 3").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    let (status, ndjson) = client.upload(&id, format!("\u{feff}\n{}", audience(10))).await;
    assert_eq!(
        (status, &ndjson["recipients"], &ndjson["slices"]),
        (StatusCode::OK, &json!(10), &json!(4))
    );
    let table: String = (0..10).map(|i| format!("\"Jörg {i}\",user{i}@example.com\r\n")).collect();
    let path = format!("/deliveries/{id}/audience");
    let request = client
        .request(Method::PUT, &path)
        .header("content-type", "text/csv")
        .body(format!("name,email\r\n{table}"));
    let csv: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(csv["sha256"], ndjson["sha256"]);
    assert_ne!(csv["upload"], ndjson["upload"]);
    app.stop().await;
}

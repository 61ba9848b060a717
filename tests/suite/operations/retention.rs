//! Retention: old logs are removed, their figures stay, and archives hold the removed logs.

use std::{collections::BTreeSet, process::Command};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    app::App,
    client::{audience, definition},
    direct_calls::{aged, connection, keys, names},
    people::problem,
    redis::RedisServer,
    tracking,
};

/// The days of each kind. The archive goes to `folder`.
fn settings(deliveries: u32, logs: u32, tracking: u32, folder: &str) -> String {
    format!(
        "[retention]\ndeliveries_days = {deliveries}\nlogs_days = {logs}\ntracking_days = {tracking}\narchive_dir = {folder:?}\n\
         [preparation]\nchunk_size = 7"
    )
}

/// Twenty recipients, of whom three are refused, and three excluded lines.
fn varied_delivery() -> String {
    let refused: String = (0..3)
        .map(|i| format!("{{\"email\":\"refuse{i}@example.com\",\"name\":\"R\"}}\n"))
        .collect();
    audience(17) + &refused + &"{\"email\":\"nobody\"}\n".repeat(3)
}

/// A delivery that was sent, with a tracking log as if hits had come.
async fn sent(app: &App, redis: &RedisServer) -> String {
    let id = app.client.send(&definition(), varied_delivery()).await;
    app.client.wait_for(&id, &["finished"]).await;
    app.client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
    let mut pipe = ::redis::pipe();
    for block in 0..150 {
        pipe.set(format!("versand:{{{id}}}:hits:{block}"), "x").ignore();
    }
    pipe.hset(format!("versand:{{{id}}}:agents"), "x", 0)
        .ignore()
        .hset(format!("versand:{{{id}}}:tracking"), "hits", 150 * 4096)
        .ignore();
    let () = pipe.query_async(&mut connection(redis).await).await.unwrap();
    id
}

async fn audited_actions(app: &App, id: &str) -> Vec<String> {
    let page = app.client.get(&format!("/deliveries/{id}/audit?limit=1000")).await;
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_removed_after_their_time_and_the_figures_are_frozen() {
    let redis = RedisServer::start();
    let app = App::start(&redis, &settings(0, 1, 2, "")).await;
    let id = sent(&app, &redis).await;
    let path = format!("/deliveries/{id}");
    let before = app.client.get(&path).await;
    assert_eq!((&before["counts"]["sent"], &before["kpis"]["targeted"]), (&json!(17), &json!(23)));
    aged(&app, &id, 23).await;
    app.services.journey.operate.retention.run().await;
    assert_eq!(app.client.log(&id).await.len(), 20, "nothing is removed yet");
    assert_eq!(app.client.get(&path).await["cleaned_at"], Value::Null);

    aged(&app, &id, 2).await;
    app.services.journey.operate.retention.run().await;
    let kept: BTreeSet<String> =
        keys(&redis, &id).await.into_iter().filter(|key| !key.starts_with("hits:")).collect();
    assert_eq!(kept, names(&["delivery", "audit", "agents", "tracking", "statistics"]));
    let after = app.client.get(&path).await;
    let removed_at = after["cleaned_at"].as_str().unwrap();
    let figures = |view: &Value| {
        let mut kpis = view["kpis"].clone();
        kpis["statistics_at"].take();
        kpis
    };
    assert_eq!(figures(&after), figures(&before));
    for field in ["counts", "plan", "definition", "audience", "state"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(app.client.get(&format!("{path}/progress")).await["cleaned_at"], removed_at);
    let gone = [
        "log",
        "log/export?format=csv",
        "exclusions",
        "exclusions/export?format=ndjson",
        "waves",
        "archive",
    ];
    for route in gone.into_iter().chain(["recipients/0/preview"]) {
        let answer =
            app.client.request(Method::GET, &format!("{path}/{route}")).send().await.unwrap();
        let detail = problem(answer, StatusCode::GONE).await["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("the logs were removed on ") && detail.contains(&removed_at[..19]),
            "{detail}"
        );
    }
    for (route, body) in [
        ("in-doubt", json!({ "as": "resend", "recipients": "all" })),
        ("copy", json!({ "name": "Again", "audience": true })),
        ("proofs", json!({ "recipients": [0], "to": ["qa@example.com"] })),
    ] {
        assert_eq!(
            app.client.post(&format!("{path}/{route}"), &body).await.0,
            StatusCode::GONE,
            "{route}"
        );
    }
    assert_eq!(
        app.client.post(&format!("{path}/copy"), &json!({ "name": "Again" })).await.0,
        StatusCode::CREATED
    );
    let delivery = app.services.deliveries.delivery(&id.parse().unwrap()).await.unwrap();
    assert_eq!(
        app.services.journey.recover.finishes.recounts.difference(&delivery).await.unwrap(),
        Some(0)
    );
    let index: Vec<String> = ::redis::cmd("KEYS")
        .arg("versand:{messages:*")
        .query_async(&mut connection(&redis).await)
        .await
        .unwrap();
    assert!(index.is_empty());
    assert_eq!(app.client.get("/profiles/user1@example.com/messages").await["items"], json!([]));

    aged(&app, &id, 24).await;
    for _ in 0..2 {
        app.services.journey.operate.retention.run().await;
    }
    assert_eq!(keys(&redis, &id).await, names(&["delivery", "audit", "tracking", "statistics"]));
    assert!(app.client.get(&path).await["tracking_cleaned_at"].is_string());
    let acts = audited_actions(&app, &id).await;
    assert_eq!(acts[acts.len() - 3..], ["finish", "clean", "clean"], "each line once");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_figures_include_every_hit_of_the_removed_log() {
    let redis = RedisServer::start();
    for (logs, days) in [(true, (1, 0)), (false, (0, 1))] {
        let app = App::start(&redis, &settings(0, days.0, days.1, "")).await;
        let id = app.client.send(&tracking::definition(), audience(5)).await;
        app.client.wait_for(&id, &["finished"]).await;
        app.client.post(&format!("/deliveries/{id}/statistics"), &json!({})).await;
        for number in 0..3 {
            let of = tracking::links(&app.client, &id, number).await;
            tracking::visit(&of[&'c'][0], tracking::FIREFOX).await;
        }
        let log = tracking::export(&app.client, &id, "tracking/export?format=ndjson").await;
        let sending = app.client.log(&id).await;
        aged(&app, &id, 25).await;
        app.services.journey.operate.retention.run().await;
        let view = app.client.get(&format!("/deliveries/{id}")).await;
        assert_eq!(
            (view["cleaned_at"].is_string(), view["tracking_cleaned_at"].is_string()),
            (logs, !logs)
        );
        let answer = app
            .client
            .request(Method::GET, &format!("/deliveries/{id}/tracking"))
            .send()
            .await
            .unwrap();
        let detail = problem(answer, StatusCode::GONE).await["detail"].as_str().unwrap().to_owned();
        let gone =
            if logs { "the logs were removed on " } else { "the tracking log was removed on " };
        assert!(detail.contains(gone), "{detail}");
        let frozen = app.client.get(&format!("/deliveries/{id}/statistics")).await;
        tracking::compare(&frozen, &sending, &log);
        assert_eq!((log.len(), &view["kpis"]["unique_clicks"]), (3, &json!(3)));
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pass_removes_the_logs_that_a_crash_left() {
    let redis = RedisServer::start();
    let app = App::start(&redis, &settings(0, 1, 1, "")).await;
    let id = sent(&app, &redis).await;
    aged(&app, &id, 25).await;
    // To imitate a crash, the test saves all keys now and restores some after the removal.
    let mut conn = connection(&redis).await;
    let saved = keys(&redis, &id).await;
    let mut dumps = Vec::new();
    for key in &saved {
        let key = format!("versand:{{{id}}}:{key}");
        dumps.push((
            key.clone(),
            ::redis::cmd("DUMP").arg(key).query_async::<Vec<u8>>(&mut conn).await.unwrap(),
        ));
    }
    app.services.journey.operate.retention.run().await;
    let clean = names(&["delivery", "audit", "tracking", "statistics"]);
    assert_eq!(keys(&redis, &id).await, clean);
    let half = |key: &String| {
        ["ledger:1", "replies:2", "counts", "parts", "chunks.2:2", "hits:0", "agents"]
            .iter()
            .any(|k| key.ends_with(k))
    };
    for (key, dump) in dumps.iter().filter(|(key, _)| half(key)) {
        let () = ::redis::cmd("RESTORE")
            .arg(key)
            .arg(0)
            .arg(&dump[..])
            .query_async(&mut conn)
            .await
            .unwrap();
    }
    let fields = ["swept_logs", "swept_tracking"];
    let _: u64 = ::redis::cmd("HDEL")
        .arg(format!("versand:{{{id}}}:delivery"))
        .arg(&fields)
        .query_async(&mut conn)
        .await
        .unwrap();
    assert!(keys(&redis, &id).await.len() >= clean.len() + 7);
    app.services.journey.operate.retention.run().await;
    assert_eq!(keys(&redis, &id).await, clean);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_ended_deliveries_are_deleted_after_their_time() {
    let redis = RedisServer::start();
    let app = App::start(&redis, &settings(1, 0, 0, "")).await;
    let client = &app.client;
    let ended = sent(&app, &redis).await;
    let younger = sent(&app, &redis).await;
    let editing = client.create(&definition()).await;
    let prepared = client.create(&definition()).await;
    client.upload(&prepared, audience(3)).await;
    client.prepare(&prepared).await;
    let mut later = definition();
    later["schedule"] = json!({ "type": "at", "at": "2031-02-03T04:05:06", "zone": "UTC" });
    let scheduled = client.send(&later, audience(3)).await;
    let mut before = Vec::new();
    for id in [&editing, &prepared, &scheduled] {
        aged(&app, id, 1000).await;
        before.push(client.get(&format!("/deliveries/{id}")).await);
    }
    aged(&app, &ended, 25).await;
    aged(&app, &younger, 23).await;
    app.services.journey.operate.retention.run().await;
    assert_eq!(keys(&redis, &ended).await, names(&["delivery", "audit"]));
    assert_eq!(
        client.request(Method::GET, &format!("/deliveries/{ended}")).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(audited_actions(&app, &ended).await.last().unwrap(), "delete");
    assert_eq!(client.log(&younger).await.len(), 20);
    for (id, before) in [&editing, &prepared, &scheduled].into_iter().zip(before) {
        assert_eq!(client.get(&format!("/deliveries/{id}")).await, before);
    }
    app.stop().await;
}

/// The lines of an archive.
fn unpacked(bytes: &[u8]) -> Vec<Value> {
    let text = String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of one kind, without their member `kind`.
fn of_kind(lines: &[Value], kind: &str) -> Vec<Value> {
    let mut own: Vec<Value> = lines.iter().filter(|line| line["kind"] == kind).cloned().collect();
    own.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("kind")));
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_before_its_archive_is_written() {
    let (redis, parent) = (RedisServer::start(), tempfile::tempdir().unwrap());
    // The daemon makes this folder at its start.
    let folder = parent.path().join("archive");
    let app = App::start(&redis, &settings(0, 1, 1, folder.to_str().unwrap())).await;
    let id = sent(&app, &redis).await;
    let log = app.client.log(&id).await;
    let excluded = app.client.get(&format!("/deliveries/{id}/exclusions")).await["items"].clone();
    let audit = app.client.get(&format!("/deliveries/{id}/audit")).await["items"].clone();
    let compare = |lines: &[Value]| {
        assert_eq!(lines[0]["kind"], "document");
        assert_eq!(lines[0]["id"], id);
        assert_eq!(
            (of_kind(lines, "sending"), of_kind(lines, "exclusion")),
            (log.clone(), excluded.as_array().unwrap().clone())
        );
        assert_eq!(Value::Array(of_kind(lines, "audit")), audit);
        assert_eq!(lines.len(), 1 + 20 + 3 + audit.as_array().unwrap().len());
    };
    compare(&unpacked(&app.client.bytes(&format!("/deliveries/{id}/archive")).await));

    aged(&app, &id, 25).await;
    std::fs::remove_dir(&folder).unwrap();
    let before = keys(&redis, &id).await;
    app.services.journey.operate.retention.run().await;
    assert_eq!(keys(&redis, &id).await, before);
    assert_eq!(app.client.get(&format!("/deliveries/{id}")).await["cleaned_at"], Value::Null);

    std::fs::create_dir(&folder).unwrap();
    app.services.journey.operate.retention.run().await;
    let files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files, [folder.join(format!("{id}.ndjson.zst"))]);
    compare(&unpacked(&std::fs::read(&files[0]).unwrap()));
    assert!(app.client.get(&format!("/deliveries/{id}")).await["cleaned_at"].is_string());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_writes_a_whole_archive_or_none_and_overwrites_no_file() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let app = App::start(&redis, &settings(0, 0, 0, "")).await;
    let id = sent(&app, &redis).await;
    let (token, file) = (folder.path().join("token"), folder.path().join("archive.zst"));
    std::fs::write(&token, &app.client.token).unwrap();
    let archive = async |id: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
        command
            .args(["archive", id])
            .arg(&file)
            .args(["--url", &app.client.url, "--token-file"])
            .arg(&token);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let refused = archive("00000000000000000000000000").await;
    assert!(!refused.status.success() && !file.exists(), "{refused:?}");
    let written = archive(&id).await;
    assert!(written.status.success(), "{written:?}");
    let lines = unpacked(&std::fs::read(&file).unwrap());
    assert_eq!(of_kind(&lines, "sending"), app.client.log(&id).await);
    let refused = archive(&id).await;
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("exists already"),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    app.stop().await;
}

#[test]
fn opt_out_links_cannot_be_made_to_end_too_early_or_too_late() {
    for days in ["0", "59", "36501"] {
        let settings = format!("[retention]\nopt_outs_days = {days}");
        let error = versand::config::Config::from_toml(&settings).unwrap_err();
        assert_eq!(error.setting, "retention.opt_outs_days", "{error}");
    }
}

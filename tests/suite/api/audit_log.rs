//! The audit log: complete, chained, and verified by a program that does not trust the daemon.

use std::{io::Write, process::Command};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::{
    domain::delivery::{AuditEntry, AuditHead, verify},
    mail::catcher::{CatcherAction, CatcherFault, CatcherStage},
};

use crate::harness::{
    LIMIT,
    app::App,
    client::{audience, definition},
    daemon::Daemon,
    people::start,
    redis::RedisServer,
    run_to_end,
};

async fn chain(app: &App, path: &str) -> Vec<AuditEntry> {
    let page = app.client.get(&format!("{path}?limit=1000")).await;
    serde_json::from_value(page["items"].clone()).unwrap()
}

/// A complete delivery: one of its recipients was in doubt and was settled.
async fn delivery(app: &App) -> String {
    app.catcher.as_ref().unwrap().change_rules(|rules| {
        rules.script(
            "user1@example.com",
            [Some(CatcherFault::new(CatcherStage::End, CatcherAction::Close))],
        );
    });
    let (preparer, starter) = (app.client.with_token("preparer"), app.client.with_token("starter"));
    let id = preparer.create(&definition()).await;
    preparer.upload(&id, audience(3)).await;
    let view = preparer.prepare(&id).await;
    assert_eq!(
        starter.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await.0,
        StatusCode::ACCEPTED
    );
    starter.wait_for(&id, &["finished"]).await;
    let body = json!({ "as": "sent", "recipients": [1] });
    let (status, answer) =
        app.client.with_token("second").post(&format!("/deliveries/{id}/in-doubt"), &body).await;
    assert_eq!((status, &answer["settled"]), (StatusCode::OK, &json!(1)));
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = delivery(&app).await;
    let view = app.client.get(&format!("/deliveries/{id}")).await;
    let mut changed = definition();
    changed["name"] = "Later".into();
    let refused = app
        .client
        .request(Method::PUT, &format!("/deliveries/{id}"))
        .json(&changed)
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    app.client
        .with_token("administrator")
        .request(Method::DELETE, &format!("/deliveries/{id}"))
        .send()
        .await
        .unwrap();
    let entries = chain(&app, &format!("/deliveries/{id}/audit")).await;
    let who: Vec<(&str, &str)> =
        entries.iter().map(|entry| (entry.action.as_str(), entry.principal.as_str())).collect();
    assert_eq!(
        who,
        [
            ("create", "preparer"),
            ("upload", "preparer"),
            ("prepare", "preparer"),
            ("prepared", "preparer"),
            ("confirm", "starter"),
            ("finish", "versand"),
            ("settle", "second"),
            ("delete", "administrator"),
        ]
    );
    assert_eq!(entries[1].details["sha256"], view["audience"]["sha256"]);
    assert_eq!(entries[3].details["digest"], view["plan"]["digest"]);
    assert_eq!(entries[4].details, json!({ "digest": view["plan"]["digest"], "via": "http" }));
    assert_eq!(entries[5].details, json!({ "sent": 2, "failed": 0, "in_doubt": 1 }));
    assert_eq!(entries[6].details, json!({ "settlement": "sent", "recipients": [1] }));
    assert_eq!(entries[7].details, json!({ "state": "finished" }));
    assert!(
        entries.iter().all(|entry| entry.subject == id)
            && entries.is_sorted_by_key(|entry| entry.at)
    );
    let head = verify(&entries).unwrap();
    assert_eq!(head.seq, 8);
    let heads = chain(&app, "/audit").await;
    verify(&heads).unwrap();
    let last = heads.iter().rfind(|entry| entry.subject == id).unwrap();
    assert_eq!(
        serde_json::from_value::<AuditHead>(last.details.clone()).unwrap(),
        head,
        "the chain of heads covers the whole log"
    );
    let mut altered = entries.clone();
    altered[4].principal = "somebody".into();
    assert!(verify(&altered).is_err());

    let mut paged = Vec::new();
    let mut next = json!(0);
    while !next.is_null() {
        let page = app.client.get(&format!("/deliveries/{id}/audit?from={next}&limit=3")).await;
        paged.extend(
            page["items"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()),
        );
        next = page["next"].clone();
    }
    assert_eq!(paged, (1..=8).collect::<Vec<_>>());
    app.stop().await;
}

/// Runs the real command. Returns its exit code and its output.
fn verified(app: &App, token: &str) -> (i32, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{token}").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    command.args(["audit", "verify", "--url", &app.client.url, "--token-file"]).arg(file.path());
    let output = run_to_end(&mut command, LIMIT);
    let printed =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code().unwrap(), printed)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_finds_tampered_entries() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = delivery(&app).await;
    app.client.create(&definition()).await;
    let (code, printed) = verified(&app, "administrator");
    assert!(
        code == 0
            && printed.starts_with("2 deliveries, 8 entries, 0 operations, 9 heads: all verified"),
        "{code}: {printed}"
    );
    let (code, printed) = verified(&app, "monitor");
    assert!(code == 1 && printed.contains("403"), "{code}: {printed}");

    let mut redis = app.services.stores.redis.connection();
    let (key, heads) = (format!("versand:{{{id}}}:audit"), "versand:{audit}:heads".to_owned());
    for (key, named) in
        [(key, format!("BROKEN delivery {id}")), (heads, "BROKEN the chain of heads".to_owned())]
    {
        let whole: Vec<String> =
            redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query_async(&mut redis).await.unwrap();
        let mut entry: Value = serde_json::from_str(&whole[2]).unwrap();
        entry["principal"] = "somebody".into();
        let mut altered = whole.clone();
        altered[2] = entry.to_string();
        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        let without = [&whole[..2], &whole[3..]].concat();
        let cut = whole[..whole.len() - 1].to_vec();
        let mut tampered = vec![altered, swapped, without];
        if key.contains(&id) {
            tampered.extend([cut, vec![]]);
        }
        for entries in tampered {
            let mut write = redis::pipe();
            write.del(&key).ignore();
            for entry in &entries {
                write.rpush(&key, entry).ignore();
            }
            let () = write.query_async(&mut redis).await.unwrap();
            let (code, printed) = verified(&app, "administrator");
            assert!(
                code == 1 && printed.contains(&named) && printed.contains("NOT verified"),
                "{code}: {printed}"
            );
        }
        let mut restore = redis::pipe();
        restore.del(&key).ignore();
        for entry in &whole {
            restore.rpush(&key, entry).ignore();
        }
        let () = restore.query_async(&mut redis).await.unwrap();
        assert_eq!(verified(&app, "administrator").0, 0);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_heads_that_was_cut_by_hand_blocks_nothing() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(&format!("[redis]\nurl = \"{}\"\n", redis.url())).await;
    daemon.client.create(&definition()).await;
    daemon.client.create(&definition()).await;
    redis.ask("LTRIM versand:{audit}:heads 1 -1").unwrap();
    let id =
        tokio::time::timeout(LIMIT, daemon.client.send(&definition(), audience(3))).await.unwrap();
    daemon.client.wait_for(&id, &["finished"]).await;
    let log = daemon.log();
    assert_eq!(log.matches("chain of audit heads was changed by hand").count(), 1, "{log}");
}

//! The key of the installation: the upgrade from a version without seals, and foreign keys.

use redis::aio::MultiplexedConnection;
use reqwest::StatusCode;

use crate::harness::{
    LIMIT,
    client::{audience, definition},
    daemon::Daemon,
    eventually,
    people::start,
    redis::{RedisServer, connect},
};

/// Turns the store into one of the version before seals: documents and slices without seals, and
/// plain secrets. The audit chains keep their seals.
async fn without_seals(conn: &mut MultiplexedConnection) {
    let keys: Vec<String> = redis::cmd("KEYS").arg("versand:{*").query_async(conn).await.unwrap();
    for key in keys {
        if key.ends_with(":delivery") {
            let mut strip = redis::cmd("HDEL");
            strip.arg(&key).arg("seal").exec_async(conn).await.unwrap();
        } else if [":chunks.", ":upload.", ":links.", ":exclusions."]
            .iter()
            .any(|k| key.contains(k))
        {
            let sealed: Vec<u8> = redis::cmd("GET").arg(&key).query_async(conn).await.unwrap();
            redis::cmd("SET").arg(&key).arg(&sealed[21..]).exec_async(conn).await.unwrap();
        }
    }
    redis::cmd("DEL").arg("versand:installation").exec_async(conn).await.unwrap();
    for (name, byte) in [("message", 3u8), ("token", 4)] {
        let key = format!("versand:secret:{name}");
        redis::cmd("SET").arg(key).arg(&[byte; 32][..]).exec_async(conn).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_upgrade_a_send_goes_on_and_a_seal_that_is_removed_later_is_an_alteration() {
    let redis = RedisServer::start();
    let settings = format!(
        "[redis]\nurl = \"{}\"\n[preparation]\nchunk_size = 5\n[send]\nmessages_per_second = 20\n",
        redis.url()
    );
    let mut daemon = Daemon::start(&settings).await;
    let mut conn = connect(&redis.url()).await;
    let id = daemon.client.create(&definition()).await;
    daemon.client.upload(&id, audience(60)).await;
    let view = daemon.client.prepare(&id).await;
    let waiting = daemon.client.create(&definition()).await;
    daemon.client.upload(&waiting, audience(3)).await;
    let waiting_view = daemon.client.prepare(&waiting).await;
    daemon.client.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await;
    eventually("some are sent", LIMIT, async || {
        let view = daemon.client.get(&format!("/deliveries/{id}")).await;
        (view["counts"]["sent"].as_u64()? > 3).then_some(())
    })
    .await;
    daemon.kill();
    without_seals(&mut conn).await;
    daemon.forget_installation();
    daemon.restart().await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let view = daemon.client.get(&format!("/deliveries/{id}")).await;
    let counts = &view["counts"];
    let settled = counts["sent"].as_u64().unwrap() + counts["in_doubt"].as_u64().unwrap();
    assert_eq!((settled, view["altered"].is_null()), (60, true), "{counts}");
    // The secrets are those of the version before, and Redis holds them only sealed.
    for (name, byte) in [("message", 3u8), ("token", 4)] {
        let key = format!("versand:secret:{name}");
        let stored: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut conn).await.unwrap();
        assert!(stored.len() == 72 && !stored.windows(8).any(|part| part == [byte; 8]));
        assert_eq!(daemon.state_file(&format!("{name}.secret")), [byte; 32]);
    }
    // From now on a delivery without a seal counts as altered, also after a restart.
    let mut strip = redis::cmd("HDEL");
    let key = format!("versand:{{{waiting}}}:delivery");
    strip.arg(key).arg("seal").exec_async(&mut conn).await.unwrap();
    daemon.restart().await;
    let digest = waiting_view["plan"]["digest"].as_str().unwrap();
    assert_eq!(daemon.client.confirm(&waiting, digest).await.0, StatusCode::CONFLICT);
    let view = daemon.client.get(&format!("/deliveries/{waiting}")).await;
    assert_eq!(view["altered"]["part"], "document");
    assert_eq!(daemon.metric("versand_altered_total").await, 1.0);
    let line = "this delivery was altered in Redis";
    assert_eq!(daemon.log().matches(line).count(), 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_another_key_does_not_start_and_says_what_to_copy() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let (config, state) = crate::harness::app::config(&redis, "");
    let key = state.path().join("installation.secret");
    let other_key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other_key.path(), format!("{}\n", "k".repeat(40))).unwrap();
    for what in ["another key", "no key", "another credential", "a short credential"] {
        let mut config = config.clone();
        match what {
            "another key" => std::fs::write(&key, [8; 32]).unwrap(),
            "no key" => std::fs::remove_file(&key).unwrap(),
            _ => config.auth.installation_key_file = other_key.path().to_owned(),
        }
        if what == "a short credential" {
            std::fs::write(other_key.path(), "short\n").unwrap();
        }
        let built = versand::app::Application::build(config, crate::harness::app::metrics()).await;
        let error = built.err().expect("refused");
        let expected = match what {
            "a short credential" => "auth.installation_key_file: its first line must have",
            _ => "not the key of the installation that uses this Redis. Copy installation.secret",
        };
        assert!(error.to_string().contains(expected), "{what}: {error:#}");
        assert!(!state.path().join("sealing").exists());
    }
    app.stop().await;
}

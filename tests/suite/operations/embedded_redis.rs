//! The state directory and the private redis-server in it.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use redis::AsyncCommands;
use tempfile::tempdir;
use versand::redis_server::{EmbeddedError, EmbeddedRedis, StateDir, StateError};

use crate::harness::{LIMIT, queue::eventually};

const SOON: Duration = LIMIT;

async fn connect(redis: &EmbeddedRedis) -> redis::aio::MultiplexedConnection {
    crate::harness::redis::connect(&redis.url()).await
}

async fn pid(redis: &EmbeddedRedis) -> i32 {
    let text: String = redis::cmd("INFO")
        .arg("server")
        .query_async(&mut connect(redis).await)
        .await
        .expect("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix("process_id:"));
    line.expect("process_id").parse().expect("a number")
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("pid");
    rustix::process::kill_process(pid, signal).expect("signal");
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused() {
    let dir = tempdir().expect("folder");
    let path = dir.path().join("state");
    let first = StateDir::lock(&path).expect("lock");
    assert_eq!(first.predecessor(), None);
    let mode = path.metadata().expect("made").permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    let refused = StateDir::lock(&path).expect_err("held");
    assert!(matches!(refused, StateError::InUse { .. }));
    assert!(refused.to_string().contains("in use by another daemon"));
    let owner = first.owner();
    drop(first);
    let second = StateDir::lock(&path).expect("the directory is free again");
    assert_eq!(second.predecessor(), Some(owner));
    assert_ne!(second.owner(), owner);
    let owners = [second.owner(), owner];
    drop(second);
    let third = StateDir::lock(&path).expect("the directory is free again");
    assert_eq!(third.predecessors(), owners);
}

#[test]
fn a_secret_stays_the_same_and_is_private() {
    let dir = tempdir().expect("folder");
    let state = StateDir::lock(dir.path()).expect("lock");
    let secret = state.secret("tokens").expect("made");
    assert_ne!(secret, [0; 32]);
    assert_eq!(state.secret("tokens").expect("read"), secret);
    assert_ne!(state.secret("others").expect("made"), secret);
    let file = dir.path().join("tokens.secret");
    assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    std::fs::write(&file, b"short").expect("damage");
    assert!(matches!(state.secret("tokens"), Err(StateError::BadSecret { .. })));
}

#[tokio::test]
async fn a_redis_that_is_killed_is_started_again_with_its_content() {
    let dir = tempdir().expect("folder");
    let state = StateDir::lock(&dir.path().join("with a space")).expect("lock");
    let redis = EmbeddedRedis::start(&state, "redis-server").await.expect("start");
    for round in 1..=2 {
        let () = connect(&redis).await.set("kept", round).await.expect("SET");
        signal(pid(&redis).await, rustix::process::Signal::KILL);
        eventually(SOON, "Redis is started again", async || redis.restarts() == round).await;
        let kept: u64 = connect(&redis).await.get("kept").await.expect("GET");
        assert_eq!(kept, round);
    }
    redis.stop().await;
}

#[tokio::test]
async fn a_leftover_redis_is_adopted_watched_and_stopped() {
    let dir = tempdir().expect("folder");
    let state = StateDir::lock(dir.path()).expect("lock");
    let first = EmbeddedRedis::start(&state, "redis-server").await.expect("start");
    let left = pid(&first).await;
    drop(first);
    drop(state);
    let state = StateDir::lock(dir.path()).expect("lock");
    let second = EmbeddedRedis::start(&state, "redis-server").await.expect("adopt");
    assert_eq!(pid(&second).await, left);
    // The daemon may lose its connection while Redis lives. Then it must not start another Redis.
    let _: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .query_async(&mut connect(&second).await)
        .await
        .expect("CLIENT KILL");
    eventually(SOON, "the daemon watches Redis again", async || {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut connect(&second).await)
            .await
            .expect("CLIENT LIST");
        clients.lines().count() >= 2
    })
    .await;
    assert_eq!((pid(&second).await, second.restarts()), (left, 0));
    signal(left, rustix::process::Signal::KILL);
    eventually(SOON, "Redis is started again", async || second.restarts() == 1).await;
    let started = pid(&second).await;
    assert_ne!(started, left);
    second.stop().await;
    let socket = dir.path().join("redis/redis.sock");
    assert!(std::os::unix::net::UnixStream::connect(socket).is_err());
}

#[tokio::test]
async fn an_adopted_redis_is_stopped_too() {
    let dir = tempdir().expect("folder");
    let state = StateDir::lock(dir.path()).expect("lock");
    drop(EmbeddedRedis::start(&state, "redis-server").await.expect("start"));
    let adopted = EmbeddedRedis::start(&state, "redis-server").await.expect("adopt");
    tokio::time::timeout(SOON, adopted.stop()).await.expect("stopped");
    let socket = dir.path().join("redis/redis.sock");
    assert!(std::os::unix::net::UnixStream::connect(socket).is_err());
}

#[tokio::test]
async fn a_frozen_redis_is_not_joined_by_a_second_one() {
    let dir = tempdir().expect("folder");
    let state = StateDir::lock(dir.path()).expect("lock");
    let redis = EmbeddedRedis::start(&state, "redis-server").await.expect("start");
    let frozen = pid(&redis).await;
    drop(redis);
    signal(frozen, rustix::process::Signal::STOP);
    let refused = EmbeddedRedis::start(&state, "redis-server").await.err();
    signal(frozen, rustix::process::Signal::CONT);
    assert!(matches!(refused, Some(EmbeddedError::Stuck { .. })), "{refused:?}");
    EmbeddedRedis::start(&state, "redis-server").await.expect("adopt").stop().await;
}

async fn refusal(path: &Path, program: &str) -> String {
    let state = StateDir::lock(path).expect("lock");
    match EmbeddedRedis::start(&state, program).await {
        Ok(_) => "started".into(),
        Err(e) => e.to_string(),
    }
}

#[tokio::test]
async fn a_redis_that_cannot_start_says_why_in_one_line() {
    let dir = tempdir().expect("folder");
    let text = refusal(dir.path(), "no-such-redis").await;
    assert!(
        text.contains("no-such-redis") && text.contains("apt-get install redis-server"),
        "{text}"
    );
    let text = refusal(&dir.path().join("x".repeat(100)), "redis-server").await;
    assert!(text.contains("server.state_dir") && text.contains("107"), "{text}");
    let broken = dir.path().join("broken");
    std::fs::create_dir_all(broken.join("redis/appendonlydir")).expect("folder");
    std::fs::write(broken.join("redis/appendonlydir/appendonly.aof.manifest"), "nonsense\n")
        .expect("damage");
    let text = refusal(&broken, "redis-server").await;
    assert!(text.starts_with("redis-server ended at once"), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

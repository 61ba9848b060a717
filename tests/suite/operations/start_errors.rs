//! Errors at the start: one line says why, and the exit code says whether a restart may help.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::harness::{
    LIMIT, daemon::Daemon, eventually, eventually_blocking, redis::RedisServer, run_to_end,
};

pub(super) const NO_RESTART: i32 = 64;
const RESTART: i32 = 1;

/// Runs `serve` with these settings to its end. Returns the exit code and the last line.
fn serve(more: &str) -> (i32, String) {
    let folder = tempfile::Builder::new().prefix("versand-").tempdir().unwrap();
    let file = folder.path().join("versand.toml");
    let listen = "listen = \"127.0.0.1:0\"\n";
    let server = if more.contains("[server]") {
        String::new()
    } else {
        format!("[server]\nstate_dir = {:?}\n{listen}", folder.path().join("state"))
    };
    fs::write(&file, format!("{server}[public]\n{listen}[catcher]\n{listen}{more}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    let output = run_to_end(command.arg("serve").arg("--config").arg(file), LIMIT);
    let printed = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), printed.lines().last().unwrap_or_default().to_owned())
}

pub(super) fn refused(settings: &str, code: i32, words: &[&str]) {
    let (exit, line) = serve(settings);
    assert_eq!(exit, code, "{line}");
    assert!(line.starts_with("versand: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{word}: {line}");
    }
}

fn redis_at(scheme: &str, port: u16) -> String {
    format!("[redis]\nurl = \"{scheme}://127.0.0.1:{port}\"\n")
}

#[test]
fn a_password_that_is_missing_or_wrong_is_named() {
    let (_redis, port) = RedisServer::start_on_port(&["--requirepass", "secret"]);
    refused(&redis_at("redis", port), NO_RESTART, &["redis.password_file", "NOAUTH"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "wrong\n").unwrap();
    let settings = format!("{}password_file = {file:?}\n", redis_at("redis", port));
    refused(&settings, NO_RESTART, &["redis.password_file", "WRONGPASS"]);
    let (_, line) = serve(&settings);
    assert!(!line.contains("secret") && !line.contains("wrong\n"), "{line}");
}

#[test]
fn tls_on_a_plain_port_and_no_tls_on_a_port_with_tls_are_named() {
    let (_redis, port) = RedisServer::start_on_port(&[]);
    refused(&redis_at("rediss", port), NO_RESTART, &["redis.url", "speaks no TLS"]);
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let _redis = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--tls-cert-file",
        cert.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-ca-cert-file",
        cert.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ]);
    refused(&redis_at("redis", port), NO_RESTART, &["redis.url", "rediss://"]);
}

#[test]
fn a_sentinel_and_a_node_of_a_cluster_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = folder.path().join("nodes.conf").display().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-config-file", &nodes];
    let (_node, port) = RedisServer::start_on_port(&options);
    refused(&redis_at("redis", port), NO_RESTART, &["redis.url", "cluster"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let file = folder.path().join("sentinel.conf");
    fs::write(&file, format!("port {port}\nbind 127.0.0.1\ndir {:?}\n", folder.path())).unwrap();
    let mut sentinel = Command::new("redis-server");
    let sentinel = sentinel.arg(&file).arg("--sentinel").stdout(std::process::Stdio::null());
    let mut sentinel = sentinel.spawn().unwrap();
    eventually_blocking("the Sentinel listens", LIMIT, || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    refused(&redis_at("redis", port), NO_RESTART, &["redis.url", "Sentinel"]);
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
}

#[test]
fn a_cause_that_may_pass_lets_systemd_try_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let settings = format!("[server]\nstate_dir = {state:?}\nlisten = \"127.0.0.1:{port}\"\n");
    refused(&settings, RESTART, &["server.listen", &port.to_string(), "in use"]);
    drop(taken);
    refused(&redis_at("redis", port), RESTART, &["redis.url", "refused"]);
}

#[test]
fn a_store_of_a_newer_form_is_refused_and_left_alone() {
    let redis = RedisServer::start();
    redis.ask("SET versand:format 2").unwrap();
    let password = redis.settings().password_file;
    let settings = format!("[redis]\nurl = {:?}\npassword_file = {password:?}\n", redis.url());
    refused(&settings, NO_RESTART, &["form 2", "up to 1"]);
    assert!(redis.ask("DBSIZE").unwrap().starts_with(":1"), "{:?}", redis.ask("KEYS *"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_embedded_redis_is_in_that_of_the_daemon() {
    let mut daemon = Daemon::start("").await;
    let told = async |times: usize| {
        eventually("the log of Redis", LIMIT, async || {
            let log = daemon.log();
            (log.matches("now ready to accept connections").count() >= times).then_some(())
        })
        .await;
    };
    told(1).await;
    daemon.kill_embedded();
    told(2).await;
    assert!(daemon.terminate().await.success());
    // the log of its end is there, too
    assert!(
        daemon.log().contains("embedded Redis: Redis is now ready to exit"),
        "{}",
        daemon.log()
    );
}

//! What the daemon tells systemd: ready, reloading, and that it moves.

use std::{os::unix::net::UnixDatagram, time::Duration};

use crate::harness::{LIMIT, daemon::Daemon, eventually, redis::RedisServer, relay::TestRelay};

/// The period that the tests ask for; the daemon feeds the watchdog four times in it.
const PERIOD: Duration = Duration::from_secs(2);

/// The socket that systemd would listen on.
struct Notifications(UnixDatagram, tempfile::TempDir);

impl Notifications {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket, folder)
    }

    async fn daemon(&self, settings: &str) -> Daemon {
        let environment = vec![
            ("NOTIFY_SOCKET", self.1.path().join("notify").into_os_string()),
            ("WATCHDOG_USEC", PERIOD.as_micros().to_string().into()),
        ];
        Daemon::start_with(settings, environment).await
    }

    /// All messages that have come since the last call.
    fn read(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.0.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        messages
    }

    async fn fed(&self, times: usize) {
        let mut seen = 0;
        eventually("the watchdog is fed", LIMIT, async || {
            seen += self.read().iter().filter(|text| text.contains("WATCHDOG=1")).count();
            (seen >= times).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_while_the_daemon_moves_and_not_while_it_is_frozen() {
    let (systemd, relay) = (Notifications::new(), TestRelay::start(Duration::ZERO).await);
    let mut daemon = systemd.daemon(&relay.settings(1)).await;
    eventually("ready", LIMIT, async || {
        systemd.read().iter().any(|text| text.contains("READY=1")).then_some(())
    })
    .await;
    systemd.fed(4).await;
    daemon.freeze();
    systemd.read();
    tokio::time::sleep(2 * PERIOD).await;
    let late = systemd.read();
    daemon.thaw();
    assert!(late.is_empty(), "a frozen daemon has fed the watchdog: {late:?}");
    systemd.fed(4).await;
    // a reload is announced, with the time that newer systemds require
    daemon.reload(&relay.settings(1)).await;
    let mut told = String::new();
    eventually("the reload is announced", LIMIT, async || {
        told += &systemd.read().join("\n");
        let reloading = told.find("RELOADING=1").filter(|_| told.contains("MONOTONIC_USEC="))?;
        told[reloading..].contains("READY=1").then_some(())
    })
    .await;
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_or_frozen_is_no_reason_to_kill_the_daemon() {
    let (systemd, mut redis) = (Notifications::new(), RedisServer::start());
    let settings = format!("[redis]\nurl = \"{}\"\nresponse_timeout_ms = 500\n", redis.url());
    let mut daemon = systemd.daemon(&settings).await;
    systemd.fed(4).await;
    redis.freeze();
    // longer than the period and all response times that the workers may take
    tokio::time::sleep(3 * PERIOD).await;
    systemd.read();
    systemd.fed(8).await;
    redis.thaw();
    redis.stop();
    tokio::time::sleep(3 * PERIOD).await;
    systemd.read();
    systemd.fed(8).await;
    redis.restart();
    eventually("the daemon is ready again", LIMIT, async || {
        let answer = reqwest::get(format!("{}/readyz", daemon.client.url)).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    assert!(!daemon.log().contains("the watchdog is not fed"), "{}", daemon.log());
    assert!(daemon.terminate().await.success());
}

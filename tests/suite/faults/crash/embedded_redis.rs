//! Crashes of the embedded Redis, and of its daemon.

use super::*;

fn embedded(relay: &TestRelay) -> String {
    format!("{}[preparation]\nchunk_size = 125\n", relay.settings(CONNECTIONS))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_lost_or_doubled_when_the_embedded_redis_is_killed() {
    let relay = TestRelay::start(DELAY).await;
    let daemon = Daemon::start(&embedded(&relay)).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    for at in [400, 1100] {
        accepted(&relay, at).await;
        daemon.kill_embedded();
    }
    finished(&daemon.client, &id).await;
    Account::of(&daemon.client, &id, &relay).await.nobody_twice(RECIPIENTS, 0);
    figures_agree(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_adopts_the_redis_of_the_one_that_was_killed() {
    let relay = TestRelay::start(DELAY).await;
    let mut daemon = Daemon::start(&embedded(&relay)).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    accepted(&relay, 700).await;
    let redis = daemon.embedded_pid();
    assert!(redis.is_some());
    daemon.restart().await;
    assert_eq!(daemon.embedded_pid(), redis);
    assert!(daemon.log().contains("embedded Redis adopted"));
    finished(&daemon.client, &id).await;
    Account::of(&daemon.client, &id, &relay).await.nobody_twice(RECIPIENTS, CONNECTIONS * WINDOW);
    figures_agree(&daemon).await;
    assert!(daemon.terminate().await.success());
}

//! A wall clock that is set back and forth by an hour.

use super::*;

const HOUR: i64 = 3600;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_or_forth_by_an_hour_loses_and_doubles_nothing() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let daemon = Daemon::start_with_clock(&format!(
        "{}[redis]\nurl = \"{}\"\n",
        relay.settings(4),
        redis.url()
    ))
    .await;
    let client = &daemon.client;
    // `seconds` count from the real time. The daemon compares the result with its own clock.
    let schedule = async |seconds: i64, grace_minutes: u32| {
        scheduled(
            client,
            &with(at(in_seconds(seconds)), json!({ "grace_minutes": grace_minutes })),
            ten_recipients(),
        )
        .await
    };

    // Set back: waves that are due on the new clock are sent, and everything else goes on.
    daemon.set_clock(-HOUR);
    let soon = schedule(10 - HOUR, 60).await;
    let later = schedule(60, 60).await;
    client.wait_for(&soon, &["finished"]).await;
    assert_eq!(client.send(&definition(), ten_recipients()).await.len(), 16);
    eventually("a delivery without a schedule", LIMIT, async || {
        (relay.accepted() == 20).then_some(())
    })
    .await;
    assert_eq!(
        client.get(&format!("/deliveries/{later}")).await["state"],
        "scheduled",
        "the wave is an hour away"
    );

    // Set forth: a wave is sent within the grace window, and held beyond it.
    let beyond = schedule(900 - HOUR, 30).await;
    daemon.set_clock(61);
    client.wait_for(&later, &["finished"]).await;
    client.wait_for(&beyond, &["held"]).await;
    assert_eq!(relay.accepted(), 30);

    // Set back once more: nothing is sent a second time.
    daemon.set_clock(-HOUR);
    // The scheduler is restarted when it has not ticked for a while.
    daemon.passes("release", 2).await;
    assert_eq!(relay.accepted(), 30);
    let again = schedule(10 - HOUR, 60).await;
    client.wait_for(&again, &["finished"]).await;
    assert_eq!(relay.accepted(), 40);
}

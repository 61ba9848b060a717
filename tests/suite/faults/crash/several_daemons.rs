//! Several daemons on one Redis: one dies or freezes, and the other goes on.

use versand::{
    domain::delivery::DeliveryId,
    store::{Redis, Stores},
};

use super::*;

/// Two daemons that share the chunks. The delivery is created and confirmed at the first one.
async fn two_daemons(policy: &str, more: &str) -> (RedisServer, TestRelay, [Daemon; 2], String) {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let settings = format!("{}{more}", settings(&redis, &relay));
    let first = Daemon::start(&settings).await;
    let second = Daemon::start(&settings).await;
    let id = first.client.send(&with_policy(policy), audience(RECIPIENTS)).await;
    (redis, relay, [first, second], id)
}

/// Freezes the daemon while it holds a lease. The daemon holds none between two chunks, so more
/// than one try may be needed.
async fn freeze_with_a_lease(daemon: &Daemon, redis: &RedisServer, id: &str) {
    let stores = Stores::new(
        Redis::connect(&redis.settings()).await.unwrap(),
        &crate::harness::installation_key(),
    );
    let (id, chunks): (DeliveryId, Vec<u32>) =
        (id.parse().unwrap(), (0..RECIPIENTS.div_ceil(CHUNK) as u32).collect());
    let owner = daemon.owner();
    eventually("the daemon holds a lease", RECOVERY, async || {
        daemon.freeze();
        let has_lease = stores
            .ledgers
            .headers(&id, &chunks)
            .await
            .unwrap()
            .iter()
            .any(|header| header.owner == owner);
        if !has_lease {
            daemon.thaw();
        }
        has_lease.then_some(())
    })
    .await;
}

async fn taken_over(by: &Daemon) {
    let taken_over =
        async || (by.metric("versand_chunks_taken_over_total").await > 0.0).then_some(());
    eventually("the other daemon takes over", RECOVERY, taken_over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_daemon_takes_over() {
    let (redis, relay, [mut first, second], id) = two_daemons("hold", "").await;
    accepted(&relay, 600).await;
    freeze_with_a_lease(&first, &redis, &id).await;
    first.kill();
    taken_over(&second).await;
    finished(&second.client, &id).await;
    Account::of(&second.client, &id, &relay).await.nobody_twice(RECIPIENTS, CONNECTIONS * WINDOW);
    figures_agree(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_daemon_takes_over_within_thirty_seconds_by_default() {
    let (redis, relay, [mut first, second], id) =
        two_daemons("hold", "[send]\nlease_ms = 10000\n").await;
    accepted(&relay, 1000).await;
    freeze_with_a_lease(&first, &redis, &id).await;
    first.kill();
    // The promise: the lease of ten seconds and two passes.
    taken_over(&second).await;
    finished(&second.client, &id).await;
    Account::of(&second.client, &id, &relay).await.nobody_twice(RECIPIENTS, CONNECTIONS * WINDOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_daemon_resends_the_same_message_to_recipients_in_doubt() {
    let (_redis, relay, [mut first, second], id) = two_daemons("resend", "").await;
    accepted(&relay, 800).await;
    first.kill();
    finished(&second.client, &id).await;
    let account = Account::of(&second.client, &id, &relay).await;
    account.nobody_missing(RECIPIENTS);
    figures_agree(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_frozen_beyond_its_lease_sends_nothing_twice() {
    let (redis, relay, [first, second], id) = two_daemons("hold", "").await;
    accepted(&relay, 300).await;
    freeze_with_a_lease(&first, &redis, &id).await;
    taken_over(&second).await;
    second.passes("reconcile", 1).await;
    first.thaw();
    finished(&second.client, &id).await;
    // When the first daemon wakes up, it records the messages that it had sent before the freeze.
    eventually("late records", RECOVERY, async || {
        (first.metric("versand_acceptance_difference").await == 0.0).then_some(())
    })
    .await;
    let account = Account::of(&second.client, &id, &relay).await;
    account.nobody_twice(RECIPIENTS, CONNECTIONS * WINDOW);
    figures_agree(&second).await;
}

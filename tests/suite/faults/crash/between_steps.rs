//! Crashes between the steps: upload, preparation, confirmation.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_crash() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let mut daemon = Daemon::start(&settings(&redis, &relay)).await;
    let id = daemon.client.create(&definition()).await;
    let (status, answer) = daemon.client.upload(&id, audience(300)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    daemon.restart().await;
    // An upload that breaks off before a crash does not change the audience.
    let pieces = [Ok(audience(100)), Err(std::io::Error::other("crash"))];
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let request =
        daemon.client.request(reqwest::Method::PUT, &format!("/deliveries/{id}/audience"));
    assert!(
        request.header("content-type", "application/x-ndjson").body(body).send().await.is_err()
    );
    daemon.restart().await;
    let prepared = daemon.client.prepare(&id).await;
    assert_eq!(prepared["plan"]["to_deliver"], 300, "{prepared}");
    daemon.client.confirm(&id, prepared["plan"]["digest"].as_str().unwrap()).await;
    finished(&daemon.client, &id).await;
    Account::of(&daemon.client, &id, &relay).await.nobody_twice(300, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_preparation_is_finished() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let mut daemon = Daemon::start(&settings(&redis, &relay)).await;
    let id = daemon.client.create(&definition()).await;
    daemon.client.upload(&id, audience(20_000)).await;
    let (status, answer) =
        daemon.client.post(&format!("/deliveries/{id}/prepare"), &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    for _ in 0..2 {
        eventually("the preparation has begun", RECOVERY, async || {
            let view = daemon.client.get(&format!("/deliveries/{id}")).await;
            assert_eq!(view["state"], "preparing", "the preparation ended before the crash");
            (view["preparation"]["done"].as_u64().unwrap() > 0).then_some(())
        })
        .await;
        daemon.restart().await;
    }
    let prepared = daemon.client.wait_for(&id, &["prepared", "preparation_failed"]).await;
    assert_eq!(
        (&prepared["state"], &prepared["plan"]["to_deliver"]),
        (&json!("prepared"), &json!(20_000))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_with_a_broken_ledger_is_given_back_and_taken_over_after_the_repair() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let daemon = Daemon::start(&settings(&redis, &relay)).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    accepted(&relay, 200).await;
    let (ledger, away) = (format!("versand:{{{id}}}:ledger:15"), format!("versand:{{{id}}}:away"));
    // The test cannot know which chunk is being sent: it breaks all of them.
    let chunks = "for i = 0, 15 do local key = string.gsub(KEYS[1], '15$', i)";
    let swap = "redis.call('RENAME', key, KEYS[2] .. i) redis.call('RPUSH', key, 'x') end";
    assert!(
        redis.ask(&format!("EVAL \"{chunks} {swap}\" 2 {ledger} {away}")).unwrap().starts_with('$')
    );
    eventually("the chunk is given back", RECOVERY, async || {
        daemon.log().contains("its ledger is damaged").then_some(())
    })
    .await;
    let back = "redis.call('RENAME', KEYS[2] .. i, key) end";
    assert!(
        redis.ask(&format!("EVAL \"{chunks} {back}\" 2 {ledger} {away}")).unwrap().starts_with('$')
    );
    finished(&daemon.client, &id).await;
    Account::of(&daemon.client, &id, &relay).await.nobody_twice(RECIPIENTS, CONNECTIONS * WINDOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_confirmation_is_carried_out() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let mut daemon = Daemon::start(&settings(&redis, &relay)).await;
    for wait_ms in [0, 3, 10, 40] {
        let id = daemon.client.create(&definition()).await;
        daemon.client.upload(&id, audience(200)).await;
        let digest =
            daemon.client.prepare(&id).await["plan"]["digest"].as_str().unwrap().to_owned();
        let (status, answer) = daemon.client.confirm(&id, &digest).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        sleep(Duration::from_millis(wait_ms)).await;
        daemon.restart().await;
        finished(&daemon.client, &id).await;
        let log = daemon.client.log(&id).await;
        let sent = log.iter().filter(|line| line["status"] == "sent").count();
        assert!(log.len() == 200 && sent >= 200 - CONNECTIONS * WINDOW, "{sent}");
    }
    // The deliveries share their addresses: nobody gets more than one message of each delivery.
    assert!(
        relay
            .received()
            .values()
            .all(|ids| ids.len() <= 4 && (1..ids.len()).all(|i| !ids[i..].contains(&ids[i - 1])))
    );
    figures_agree(&daemon).await;
}

//! The recording of hits: batches, the limit of a recipient, and positions in a chunk.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_hits_has_the_same_effect_as_single_hits() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nchunk_size = 2").await;
    let (batches, per_batch) = (6, 750_u32);
    let agents = [tracking::FIREFOX, "", "curl/8"];
    let one = |n: u32| {
        let kind = HitKind::ALL[n as usize / 7 % 3];
        let label = [HitLabel::Human, HitLabel::ImageProxy, HitLabel::Agent, HitLabel::AppleProxy]
            [n as usize / 11 % 4];
        (Hit { at_ms: u64::from(n), ..hit(n * 3 / 2 % 5, kind, label) }, agents[n as usize % 3])
    };
    let all: Vec<(Hit, &str)> = (0..batches * per_batch).map(one).collect();
    let (first, rest) = all.split_at(per_batch as usize);
    let id = sent(&app, first).await;
    let (stores, plan) = (
        &app.services.stores,
        app.services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap(),
    );
    let mailing = PreparationRef {
        delivery: id.clone(),
        generation: plan.generation,
        chunk_size: plan.chunk_size,
    };
    for batch in rest.chunks(per_batch as usize) {
        assert_eq!(
            stores.tracking.record_hits(&mailing, batch, 0).await.unwrap(),
            batch.len() as u64
        );
    }

    let names = stores.tracking.agents(&id).await.unwrap();
    let blocks = stores.tracking.hit_blocks(&id, 0..3).await.unwrap();
    assert_eq!(
        blocks.iter().map(|(_, bytes)| bytes.len() / HIT_BYTES).collect::<Vec<_>>(),
        [4096, all.len() - 4096]
    );
    let bytes: Vec<u8> = blocks.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let (lines, _) = bytes.as_chunks::<HIT_BYTES>();
    let mut log: Vec<(Hit, &str)> = lines
        .iter()
        .map(|line| Hit::decode(line).unwrap())
        .map(|hit| {
            (Hit { agent: NO_AGENT, ..hit }, names.get(&hit.agent).map_or("", String::as_str))
        })
        .collect();
    let of = |recipient: u32| all.iter().filter(move |(hit, _)| hit.recipient == recipient);
    for recipient in 0..5 {
        // The lines of one recipient are in the order in which they came.
        assert!(log.iter().filter(|(hit, _)| hit.recipient == recipient).eq(of(recipient)));
    }
    log.sort_by_key(|(hit, _)| hit.at_ms);
    assert!(log == all);
    for recipient in 0..5 {
        let at = 32 + 16 * (recipient % 2) + 13;
        let mut tracked = redis::cmd("GETRANGE");
        tracked.arg(format!("versand:{{{id}}}:ledger:{}", recipient / 2)).arg(at).arg(at + 2);
        let tracked: Vec<u8> = tracked.query_async(&mut stores.redis.connection()).await.unwrap();
        let bits = of(recipient).fold(0, |bits, (hit, _)| bits | hit.tracked());
        let [high, low] = (of(recipient).count() as u16).to_be_bytes();
        assert_eq!(tracked, [bits, high, low], "{recipient}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_that_is_not_logged_leaves_nothing() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = sent(&app, &[]).await;
    let (stores, plan) = (
        &app.services.stores,
        app.services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap(),
    );
    let mailing = PreparationRef {
        delivery: id.clone(),
        generation: plan.generation,
        chunk_size: plan.chunk_size,
    };
    let record = async |recipient: u32, agents: std::ops::Range<u32>| {
        let agents: Vec<String> = agents.map(|n| format!("Mozilla/{n}")).collect();
        let hits: Vec<(Hit, &str)> = agents
            .iter()
            .map(|agent| (hit(recipient, HitKind::Open, HitLabel::Human), agent.as_str()))
            .collect();
        stores.tracking.record_hits(&mailing, &hits, 0).await.unwrap()
    };
    // No recipient has this number.
    assert_eq!(record(5, 0..10).await, 0);
    assert_eq!(
        (
            stores.tracking.agents(&id).await.unwrap().len(),
            stores.tracking.log_extent(&id).await.unwrap().hits
        ),
        (0, 0)
    );
    // Hits beyond the limit of a recipient are only counted. Their user agents are not kept.
    assert_eq!((record(1, 0..700).await, record(1, 700..1400).await), (700, 700));
    let extent = stores.tracking.log_extent(&id).await.unwrap();
    assert_eq!(
        (stores.tracking.agents(&id).await.unwrap().len(), extent.hits, extent.beyond),
        (1000, 1000, 400)
    );
    // Links of a deleted delivery still cause hits. They are not logged either.
    let deleted =
        app.client.request(Method::DELETE, &format!("/deliveries/{id}")).send().await.unwrap();
    assert!(deleted.status().is_success());
    assert_eq!(record(2, 0..10).await, 0);
    assert_eq!(
        (
            stores.tracking.agents(&id).await.unwrap().len(),
            stores.tracking.log_extent(&id).await.unwrap().hits
        ),
        (0, 0)
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_far_apart_in_a_chunk_are_recorded_like_close_ones() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = app.client.send(&tracking::definition(), audience(500)).await;
    app.client.wait_for(&id, &["finished"]).await;
    let id: DeliveryId = id.parse().unwrap();
    let (stores, plan) = (
        &app.services.stores,
        app.services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap(),
    );
    assert_eq!(plan.chunks, 1);
    let mailing = PreparationRef {
        delivery: id.clone(),
        generation: plan.generation,
        chunk_size: plan.chunk_size,
    };
    let [first, last] =
        [0, 450].map(|number| (hit(number, HitKind::Open, HitLabel::Human), tracking::FIREFOX));
    let click = (hit(450, HitKind::Click, HitLabel::Human), tracking::FIREFOX);
    for batch in [vec![first, last], vec![last, first], vec![click, first]] {
        assert_eq!(stores.tracking.record_hits(&mailing, &batch, 0).await.unwrap(), 2);
    }
    let ledger = stores.ledgers.ledgers(&id, 0..1).await.unwrap().remove(0).unwrap();
    let opened: Vec<(usize, u8)> = ledger
        .records()
        .map(|record| record.tracked)
        .enumerate()
        .filter(|(_, tracked)| *tracked != 0)
        .collect();
    assert_eq!(opened, [(0, 1), (450, 1 | 8)]);
    app.services.feedback.statistics.compute(&id, false).await.unwrap();
    assert_eq!(stored_figures(&app, &id).await["unique_clicks"], json!(1));
    app.stop().await;
}

//! Rust and Lua agree on which waves are due and which are overdue.

use versand::{
    domain::{
        delivery::DeliveryId,
        schedule::{ChunkPlace, Wave, WaveState},
    },
    store::{Redis, Stores},
};

use crate::harness::{app::idle, direct_calls::prepared, redis::RedisServer};

const NOW: u32 = 1_796_000_000;

/// The state that Rust expects of a wave that waits at [`NOW`].
fn expected(due: u32, grace_s: u32) -> WaveState {
    let wave = Wave::waiting(due, 1);
    match () {
        () if due > NOW => WaveState::Waiting,
        () if wave.is_overdue(NOW, grace_s) => WaveState::Held,
        () => WaveState::Released,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_is_overdue_in_redis_exactly_when_the_domain_says_so() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let (id, _): (DeliveryId, String) = prepared(services, 1).await;
    let mut plan = services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap();
    let stores = Stores::new(
        Redis::connect(&redis.settings()).await.unwrap(),
        &crate::harness::installation_key(),
    );
    // The script releases no wave of a delivery that is only prepared.
    let mut start = redis::cmd("HSET");
    start.arg(format!("versand:{{{id}}}:delivery")).arg("state").arg("in_progress");
    let _: () = start.query_async(&mut stores.redis.connection()).await.unwrap();
    let back = [0, 1, 59, 60, 61, 119, 120, 121, 3600, 86_400];
    let dues: Vec<u32> = [0, 1, NOW + 1, NOW + 3600]
        .into_iter()
        .chain(back.into_iter().map(|seconds| NOW - seconds))
        .collect();
    // 0.99 minutes are not a whole number of seconds.
    for grace_minutes in [0.0, 0.99, 1.0, 2.0, 10_080.0] {
        plan.settings.grace_minutes = grace_minutes;
        plan.waves = dues.len() as u32;
        let waves: Vec<Wave> = dues.iter().map(|due| Wave::waiting(*due, 1)).collect();
        let places = [ChunkPlace { wave: 0, recipients: 1 }];
        stores.schedules.write_waves(&id, plan.generation, &waves, &places).await.unwrap();
        stores.schedules.release_waves(&id, &plan, NOW, false).await.unwrap();
        let found = stores.schedules.waves(&id, &plan).await.unwrap();
        for (due, wave) in dues.iter().zip(found) {
            let wanted = expected(*due, plan.settings.grace_s());
            assert_eq!(wave.state, wanted, "due {due}, grace {grace_minutes} minutes");
        }
    }
}

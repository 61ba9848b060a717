//! The scripts do what the protocol says: random steps on a real redis-server and on the specification, compared after each.

use std::cell::Cell;

use proptest::{
    collection::vec,
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use versand::{
    domain::{delivery::DeliveryId, ledger::Ledger},
    store::{
        Store,
        chunks::{Batch, ChunkRef, Claim, Lease, LeaseVerdict, Taken, TakeoverGrounds},
        keys,
    },
};

use super::{
    play::Play,
    spec::Mutation,
    steps::{RECIPIENTS, Step, WIDE, step, wide_step},
};
use crate::harness::redis::RedisServer;

const CASES: u32 = 1_000;
const WIDE_CASES: u32 = 1_000;
const TEST_CASES: u32 = 500;
const LONGEST: usize = 60;

/// Plays random sequences against the scripts until one differs, on a chunk of so many recipients, in SMTP test mode or not.
fn explore(
    mutation: Mutation,
    cases: u32,
    chunk: (u16, bool),
    step: impl Strategy<Value = Step>,
) -> Result<(), TestError<Vec<Step>>> {
    // What is compared is what the scripts do, not what a disk keeps.
    let redis = RedisServer::start_with(&["--appendfsync", "no"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(Store::connect(&redis.settings())).unwrap();
    let played = Cell::new(0u64);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    // A mistake must be found in every run; what nobody thought of may be found in any.
    let mut runner = match mutation {
        Mutation::Faithful => TestRunner::new(config),
        _ => TestRunner::new_with_rng(Config { max_shrink_iters: 0, ..config }, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let outcome = runner.run(&vec(step, 1..=LONGEST), |steps| {
        played.set(played.get() + 1);
        let mut id = [0; 10];
        id[2..].copy_from_slice(&played.get().to_be_bytes());
        runtime.block_on(async {
            let mut play = Play::begin(&store, DeliveryId::from_random(id), chunk, mutation).await;
            for (at, step) in steps.iter().enumerate() {
                let compared = play.step(step).await;
                compared.map_err(|difference| TestCaseError::fail(format!("step {at}, {step:?}: {difference}")))?;
            }
            Ok(())
        })
    });
    eprintln!("{mutation:?}: {} sequences", played.get());
    outcome
}

#[test]
fn the_scripts_do_what_the_protocol_says() {
    must_agree(explore(Mutation::Faithful, CASES, (RECIPIENTS, false), step()));
}

/// Also with reports that no test makes.
#[test]
fn in_test_mode_the_scripts_do_what_the_protocol_says() {
    must_agree(explore(Mutation::Faithful, TEST_CASES, (RECIPIENTS, true), step()));
}

/// Groups as workers send them: the scripts decide most of these on a shorter way.
#[test]
fn in_a_wide_chunk_the_scripts_do_what_the_protocol_says() {
    must_agree(explore(Mutation::Faithful, WIDE_CASES, (WIDE, false), wide_step()));
}

fn must_agree(outcome: Result<(), TestError<Vec<Step>>>) {
    if let Err(TestError::Fail(why, steps)) = outcome {
        panic!("{why}\nafter\n{}", steps.iter().map(|s| format!("  {s:?}\n")).collect::<String>());
    }
}

/// The epoch comes a second time when Redis has forgotten the first, and it may come to the same owner.
#[tokio::test]
async fn a_lease_that_redis_forgot_is_not_mistaken_for_the_next_one() {
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let store = Store::connect(&redis.settings()).await.unwrap();
    store.durability().await.unwrap();
    let at = ChunkRef { delivery: DeliveryId::from_random([1; 10]), chunk: 0 };
    let lay_out = async || {
        let mut set = redis::cmd("SET");
        set.arg(keys::ledger(&at.delivery, at.chunk)).arg(Ledger::new(1).bytes());
        let () = set.query_async(&mut store.connection()).await.unwrap();
    };
    let take = async || match store.take(&at, 7, TakeoverGrounds::default(), 0).await.unwrap() {
        Taken::Yes(lease, _) => lease,
        held => panic!("{held:?}"),
    };
    lay_out().await;
    let forgotten = take().await;
    lay_out().await;
    let lease = take().await;
    assert_eq!((forgotten.owner, forgotten.epoch), (lease.owner, lease.epoch));
    let turn = Batch { claims: vec![Claim { position: 0, n: 1 }], ..Batch::default() };
    for seq in lease.seq..lease.seq + 2 {
        assert_eq!(store.beat(&at, &forgotten).await.unwrap(), LeaseVerdict::RolledBack);
        assert_eq!(store.turn(&at, &forgotten, &turn, 0, None).await.unwrap().lease, LeaseVerdict::RolledBack);
        assert_eq!(store.turn(&at, &Lease { seq, ..lease }, &turn, 0, None).await.unwrap().lease, LeaseVerdict::Ok);
    }
}

#[test]
fn a_mistake_in_the_protocol_is_told_apart_from_the_scripts() {
    for mistake in Mutation::MISTAKES {
        assert!(
            matches!(explore(mistake, CASES, (RECIPIENTS, false), step()), Err(TestError::Fail(..))),
            "{mistake:?} was not seen"
        );
    }
}

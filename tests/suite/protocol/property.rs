//! Random steps on a real redis-server and on the specification, compared after each step.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use versand::{
    domain::{
        delivery::DeliveryId,
        ledger::{ChunkRef, Ledger, Status},
        tracking::HitClass,
    },
    store::{
        Redis, Stores,
        chunks::{Batch, Claim, Lease, LeaseVerdict, Taken, TakeoverGrounds},
        keys,
    },
};

use super::{
    mutation::Mutation,
    play::{Beginning, Play},
    steps::{RECIPIENTS, Step, WIDE, crowded_sequence, sequence, wide_sequence},
};
use crate::harness::redis::RedisServer;

const CASES: u32 = 1_000;
const WIDE_CASES: u32 = 500;
const TEST_CASES: u32 = 250;
const CROWDED_CASES: u32 = 6;
/// Some mistakes show only after many steps in the right order.
const MISTAKE_CASES: u32 = 5_000;
const FEW: Beginning = Beginning { recipients: RECIPIENTS, test: false, agents: 0 };

type Outcome = Result<(), TestError<Vec<Step>>>;

/// Plays `cases` random sequences against the scripts, or fewer if one differs. Returns also the
/// cases that hits have met.
fn explore(
    mutation: Mutation,
    cases: u32,
    beginning: Beginning,
    sequences: impl Strategy<Value = Vec<Step>>,
) -> (Outcome, BTreeSet<String>) {
    // The test compares the scripts. The disk does not matter here.
    let redis = RedisServer::start_with(&["--appendfsync", "no"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stores = Stores::new(
        runtime.block_on(Redis::connect(&redis.settings())).unwrap(),
        &crate::harness::installation_key(),
    );
    let (played, met) = (Cell::new(0u64), RefCell::new(BTreeSet::new()));
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    // A known mistake gets the same steps in each run, so that each run finds it. Else steps vary.
    let mut runner = match mutation {
        Mutation::Faithful => TestRunner::new(config),
        _ => TestRunner::new_with_rng(
            Config { max_shrink_iters: 0, ..config },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        ),
    };
    let outcome = runner.run(&sequences, |steps| {
        played.set(played.get() + 1);
        let mut id = [0; 10];
        id[2..].copy_from_slice(&played.get().to_be_bytes());
        runtime.block_on(async {
            let mut play =
                Play::begin(&stores, DeliveryId::from_random(id), beginning, mutation).await;
            for (at, step) in steps.iter().enumerate() {
                let compared = play.step(step).await;
                compared.map_err(|difference| {
                    TestCaseError::fail(format!("step {at}, {step:?}: {difference}"))
                })?;
            }
            met.borrow_mut().extend(play.met);
            Ok(())
        })
    });
    eprintln!("{mutation:?}: {} sequences", played.get());
    (outcome, met.into_inner())
}

/// Hits of recipients in every status, with every possible effect of a hit.
fn all_hit_cases() -> BTreeSet<String> {
    let all = Status::ALL.iter().flat_map(|status| {
        HitClass::ALL.map(|class| format!("{} by {}", status.word(), class.word()))
    });
    let rest = [
        "a log",
        "another plan",
        "a log that was removed",
        "nobody",
        "the limit of a recipient",
        "the next block",
    ];
    all.chain(rest.map(str::to_owned)).chain(["proofs in two chunks".to_owned()]).collect()
}

#[test]
fn the_scripts_follow_the_protocol() {
    let (outcome, met) = explore(Mutation::Faithful, CASES, FEW, sequence());
    check_agreement(outcome);
    assert_eq!(met, all_hit_cases());
}

/// Chunks of an SMTP test. The steps also contain reports that no SMTP test makes.
#[test]
fn the_scripts_follow_the_protocol_in_test_mode() {
    check_agreement(
        explore(Mutation::Faithful, TEST_CASES, Beginning { test: true, ..FEW }, sequence()).0,
    );
}

/// Batches as workers send them. The script `claim_and_record_fast.lua` decides most of these.
#[test]
fn the_scripts_follow_the_protocol_in_a_wide_chunk() {
    check_agreement(
        explore(
            Mutation::Faithful,
            WIDE_CASES,
            Beginning { recipients: WIDE, ..FEW },
            wide_sequence(),
        )
        .0,
    );
}

/// Two more user agents get a number, and all others get none.
#[test]
fn the_scripts_follow_the_protocol_when_user_agent_numbers_run_out() {
    check_agreement(
        explore(
            Mutation::Faithful,
            CROWDED_CASES,
            Beginning { agents: 9_998, ..FEW },
            crowded_sequence(),
        )
        .0,
    );
}

/// Ten times as many sequences as the tests above play.
#[test]
#[ignore = "takes minutes: make worlds"]
fn the_scripts_follow_the_protocol_in_many_sequences() {
    let wide = Beginning { recipients: WIDE, ..FEW };
    check_agreement(explore(Mutation::Faithful, 10 * WIDE_CASES, wide, wide_sequence()).0);
    for test in [false, true] {
        let beginning = Beginning { test, ..FEW };
        check_agreement(explore(Mutation::Faithful, 10 * CASES, beginning, sequence()).0);
    }
}

fn check_agreement(outcome: Outcome) {
    if let Err(TestError::Fail(why, steps)) = outcome {
        panic!("{why}\nafter\n{}", steps.iter().map(|s| format!("  {s:?}\n")).collect::<String>());
    }
}

/// An epoch comes a second time if Redis has forgotten the first one. Even the owner may be the
/// same.
#[tokio::test]
async fn a_lease_that_redis_lost_is_not_mistaken_for_the_next_one() {
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let stores = Stores::new(
        Redis::connect(&redis.settings()).await.unwrap(),
        &crate::harness::installation_key(),
    );
    stores.redis.durability().await.unwrap();
    let at = ChunkRef { delivery: DeliveryId::from_random([1; 10]), chunk: 0 };
    let write_to_redis = async || {
        let mut set = redis::cmd("SET");
        set.arg(keys::ledger(&at.delivery, at.chunk)).arg(Ledger::new(1).bytes());
        let () = set.query_async(&mut stores.redis.connection()).await.unwrap();
    };
    let take = async || match stores
        .ledgers
        .take_lease(&at, 7, TakeoverGrounds::default(), 0)
        .await
        .unwrap()
    {
        Taken::Yes(lease, _) => lease,
        held => panic!("{held:?}"),
    };
    write_to_redis().await;
    let forgotten = take().await;
    write_to_redis().await;
    let lease = take().await;
    assert_eq!((forgotten.owner, forgotten.epoch), (lease.owner, lease.epoch));
    let batch = Batch { claims: vec![Claim { position: 0, n: 1 }], ..Batch::default() };
    for seq in lease.seq..lease.seq + 2 {
        assert_eq!(
            stores.ledgers.renew_lease(&at, &forgotten).await.unwrap(),
            LeaseVerdict::RolledBack
        );
        assert_eq!(
            stores.ledgers.write_batch(&at, &forgotten, &batch, 0, None).await.unwrap().lease,
            LeaseVerdict::RolledBack
        );
        assert_eq!(
            stores
                .ledgers
                .write_batch(&at, &Lease { seq, ..lease }, &batch, 0, None)
                .await
                .unwrap()
                .lease,
            LeaseVerdict::Ok
        );
    }
}

#[test]
fn the_comparison_finds_each_mistake_in_the_protocol() {
    for mistake in Mutation::MISTAKES.into_iter().chain(Mutation::NOT_IN_THE_MODEL) {
        assert!(
            matches!(explore(mistake, MISTAKE_CASES, FEW, sequence()).0, Err(TestError::Fail(..))),
            "{mistake:?} was not seen"
        );
    }
}

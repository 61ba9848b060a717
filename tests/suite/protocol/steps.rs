//! Random steps of workers, people, the reconciler and the clock. Indices are taken modulo what there is when the step is taken.

use proptest::{collection::vec, prelude::*};
use versand::{
    domain::{delivery::DeliveryState, ledger::Status},
    store::chunks::{Evidence, Settlement},
};

pub const RECIPIENTS: u16 = 4;
/// Recipients of a chunk that is wide enough for groups of the size that workers send.
pub const WIDE: u16 = 60;
pub const WORKERS: usize = 3;

/// On which grounds a chunk is taken.
#[derive(Debug, Clone, Copy)]
pub enum Why {
    Free,
    /// Epoch and beat as they are.
    Still,
    /// Epoch and beat as they were.
    Moved,
    /// The owner is dead.
    Dead,
    /// Somebody else is dead.
    OtherDead,
}

/// A report: of the `claim`th claim that was ever granted, or of one that never was.
#[derive(Debug, Clone)]
pub struct Said {
    pub claim: usize,
    pub forged: bool,
    pub status: Option<Status>,
    pub flag: bool,
    pub reason: u8,
    pub later_s: u32,
    pub reply: &'static str,
}

/// A claim: of a position, which may be beyond the end, with the next number or an earlier one again.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub position: u16,
    pub fresh: bool,
}

#[derive(Debug, Clone)]
pub enum Step {
    Take {
        worker: usize,
        why: Why,
    },
    Beat {
        worker: usize,
    },
    Turn {
        worker: usize,
        said: Vec<Said>,
        wanted: Vec<Wanted>,
        lost: bool,
    },
    /// The last group again, unchanged: its answer was lost, or the worker is late.
    Repeat {
        worker: usize,
    },
    /// The last group again, as one that Redis has forgotten.
    Redo {
        worker: usize,
    },
    Doubt {
        worker: usize,
    },
    Evidence {
        position: u16,
        evidence: Evidence,
    },
    /// Redis is as it was when this was done last, and another run of it.
    RollBack,
    /// As it is now it may be again.
    Remember,
    Promise {
        goes_back: bool,
    },
    Release {
        worker: usize,
    },
    Settle {
        settlement: Settlement,
        positions: Option<Vec<u16>>,
    },
    /// The state is made stopping before, mostly.
    Cancel {
        stop: bool,
    },
    Offer {
        window: usize,
    },
    Reopen {
        rounds_ago: u32,
    },
    State(DeliveryState),
    Policy(Option<u32>),
    Time(u32),
    Track {
        position: u16,
        bytes: [u8; 3],
    },
}

fn said() -> impl Strategy<Value = Said> {
    let status = prop_oneof![
        3 => Just(Some(Status::Sent)),
        2 => Just(Some(Status::Failed)),
        2 => Just(Some(Status::Deferred)),
        2 => Just(Some(Status::InDoubt)),
        2 => Just(None),
    ];
    let reply = prop_oneof![Just(""), Just("250 2.0.0 ok"), Just("550 5.1.1 no")];
    let parts = (0..4usize, prop::bool::weighted(0.1), status, any::<bool>(), 0..4u8, 0..5u32, reply);
    parts.prop_map(|(claim, forged, status, flag, reason, later_s, reply)| Said {
        claim,
        forged,
        status,
        flag,
        reason,
        later_s,
        reply,
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (0..RECIPIENTS + 1, prop::bool::weighted(0.9)).prop_map(|(position, fresh)| Wanted { position, fresh })
}

pub fn step() -> impl Strategy<Value = Step> {
    let worker = || 0..WORKERS;
    let why = prop_oneof![4 => Just(Why::Free), 3 => Just(Why::Still), 1 => Just(Why::Moved), 2 => Just(Why::Dead), 1 => Just(Why::OtherDead)];
    let settlement = prop_oneof![Just(Settlement::Sent), Just(Settlement::Failed), Just(Settlement::Resend)];
    let evidence =
        prop_oneof![(0..4u8, any::<bool>()).prop_map(|(reason, hard)| Evidence::Bounce { reason, hard }), Just(Evidence::Hit)];
    let positions = prop::option::of(vec(0..RECIPIENTS + 1, 0..4));
    let state = prop_oneof![
        6 => Just(DeliveryState::InProgress),
        1 => Just(DeliveryState::Pausing),
        1 => Just(DeliveryState::Stopping),
        1 => Just(DeliveryState::Stopped),
        1 => Just(DeliveryState::Finished),
    ];
    prop_oneof![
        5 => (worker(), why).prop_map(|(worker, why)| Step::Take { worker, why }),
        1 => worker().prop_map(|worker| Step::Beat { worker }),
        14 => (worker(), vec(said(), 0..3), vec(wanted(), 0..4), prop::bool::weighted(0.2))
            .prop_map(|(worker, said, wanted, lost)| Step::Turn { worker, said, wanted, lost }),
        3 => worker().prop_map(|worker| Step::Repeat { worker }),
        2 => worker().prop_map(|worker| Step::Redo { worker }),
        1 => worker().prop_map(|worker| Step::Doubt { worker }),
        2 => (0..RECIPIENTS + 1, evidence).prop_map(|(position, evidence)| Step::Evidence { position, evidence }),
        1 => Just(Step::RollBack),
        2 => Just(Step::Remember),
        1 => prop::bool::weighted(0.7).prop_map(|goes_back| Step::Promise { goes_back }),
        2 => worker().prop_map(|worker| Step::Release { worker }),
        2 => (settlement, positions).prop_map(|(settlement, positions)| Step::Settle { settlement, positions }),
        2 => prop::bool::weighted(0.8).prop_map(|stop| Step::Cancel { stop }),
        1 => (0..3usize).prop_map(|window| Step::Offer { window }),
        1 => (0..2u32).prop_map(|rounds_ago| Step::Reopen { rounds_ago }),
        4 => state.prop_map(Step::State),
        2 => prop::option::of(0..4u32).prop_map(Step::Policy),
        3 => (0..6u32).prop_map(Step::Time),
        1 => (0..RECIPIENTS, any::<[u8; 3]>()).prop_map(|(position, bytes)| Step::Track { position, bytes }),
    ]
}

/// Runs of claims, and reports of most of those that were granted, nearly all of them a 250: groups as workers send them.
pub fn wide_step() -> impl Strategy<Value = Step> {
    let sent = (0..24usize, prop::bool::weighted(0.9), 0..2u32, prop_oneof![9 => Just(""), 1 => Just("250 2.0.0 ok")]);
    let sent = sent.prop_map(|(claim, flag, later_s, reply)| Said {
        claim,
        forged: false,
        status: Some(Status::Sent),
        flag,
        reason: 0,
        later_s,
        reply,
    });
    let any_other = (said(), 0..24usize).prop_map(|(said, claim)| Said { claim, ..said });
    let said = vec(prop_oneof![12 => sent, 1 => any_other], 0..16);
    let run = (0..WIDE, 1..12u16, prop::bool::weighted(0.9)).prop_map(|(first, many, fresh)| {
        (first..(first + many).min(WIDE + 1)).map(|position| Wanted { position, fresh }).collect::<Vec<_>>()
    });
    let turn = (0..2usize, said, vec(run, 0..3), prop::bool::weighted(0.05));
    let why = prop_oneof![3 => Just(Why::Free), 1 => Just(Why::Still)];
    prop_oneof![
        2 => (0..2usize, why).prop_map(|(worker, why)| Step::Take { worker, why }),
        20 => turn.prop_map(|(worker, said, wanted, lost)| Step::Turn { worker, said, wanted: wanted.concat(), lost }),
        2 => (0..WIDE, any::<[u8; 3]>()).prop_map(|(position, bytes)| Step::Track { position, bytes }),
        1 => Just(Step::State(DeliveryState::InProgress)),
        3 => Just(Step::Remember),
        2 => Just(Step::RollBack),
        4 => (0..2usize).prop_map(|worker| Step::Redo { worker }),
        2 => prop::option::of(0..4u32).prop_map(Step::Policy),
        4 => step(),
    ]
}

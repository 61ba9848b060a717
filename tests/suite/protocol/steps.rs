//! Random steps of workers, people, the reconciler and the clock.
//!
//! The index of a claim or of a line of the log is taken modulo their number at that step.

use proptest::{collection::vec, prelude::*};
use versand::{
    domain::{
        audience::ExclusionCause,
        delivery::DeliveryState,
        ledger::Status,
        tracking::{HitKind, HitLabel},
    },
    store::chunks::Settlement,
};

use super::tracking::{Cache, FAR};

pub const RECIPIENTS: u16 = 4;
/// The size of a chunk that is wide enough for batches as workers send them.
pub const WIDE: u16 = 60;
pub const WORKERS: usize = 3;
/// Stands for the worker that holds the chunk, or for the first worker if none does.
pub const HOLDER: usize = WORKERS;

/// The grounds on which a chunk is taken.
#[derive(Debug, Clone, Copy)]
pub enum Why {
    Free,
    /// The taker has watched epoch and beat, and they have not changed.
    Still,
    /// The beat has changed since the taker looked.
    Moved,
    /// The owner is dead.
    Dead,
    /// Another worker is dead.
    OtherDead,
}

/// A report of a granted claim, or of one that was never granted (`forged`). `claim` counts the
/// granted claims from the newest.
#[derive(Debug, Clone)]
pub struct RandomReport {
    pub claim: usize,
    pub forged: bool,
    pub status: Option<Status>,
    pub flag: bool,
    pub reason: u8,
    pub later_s: u32,
    pub reply: &'static str,
}

/// A claim of a position, which may be beyond the end. It has the next number or an earlier one
/// again.
#[derive(Debug, Clone, Copy)]
pub struct RandomClaim {
    pub position: u16,
    pub fresh: bool,
}

/// A hit of a recipient: of the chunk, of its neighbour (1), or of a chunk that does not exist (2).
#[derive(Debug, Clone, Copy)]
pub struct RandomHit {
    pub chunk: u32,
    pub position: u16,
    pub kind: HitKind,
    pub label: HitLabel,
    pub agent: &'static str,
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
    Batch {
        worker: usize,
        reports: Vec<RandomReport>,
        claims: Vec<RandomClaim>,
        lost: bool,
    },
    /// The last batch again, unchanged: its answer was lost, or the worker is late.
    Repeat {
        worker: usize,
    },
    /// The last batch again, as one that Redis has forgotten.
    Redo {
        worker: usize,
    },
    Doubt {
        worker: usize,
    },
    /// No code reads bounces yet: the step writes the record of a `claim` as the protocol says.
    Bounce {
        claim: usize,
        reason: u8,
        hard: bool,
    },
    Hits {
        of_plan: bool,
        hits: Vec<RandomHit>,
    },
    /// The statistics correct the tracking flags of a record. Their earlier read may be wrong or
    /// outdated.
    CorrectTracked {
        chunk: u32,
        position: u16,
        wrong: bool,
        outdated: bool,
        bits: u8,
    },
    /// The statistics give a line of the log another label. Their earlier read may be wrong, too.
    Relabel {
        line: usize,
        wrong: bool,
        outdated: bool,
        label: HitLabel,
    },
    /// Retention has removed the tracking log, or it has not.
    Sweep {
        swept: bool,
    },
    Exclude {
        worker: usize,
        who: Vec<(u16, ExclusionCause)>,
        /// The answer is lost, and the exclusion is sent twice.
        lost: bool,
    },
    /// The chunk is set aside, or a person wants a retry.
    Poisoned {
        set: bool,
    },
    /// Another run of Redis begins with the state of the last `Remember`, or else of the beginning.
    RollBack,
    /// Redis may go back to its present state.
    Remember,
    Promise {
        goes_back: bool,
    },
    GiveBack {
        worker: usize,
    },
    Settle {
        settlement: Settlement,
        positions: Option<Vec<u16>>,
    },
    /// Most of these steps set the state to stopping first.
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
        cache: Cache,
    },
}

fn random_report() -> impl Strategy<Value = RandomReport> {
    let status = prop_oneof![
        3 => Just(Some(Status::Sent)),
        1 => Just(Some(Status::Failed)),
        2 => Just(Some(Status::Deferred)),
        2 => Just(Some(Status::InDoubt)),
        2 => Just(None),
    ];
    let reply = prop_oneof![Just(""), Just("250 2.0.0 ok"), Just("550 5.1.1 no")];
    let claim = prop_oneof![4 => 0..4usize, 1 => 4..9usize];
    let parts = (claim, prop::bool::weighted(0.1), status, any::<bool>(), 0..4u8, 0..5u32, reply);
    parts.prop_map(|(claim, forged, status, flag, reason, later_s, reply)| RandomReport {
        claim,
        forged,
        status,
        flag,
        reason,
        later_s,
        reply,
    })
}

fn random_claim() -> impl Strategy<Value = RandomClaim> {
    (0..RECIPIENTS + 1, prop::bool::weighted(0.9))
        .prop_map(|(position, fresh)| RandomClaim { position, fresh })
}

fn random_hit(place: impl Strategy<Value = (u32, u16)>) -> impl Strategy<Value = RandomHit> {
    let (kind, label) =
        (prop::sample::select(&HitKind::ALL[..]), prop::sample::select(&HitLabel::ALL[..]));
    let agent = prop::sample::select(&["", "Firefox", "Thunderbird", "curl"][..]);
    let parts = (place, kind, label, agent);
    parts.prop_map(|((chunk, position), kind, label, agent)| RandomHit {
        chunk,
        position,
        kind,
        label,
        agent,
    })
}

fn hits() -> impl Strategy<Value = Step> {
    let neighbour = prop_oneof![0..8u16, FAR..FAR + 9];
    let place = prop_oneof![5 => (Just(0), 0..RECIPIENTS + 1), 4 => (Just(1), neighbour), 1 => (Just(2), 0..2u16)];
    (prop::bool::weighted(0.9), vec(random_hit(place), 1..7))
        .prop_map(|(of_plan, hits)| Step::Hits { of_plan, hits })
}

/// Hits with a few user agents, and roll-backs.
pub fn crowded_sequence() -> impl Strategy<Value = Vec<Step>> {
    vec(prop_oneof![6 => hits(), 1 => Just(Step::Remember), 1 => Just(Step::RollBack)], 1..=LONGEST)
}

fn cache() -> impl Strategy<Value = Cache> {
    let lines = prop_oneof![0..3u16, 997..1003u16, 0..60_000u16];
    (any::<u8>(), lines).prop_map(|(bits, lines)| Cache { bits, lines })
}

const LONGEST: usize = 60;

/// Sequences of steps. Most begin with a lease and claims. In half of them many reports are late.
pub fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let late = prop_oneof![2 => step(), 1 => late_step()];
    let steps = prop_oneof![vec(step(), 1..=LONGEST), vec(late, 1..=LONGEST)];
    let begun = prop::option::weighted(0.8, any::<bool>());
    (begun, steps)
        .prop_map(|(begun, steps)| begun.map(begin).into_iter().flatten().chain(steps).collect())
}

fn begin(goes_back: bool) -> Vec<Step> {
    let claims = (0..RECIPIENTS).map(|position| RandomClaim { position, fresh: true }).collect();
    let batch = Step::Batch { worker: HOLDER, reports: Vec::new(), claims, lost: false };
    vec![Step::Promise { goes_back }, Step::Take { worker: HOLDER, why: Why::Free }, batch]
}

/// Mostly the holder: most steps of the others have no effect, and a sequence must get far.
fn worker() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(HOLDER), 1 => 0..WORKERS]
}

/// Mostly steps that move recipients on, and sometimes others.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![5 => moving_step(), 1 => other_step()]
}

fn moving_step() -> impl Strategy<Value = Step> {
    let why = prop_oneof![4 => Just(Why::Free), 3 => Just(Why::Still), 1 => Just(Why::Moved), 2 => Just(Why::Dead), 1 => Just(Why::OtherDead)];
    let settlement =
        prop_oneof![Just(Settlement::Sent), Just(Settlement::Failed), Just(Settlement::Resend)];
    let positions = prop::option::of(vec(0..RECIPIENTS + 1, 0..4));
    let state = prop_oneof![
        24 => Just(DeliveryState::InProgress),
        1 => Just(DeliveryState::Pausing),
        1 => Just(DeliveryState::Stopping),
        1 => Just(DeliveryState::Stopped),
        1 => Just(DeliveryState::Finished),
    ];
    prop_oneof![
        5 => (worker(), why).prop_map(|(worker, why)| Step::Take { worker, why }),
        1 => worker().prop_map(|worker| Step::Beat { worker }),
        14 => (worker(), vec(random_report(), 0..3), vec(random_claim(), 0..4), prop::bool::weighted(0.2))
            .prop_map(|(worker, reports, claims, lost)| Step::Batch { worker, reports, claims, lost }),
        3 => worker().prop_map(|worker| Step::Repeat { worker }),
        2 => worker().prop_map(|worker| Step::Redo { worker }),
        1 => worker().prop_map(|worker| Step::Doubt { worker }),
        1 => bounce(),
        1 => Just(Step::RollBack),
        2 => Just(Step::Remember),
        1 => prop::bool::weighted(0.7).prop_map(|goes_back| Step::Promise { goes_back }),
        2 => worker().prop_map(|worker| Step::GiveBack { worker }),
        2 => (settlement, positions).prop_map(|(settlement, positions)| Step::Settle { settlement, positions }),
        1 => prop::bool::weighted(0.6).prop_map(|stop| Step::Cancel { stop }),
        1 => (0..3usize).prop_map(|window| Step::Offer { window }),
        1 => (0..2u32).prop_map(|rounds_ago| Step::Reopen { rounds_ago }),
        4 => state.prop_map(Step::State),
        2 => prop::option::of(0..4u32).prop_map(Step::Policy),
        3 => (0..6u32).prop_map(Step::Time),
    ]
}

fn bounce() -> impl Strategy<Value = Step> {
    (0..6usize, 0..4u8, any::<bool>()).prop_map(|(claim, reason, hard)| Step::Bounce {
        claim,
        reason,
        hard,
    })
}

fn exclude() -> impl Strategy<Value = Step> {
    let who = vec((0..RECIPIENTS + 1, prop::sample::select(&ExclusionCause::ALL[..])), 0..3);
    (worker(), who, any::<bool>()).prop_map(|(worker, who, lost)| Step::Exclude {
        worker,
        who,
        lost,
    })
}

/// Attempts that fail and are repeated, late acceptances of any claim, and changes of the records
/// that these acceptances meet.
fn late_step() -> impl Strategy<Value = Step> {
    let sent = (0..9usize, random_report()).prop_map(|(claim, report)| RandomReport {
        claim,
        forged: false,
        status: Some(Status::Sent),
        ..report
    });
    let again = prop_oneof![Just(None), Just(Some(Status::Deferred)), Just(Some(Status::InDoubt))];
    let again = (again, random_report()).prop_map(|(status, report)| RandomReport {
        forged: false,
        status,
        later_s: 0,
        ..report
    });
    let batch =
        |worker, report, claims| Step::Batch { worker, reports: vec![report], claims, lost: false };
    prop_oneof![
        3 => (worker(), sent).prop_map(move |(worker, report)| batch(worker, report, Vec::new())),
        3 => (again, vec(random_claim(), 1..3)).prop_map(move |(report, claims)| batch(HOLDER, report, claims)),
        1 => bounce(),
        1 => exclude(),
        1 => Just(Step::Policy(Some(0))),
        1 => Just(Step::Take { worker: HOLDER, why: Why::Still }),
        1 => Just(Step::Settle { settlement: Settlement::Resend, positions: None }),
    ]
}

fn other_step() -> impl Strategy<Value = Step> {
    let believed = || (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let of_record = (0..2u32, 0..RECIPIENTS + 1, believed(), any::<u8>());
    let of_line = (any::<usize>(), believed(), prop::sample::select(&HitLabel::ALL[..]));
    prop_oneof![
        5 => hits(),
        1 => of_record.prop_map(|(chunk, position, (wrong, outdated), bits)| Step::CorrectTracked { chunk, position, wrong, outdated, bits }),
        1 => of_line.prop_map(|(line, (wrong, outdated), label)| Step::Relabel { line, wrong, outdated, label }),
        1 => prop::bool::weighted(0.3).prop_map(|swept| Step::Sweep { swept }),
        1 => exclude(),
        1 => any::<bool>().prop_map(|set| Step::Poisoned { set }),
        1 => (0..RECIPIENTS, cache()).prop_map(|(position, cache)| Step::Track { position, cache }),
    ]
}

/// Batches as workers send them: claims of adjacent positions, and reports of most granted claims.
/// Nearly all of these reports are acceptances.
pub fn wide_sequence() -> impl Strategy<Value = Vec<Step>> {
    let sent = (
        0..24usize,
        prop::bool::weighted(0.9),
        0..2u32,
        prop_oneof![9 => Just(""), 1 => Just("250 2.0.0 ok")],
    );
    let sent = sent.prop_map(|(claim, flag, later_s, reply)| RandomReport {
        claim,
        forged: false,
        status: Some(Status::Sent),
        flag,
        reason: 0,
        later_s,
        reply,
    });
    let any_other =
        (random_report(), 0..24usize).prop_map(|(report, claim)| RandomReport { claim, ..report });
    let reports = vec(prop_oneof![12 => sent, 1 => any_other], 0..16);
    let run = (0..WIDE, 1..12u16, prop::bool::weighted(0.9)).prop_map(|(first, many, fresh)| {
        (first..(first + many).min(WIDE + 1))
            .map(|position| RandomClaim { position, fresh })
            .collect::<Vec<_>>()
    });
    let batch = (0..2usize, reports, vec(run, 0..3), prop::bool::weighted(0.05));
    let why = prop_oneof![3 => Just(Why::Free), 1 => Just(Why::Still)];
    let hits = vec(random_hit((Just(0), 0..WIDE + 1)), 1..40);
    let step = prop_oneof![
        2 => (0..2usize, why).prop_map(|(worker, why)| Step::Take { worker, why }),
        20 => batch.prop_map(|(worker, reports, claims, lost)| Step::Batch { worker, reports, claims: claims.concat(), lost }),
        2 => (0..WIDE, cache()).prop_map(|(position, cache)| Step::Track { position, cache }),
        2 => hits.prop_map(|hits| Step::Hits { of_plan: true, hits }),
        1 => Just(Step::State(DeliveryState::InProgress)),
        3 => Just(Step::Remember),
        2 => Just(Step::RollBack),
        4 => (0..2usize).prop_map(|worker| Step::Redo { worker }),
        2 => prop::option::of(0..4u32).prop_map(Step::Policy),
        4 => step(),
    ];
    vec(step, 1..=LONGEST)
}

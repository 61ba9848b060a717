//! The model: explores a small chunk completely, and checks what must hold in each state.

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use versand::domain::{
    delivery::DeliveryState,
    ledger::{Record, Status, flags},
};

use super::{
    mutation::Mutation,
    next::{Small, Step},
    worker::RECIPIENTS,
    world::{FaultBudget, World},
};

impl Model for Small {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.budget)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(self.steps(world));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.apply(&mut next, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no script gives an impossible answer", |_, world: &World| {
                world.wrong.is_none()
            }),
            Property::always(
                "a message is accepted twice only if a person or the policy resends it",
                |model: &Small, world: &World| {
                    each(world, |i, r| {
                        let again = world.resent_by_person[i] + u8::from(model.resend);
                        // Redis has forgotten an acceptance. Nobody is left who knows of it, or
                        // nobody has put it back yet.
                        let forgotten = || {
                            world.run > 1 && (world.lost_acceptance[i] || !model.is_quiet(world))
                        };
                        world.accepted[i] <= 1
                            || world.accepted[i] <= 1 + again
                                && (r.has(flags::RESENT) || forgotten())
                    })
                },
            ),
            Property::always(
                "only claims of dead, fenced or unanswered workers are in doubt",
                |_, world: &World| {
                    each(world, |i, r| r.status != Status::InDoubt || world.doubtful[i])
                },
            ),
            Property::always("a delivery at rest has nothing open", |_, world: &World| {
                !matches!(world.state, DeliveryState::Finished | DeliveryState::Stopped)
                    || world.chunk.counts().open() == 0
            }),
            Property::always(
                "a free chunk with work is open or offered",
                |model: &Small, world: &World| {
                    let (chunk, moving) = (&world.chunk, world.state == DeliveryState::InProgress);
                    let seen = chunk.open.is_some() || chunk.offered.is_some();
                    !moving || chunk.owner != 0 || seen || !model.has_work(world)
                },
            ),
            Property::always(
                "a delivery is paused or at rest when nothing more can happen",
                |model: &Small, world: &World| {
                    let counts = world.chunk.counts();
                    let finished = world.state == DeliveryState::Finished && !model.has_work(world);
                    let paused = world.state == DeliveryState::Pausing && counts.attempting == 0;
                    paused
                        || finished
                        || (world.state == DeliveryState::Stopped && counts.open() == 0)
                        || !model.is_quiet(world)
                },
            ),
            Property::always(
                "an accepted message has no other status in the end",
                |model: &Small, world: &World| {
                    each(world, |i, r| world.accepted[i] == 0 || is_truth(world, i, r))
                        || !model.is_quiet(world)
                },
            ),
            Property::always("a bounce stands", |_, world: &World| {
                each(world, |i, r| {
                    !world.bounced[i] || r.status == Status::Failed && r.has(flags::BOUNCED)
                })
            }),
            Property::always(
                "two reported acceptances are a visible duplicate",
                |model: &Small, world: &World| {
                    let known = |i: usize| {
                        world.accepted[i] > 1 && !world.lost_acceptance[i] && !world.is_awaited(i)
                    };
                    each(world, |i, r| !known(i) || r.has(flags::DUPLICATE))
                        || !model.is_quiet(world)
                },
            ),
            Property::sometimes("somebody is accepted twice", |model: &Small, world: &World| {
                !can_double(model) || world.accepted.iter().any(|n| *n > 1)
            }),
            Property::sometimes("all are sent", |_, world: &World| {
                world.chunk.counts().sent == RECIPIENTS as u64
            }),
            Property::sometimes(
                "a late acceptance ends the doubt about a recipient",
                |model: &Small, world: &World| {
                    let settled = |i: usize, r: &Record| {
                        world.doubtful[i] && r.status == Status::Sent && r.has(flags::ACCEPTED)
                    };
                    model.budget.freezes == 0 || !each(world, |i, r| !settled(i, r))
                },
            ),
        ]
    }
}

fn each(world: &World, holds: impl Fn(usize, &Record) -> bool) -> bool {
    world.chunk.records.iter().enumerate().all(|(i, r)| holds(i, r))
}

fn can_double(model: &Small) -> bool {
    let doubt = model.budget.crashes + model.budget.freezes + model.budget.lost_replies > 0;
    doubt && (model.resend || model.budget.persons > 0)
}

/// True if the record may stand for an accepted message. It may if it says `Sent`, or if a bounce
/// came. Any other status needs a report that is still awaited, or an acceptance of which nobody
/// knows any more.
///
/// A recipient with such an acceptance is in doubt, was settled by a person, or has the result of
/// its second attempt.
fn is_truth(world: &World, i: usize, r: &Record) -> bool {
    let second_attempt = r.has(flags::RESENT) && r.status != Status::Cancelled;
    let excused = r.status == Status::InDoubt || r.has(flags::SETTLED) || second_attempt;
    r.status == Status::Sent
        || world.bounced[i]
        || world.is_awaited(i)
        || world.lost_acceptance[i] && excused
}

/// Returns the failures and the number of states. The failures are the properties that fail. If
/// none fails, they are the wanted cases that never occurred.
///
/// The check ends at the first property that fails. Without one, it sees all states.
fn check(resend: bool, budget: FaultBudget, mutation: Mutation) -> (Vec<String>, usize) {
    let started = std::time::Instant::now();
    let builder = Small { resend, budget, mutation }
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures);
    let checker = builder.spawn_bfs().join();
    let (states, model) = (checker.unique_state_count(), checker.model());
    let broken = checker
        .discoveries()
        .into_iter()
        .filter(|(name, _)| model.property(name).expectation == Expectation::Always);
    let mut failed: Vec<String> =
        broken.map(|(name, path)| format!("{name}: {:?}", path.into_actions())).collect();
    if failed.is_empty() {
        let possible =
            model.properties().into_iter().filter(|p| p.expectation == Expectation::Sometimes);
        failed = possible
            .filter(|p| checker.discovery(p.name).is_none())
            .map(|p| format!("never: {}", p.name))
            .collect();
    }
    eprintln!(
        "{states} states in {:?}, resend {resend}, {mutation:?}, {budget:?}: {failed:?}",
        started.elapsed()
    );
    (failed, states)
}

const NO_FAULTS: FaultBudget = FaultBudget {
    crashes: 0,
    freezes: 0,
    lost_answers: 0,
    lost_replies: 0,
    deferrals: 0,
    refusals: 0,
    pauses: 0,
    stops: 0,
    persons: 0,
    rollbacks: 0,
    bounces: 0,
    hits: 0,
    alone: false,
};

const HOLD: &[FaultBudget] = &[
    FaultBudget { crashes: 1, freezes: 1, persons: 1, ..NO_FAULTS },
    FaultBudget { crashes: 1, lost_answers: 1, pauses: 1, refusals: 1, ..NO_FAULTS },
    FaultBudget { freezes: 1, lost_answers: 1, deferrals: 1, ..NO_FAULTS },
    FaultBudget { crashes: 1, freezes: 1, lost_answers: 1, stops: 1, ..NO_FAULTS },
    FaultBudget { lost_replies: 2, stops: 1, persons: 2, ..NO_FAULTS },
    FaultBudget { crashes: 1, bounces: 1, hits: 1, ..NO_FAULTS },
    FaultBudget { freezes: 1, bounces: 1, hits: 1, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, crashes: 1, lost_answers: 1, refusals: 1, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, freezes: 1, alone: true, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, crashes: 1, freezes: 1, alone: true, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, freezes: 1, lost_answers: 1, stops: 1, alone: true, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, deferrals: 1, pauses: 1, hits: 1, ..NO_FAULTS },
];

const RESEND: &[FaultBudget] = &[
    FaultBudget { crashes: 1, freezes: 1, ..NO_FAULTS },
    FaultBudget { crashes: 1, lost_answers: 1, pauses: 1, ..NO_FAULTS },
    FaultBudget { lost_replies: 1, deferrals: 1, refusals: 1, stops: 1, ..NO_FAULTS },
    FaultBudget { lost_replies: 1, bounces: 1, hits: 1, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, crashes: 1, lost_replies: 1, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, freezes: 1, alone: true, ..NO_FAULTS },
    FaultBudget { rollbacks: 1, crashes: 1, freezes: 1, lost_replies: 1, alone: true, ..NO_FAULTS },
];

/// These take minutes each. Run them after a change of the protocol.
const WIDE: &[(bool, FaultBudget)] = &[
    (
        false,
        FaultBudget {
            crashes: 1,
            freezes: 1,
            lost_answers: 1,
            pauses: 1,
            deferrals: 1,
            ..NO_FAULTS
        },
    ),
    (false, FaultBudget { crashes: 2, freezes: 1, persons: 1, ..NO_FAULTS }),
    (true, FaultBudget { crashes: 1, freezes: 1, persons: 1, ..NO_FAULTS }),
    (true, FaultBudget { crashes: 1, freezes: 1, stops: 1, ..NO_FAULTS }),
    (true, FaultBudget { freezes: 1, lost_answers: 1, deferrals: 1, ..NO_FAULTS }),
    (false, FaultBudget { rollbacks: 1, freezes: 1, stops: 1, ..NO_FAULTS }),
    (false, FaultBudget { rollbacks: 1, crashes: 1, freezes: 1, ..NO_FAULTS }),
    (true, FaultBudget { rollbacks: 1, crashes: 1, freezes: 1, ..NO_FAULTS }),
    (true, FaultBudget { crashes: 1, freezes: 1, bounces: 1, hits: 1, ..NO_FAULTS }),
];

fn holds_in_all_states(resend: bool, budget: FaultBudget) {
    let (failed, states) = check(resend, budget, Mutation::Faithful);
    assert!(failed.is_empty(), "after {states} states {failed:#?}");
}

#[test]
fn under_hold_nobody_is_sent_to_twice_unless_a_person_says_so_and_nobody_is_lost() {
    HOLD.iter().for_each(|budget| holds_in_all_states(false, *budget));
}

#[test]
fn under_resend_nobody_is_missed_and_nobody_is_sent_to_a_third_time() {
    RESEND.iter().for_each(|budget| holds_in_all_states(true, *budget));
}

#[test]
#[ignore = "takes minutes; the small worlds hold the same properties"]
fn the_properties_hold_in_wider_worlds() {
    WIDE.iter().for_each(|(resend, budget)| holds_in_all_states(*resend, *budget));
}

#[test]
fn each_mistake_that_the_model_can_find_has_a_counterexample() {
    let stopped = FaultBudget { lost_replies: 1, deferrals: 1, stops: 1, ..NO_FAULTS };
    let worlds = [
        (Mutation::ClaimsWithoutLease, false, HOLD[0]),
        (Mutation::ClaimsUnwritten, false, HOLD[0]),
        (Mutation::ReportsNeedLease, false, HOLD[3]),
        (Mutation::ClaimsInAnyState, false, HOLD[1]),
        (Mutation::GrantsForgotten, false, HOLD[1]),
        (Mutation::LateDeferrals, false, HOLD[2]),
        (Mutation::DoubtCancelled, true, stopped),
        (Mutation::ForgottenTrusted, false, FaultBudget { rollbacks: 1, crashes: 1, ..NO_FAULTS }),
        (
            Mutation::ForgottenResent,
            true,
            FaultBudget { rollbacks: 1, crashes: 1, lost_replies: 1, ..NO_FAULTS },
        ),
        (Mutation::BounceUndone, true, FaultBudget { freezes: 1, bounces: 1, ..NO_FAULTS }),
    ];
    assert_eq!(worlds.map(|(mistake, ..)| mistake), Mutation::MISTAKES);
    for (mistake, resend, budget) in worlds {
        let (failed, _) = check(resend, budget, mistake);
        assert!(!failed.is_empty(), "{mistake:?} was not seen");
    }
}

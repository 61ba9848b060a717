//! The steps of the model: everything that can happen next in a world.

use versand::{
    domain::{delivery::DeliveryState, ledger::Status},
    store::chunks::{LeaseVerdict, Settlement},
};

use super::{
    mutation::Mutation,
    worker::{Phase, RECIPIENTS, Reply, SentBatch},
    world::{FaultBudget, WORKERS, World},
};

#[derive(Debug, Clone, Copy)]
pub struct Small {
    pub resend: bool,
    pub budget: FaultBudget,
    pub mutation: Mutation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Take(usize),
    /// The lease is checked for the last time before the end of data.
    Check(usize, usize),
    /// A claimed recipient is not started.
    Refrain(usize, usize),
    /// The connection breaks before the end of data.
    Break(usize, usize),
    Write(usize, usize, Reply),
    Read(usize, usize),
    LoseReply(usize, usize),
    Send(usize, SentBatch, bool),
    Repeat(usize, bool),
    GiveBack(usize),
    Crash(usize),
    Freeze(usize),
    Thaw(usize),
    Pause,
    Resume,
    Stop,
    Cancel,
    Rest,
    Settle(usize, Settlement),
    Bounce(usize),
    Hit(usize),
    /// Redis may go back to its present state.
    Remember,
    SettleDown,
    RollBack,
    /// The worker's lease is valid again: Redis has forgotten any holder that came after it.
    Beat(usize),
    /// The worker notices that Redis went back in time.
    Notice(usize),
    /// The worker gives a chunk back again, because Redis has forgotten the first time.
    GiveBackAgain(usize),
}

impl Step {
    /// True if the step needs no person and no event from outside.
    fn is_own(self) -> bool {
        match self {
            Self::Send(_, _, answered) | Self::Repeat(_, answered) => answered,
            Self::Write(_, _, reply) => reply == Reply::Accepted,
            Self::Take(_)
            | Self::Check(..)
            | Self::Refrain(..)
            | Self::Read(..)
            | Self::GiveBack(_) => true,
            Self::Cancel
            | Self::Rest
            | Self::SettleDown
            | Self::Beat(_)
            | Self::Notice(_)
            | Self::GiveBackAgain(_) => true,
            _ => false,
        }
    }
}

impl Small {
    fn worker_steps(&self, world: &World, w: usize, steps: &mut Vec<Step>) {
        let worker = &world.workers[w];
        if worker.frozen {
            steps.push(Step::Thaw(w));
            return;
        }
        if world.budget.crashes > 0 && (worker.lease.is_some() || !worker.is_idle()) {
            steps.push(Step::Crash(w));
        }
        if world.budget.freezes > 0
            && worker.lease.is_some()
            && world.workers.iter().all(|other| !other.frozen)
        {
            steps.push(Step::Freeze(w));
        }
        if world.run > 1 && worker.given.is_some() {
            steps.push(Step::GiveBackAgain(w));
        }
        let terms = world.terms(self.resend, self.mutation);
        if worker.lease.is_none() {
            if world.grounds(w, &terms).is_some() {
                steps.push(Step::Take(w));
            }
            return;
        }
        for i in 0..RECIPIENTS {
            self.mail_steps(world, w, i, steps);
        }
        if worker.unanswered.is_some() {
            steps.push(Step::Repeat(w, true));
            if world.budget.lost_answers > 0 {
                steps.push(Step::Repeat(w, false));
            }
            return;
        }
        let lease = worker.lease().expect("the worker has a lease");
        if world.run > 1
            && !worker.expired
            && world.chunk.against(&lease) == LeaseVerdict::RolledBack
        {
            steps.push(Step::Notice(w));
        }
        if worker.expired && !worker.halted && world.chunk.against(&lease) == LeaseVerdict::Ok {
            steps.push(Step::Beat(w));
        }
        self.batch_steps(world, w, steps);
    }

    fn batch_steps(&self, world: &World, w: usize, steps: &mut Vec<Step>) {
        let worker = &world.workers[w];
        let resend_after_s = self.resend.then_some(0);
        let known = |i: &usize| matches!(worker.jobs[*i], Some((_, Phase::Known(_))));
        let is_claimable = |i: &usize| {
            let record = &world.chunk.records[*i];
            // A recipient in doubt is not sent to again until the chunk has a new lease.
            let waits = record.status == Status::InDoubt
                && worker.lease.is_some_and(|(epoch, _)| record.claim.epoch == epoch);
            let claimable = !waits && record.claimable_at(resend_after_s).is_some();
            // A recipient that was given back while the lease was in question is left to others.
            let again = !worker.expired || worker.numbers[*i] == 0;
            !worker.halted && again && worker.jobs[*i].is_none() && claimable
        };
        let reports = (0..RECIPIENTS).filter(known).map(Some).chain([None]);
        let work = (0..RECIPIENTS).find(is_claimable);
        // A lease that may be forgotten is not used.
        let claim = work.filter(|_| world.is_durable(w));
        for report in reports {
            for claim in [None, claim.map(|i| (i, world.next_number(w, i)))] {
                let sent = SentBatch { report, claim };
                let is_new = !steps.contains(&Step::Send(w, sent, true));
                if is_new && (report.is_some() || claim.is_some()) {
                    steps.push(Step::Send(w, sent, true));
                    if world.budget.lost_answers > 0 {
                        steps.push(Step::Send(w, sent, false));
                    }
                }
            }
        }
        // A holder goes on while there is work. The end of a job slice needs no step of its own: it
        // equals a crash without claims.
        if worker.is_idle() && (worker.halted || worker.expired || work.is_none()) {
            steps.push(Step::GiveBack(w));
        }
    }

    fn mail_steps(&self, world: &World, w: usize, i: usize, steps: &mut Vec<Step>) {
        let worker = &world.workers[w];
        match worker.jobs[i] {
            Some((_, Phase::Claimed)) if worker.expired || worker.halted => {
                steps.push(Step::Refrain(w, i))
            }
            Some((_, Phase::Claimed)) => steps.push(Step::Check(w, i)),
            Some((_, Phase::Checked)) => {
                steps.push(Step::Write(w, i, Reply::Accepted));
                if world.budget.deferrals > 0 {
                    steps.push(Step::Write(w, i, Reply::Deferred));
                    steps.push(Step::Break(w, i));
                }
                if world.budget.refusals > 0 {
                    steps.push(Step::Write(w, i, Reply::Refused));
                }
            }
            Some((_, Phase::Written(_))) => {
                steps.push(Step::Read(w, i));
                if world.budget.lost_replies > 0 {
                    steps.push(Step::LoseReply(w, i));
                }
            }
            Some((_, Phase::Known(_))) | None => {}
        }
    }

    pub fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for w in 0..WORKERS {
            self.worker_steps(world, w, &mut steps);
        }
        let counts = world.chunk.counts();
        match world.state {
            DeliveryState::InProgress if counts.attempting == 0 && !self.has_work(world) => {
                steps.push(Step::Rest)
            }
            DeliveryState::Stopping if counts.pending + counts.deferred > 0 => {
                steps.push(Step::Cancel)
            }
            DeliveryState::Stopping if counts.attempting == 0 => steps.push(Step::Rest),
            DeliveryState::Pausing => steps.push(Step::Resume),
            _ => {}
        }
        if world.budget.pauses > 0 && world.state == DeliveryState::InProgress {
            steps.push(Step::Pause);
        }
        if world.budget.stops > 0
            && matches!(world.state, DeliveryState::InProgress | DeliveryState::Pausing)
        {
            steps.push(Step::Stop);
        }
        self.outside(world, &mut steps);
        for i in (0..RECIPIENTS).filter(|i| {
            world.budget.persons > 0 && world.chunk.records[*i].status == Status::InDoubt
        }) {
            steps.extend(
                [Settlement::Sent, Settlement::Failed, Settlement::Resend]
                    .map(|s| Step::Settle(i, s)),
            );
        }
        steps
    }

    fn outside(&self, world: &World, steps: &mut Vec<Step>) {
        if world.past.is_some() {
            steps.extend([Step::SettleDown, Step::RollBack]);
        } else if world.budget.rollbacks > 0 && world.chunk.epoch > 0 {
            steps.push(Step::Remember);
        }
        for i in (0..RECIPIENTS).filter(|i| world.accepted[*i] > 0) {
            if world.budget.bounces > 0 {
                steps.push(Step::Bounce(i));
            }
            if world.budget.hits > 0 {
                steps.push(Step::Hit(i));
            }
        }
    }

    /// True if a recipient can be claimed, now or later.
    pub fn has_work(&self, world: &World) -> bool {
        world.chunk.records.iter().any(|r| r.claimable_at(self.resend.then_some(0)).is_some())
    }

    /// True if nothing more happens without an event from outside.
    pub fn is_quiet(&self, world: &World) -> bool {
        !self.steps(world).into_iter().any(Step::is_own)
    }

    pub fn apply(&self, world: &mut World, step: Step) {
        let terms = world.terms(self.resend, self.mutation);
        match step {
            Step::Take(w) => world.take(w, &terms),
            Step::Check(w, i) => world.advance(w, i, Phase::Checked),
            Step::Refrain(w, i) => world.advance(w, i, Phase::Known(Reply::NotStarted)),
            Step::Break(w, i) => {
                world.budget.deferrals -= 1;
                world.advance(w, i, Phase::Known(Reply::Deferred));
            }
            Step::Write(w, i, reply) => {
                world.budget.deferrals -= u8::from(reply == Reply::Deferred);
                world.budget.refusals -= u8::from(reply == Reply::Refused);
                world.write(w, i, reply);
            }
            Step::Read(w, i) | Step::LoseReply(w, i) => {
                let Some((_, Phase::Written(reply))) = world.workers[w].jobs[i] else { return };
                if matches!(step, Step::Read(..)) {
                    return world.advance(w, i, Phase::Known(reply));
                }
                world.budget.lost_replies -= 1;
                world.lose_reply(w, i, reply);
            }
            Step::Send(w, sent, is_answered) => {
                world.budget.lost_answers -= u8::from(!is_answered);
                world.send_batch(w, sent, is_answered, &terms);
            }
            Step::Repeat(w, is_answered) => {
                world.budget.lost_answers -= u8::from(!is_answered);
                let Some(sent) = world.workers[w].unanswered else { return };
                world.send_batch(w, sent, is_answered, &terms);
            }
            Step::GiveBack(w) => {
                world.give_back(w, &terms);
            }
            Step::Beat(w) => world.beat(w, &terms),
            Step::GiveBackAgain(w) => world.give_back_again(w, &terms),
            Step::Notice(w) => {
                if !world.notice(w, &terms) {
                    (world.workers[w].expired, world.workers[w].halted) = (true, true);
                }
            }
            Step::Cancel => {
                world.chunk.cancel(&terms);
            }
            outside => self.apply_from_outside(world, outside),
        }
    }

    fn apply_from_outside(&self, world: &mut World, step: Step) {
        let terms = world.terms(self.resend, self.mutation);
        match step {
            Step::Crash(w) => {
                world.budget.crashes -= 1;
                world.crash(w);
            }
            Step::Freeze(w) => {
                world.budget.freezes -= 1;
                world.workers[w].frozen = true;
            }
            Step::Thaw(w) => world.workers[w].frozen = false,
            Step::Pause => {
                world.budget.pauses -= 1;
                world.state = DeliveryState::Pausing;
            }
            Step::Resume => world.state = DeliveryState::InProgress,
            Step::Stop => {
                world.budget.stops -= 1;
                world.state = DeliveryState::Stopping;
            }
            Step::Rest => {
                world.state = if world.state == DeliveryState::Stopping {
                    DeliveryState::Stopped
                } else {
                    DeliveryState::Finished
                }
            }
            Step::Settle(i, settlement) => {
                world.budget.persons -= 1;
                world.settle(i, settlement, &terms);
            }
            Step::Bounce(i) => {
                world.budget.bounces -= 1;
                world.bounce(i, &terms);
            }
            Step::Hit(i) => {
                world.budget.hits -= 1;
                world.chunk.prove(i as u16, &terms);
            }
            Step::Remember => {
                world.budget.rollbacks -= 1;
                world.remember();
            }
            Step::SettleDown => world.settle_down(),
            Step::RollBack => world.roll_back(),
            _ => {}
        }
    }
}

//! What this process has seen standing still, and for how long by its own clock. Nobody compares wall clocks.
//!
//! Only while Redis answers can a holder show life, so a pulse asks it all the time: after a gap in its answers whatever was
//! seen before is forgotten, however the gap came about.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Something that moves while its worker lives, by name: the beat of a chunk, the progress of a preparation.
#[derive(Clone)]
pub struct Liveness {
    /// A longer gap between answers of Redis makes what was seen before it worthless.
    gap: Duration,
    inner: Arc<Mutex<Observations>>,
}

#[derive(Default)]
struct Observations {
    /// When Redis answered last; never at first.
    answered: Option<Instant>,
    /// The run of Redis that was seen.
    run: String,
    seen: HashMap<String, Observation>,
}

impl Observations {
    fn forget_after(&mut self, gap: Duration, now: Instant) {
        if self.answered.is_none_or(|answered| now.duration_since(answered) > gap) {
            self.seen.clear();
        }
    }
}

struct Observation {
    mark: (u64, u64),
    since: Instant,
    last: Instant,
}

/// What was not looked at for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

impl Liveness {
    /// For leases of this length. A holder beats four times in a lease: with a gap of half of it, it was seen all the same.
    pub fn new(lease: Duration) -> Self {
        Self { gap: lease / 2, inner: Arc::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Observations> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Redis has answered.
    pub fn answered(&self, now: Instant) {
        let mut inner = self.inner();
        inner.forget_after(self.gap, now);
        inner.answered = Some(now);
    }

    /// This run of Redis answers. Another one may have gone back in time, where the same marks mean something else.
    pub fn run(&self, run: &str) {
        let mut inner = self.inner();
        if inner.run != run {
            inner.seen.clear();
            run.clone_into(&mut inner.run);
        }
    }

    /// Notes what `name` looks like now; for how long it has looked like that.
    pub fn see(&self, name: &str, mark: (u64, u64), now: Instant) -> Duration {
        let mut inner = self.inner();
        inner.forget_after(self.gap, now);
        let seen = inner.seen.entry(name.to_owned()).or_insert(Observation {
            mark,
            since: now,
            last: now,
        });
        if seen.mark != mark {
            *seen = Observation { mark, since: now, last: now };
        }
        seen.last = now;
        now.duration_since(seen.since)
    }

    /// Forgets everything: while Redis does not answer, nobody can show life.
    pub fn reset(&self) {
        self.inner().seen.clear();
    }

    /// Forgets what is gone.
    pub fn tidy(&self, now: Instant) {
        self.inner().seen.retain(|_, seen| now.duration_since(seen.last) < FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_still_grows_old() {
        let (watch, start) = (Liveness::new(Duration::from_secs(4000)), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        watch.answered(start);
        assert_eq!(watch.see("a", (1, 1), at(0)), Duration::ZERO);
        assert_eq!(watch.see("a", (1, 1), at(5)), Duration::from_secs(5));
        assert_eq!(watch.see("a", (1, 2), at(6)), Duration::ZERO);
        assert_eq!(watch.see("b", (1, 2), at(7)), Duration::ZERO);
        assert_eq!(watch.see("a", (1, 2), at(9)), Duration::from_secs(3));
        watch.reset();
        assert_eq!(watch.see("a", (1, 2), at(10)), Duration::ZERO);
        watch.tidy(at(700));
        assert_eq!(watch.see("a", (1, 2), at(701)), Duration::ZERO);
    }

    #[test]
    fn another_run_of_redis_makes_everybody_young_again() {
        let (watch, start) = (Liveness::new(Duration::from_secs(4000)), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        watch.answered(start);
        watch.run("a");
        watch.see("chunk", (1, 1), at(0));
        watch.run("a");
        assert_eq!(watch.see("chunk", (1, 1), at(5)), Duration::from_secs(5));
        watch.run("b");
        assert_eq!(watch.see("chunk", (1, 1), at(6)), Duration::ZERO);
    }

    #[test]
    fn a_gap_in_the_answers_of_redis_makes_everybody_young_again() {
        let (watch, start) = (Liveness::new(Duration::from_secs(10)), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        let seen = |s| watch.see("a", (1, 1), at(s)).as_secs();
        seen(0);
        assert_eq!(seen(1), 0, "never answered");
        (1..20).for_each(|s| watch.answered(at(s)));
        assert_eq!((seen(19), seen(24)), (0, 5));
        // no answer for more than five seconds: noticed while it lasts, and when it is over
        assert_eq!((seen(25), seen(26)), (0, 0));
        watch.answered(at(26));
        assert_eq!((seen(26), seen(30)), (0, 4));
        watch.answered(at(40));
        assert_eq!((seen(40), seen(41)), (0, 1));
    }
}

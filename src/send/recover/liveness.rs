//! Liveness: how long a worker has shown no progress, measured with this process's own clock.
//!
//! Nobody compares the clocks of two machines. A holder can show that it lives only while Redis
//! answers. After a gap in the answers of Redis, all observations from before the gap are
//! forgotten.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// An observation that was not repeated for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The marks of workers, by name. Cheap to clone.
///
/// A mark changes while its worker lives, such as the beat of a chunk or of a preparation.
#[derive(Clone)]
pub struct Liveness {
    /// After a longer gap between two answers of Redis, earlier observations are forgotten.
    longest_gap: Duration,
    inner: Arc<Mutex<Observations>>,
}

#[derive(Default)]
struct Observations {
    /// When Redis answered last.
    answered: Option<Instant>,
    /// The run id of the Redis that answered last.
    run_id: String,
    marks: HashMap<String, SeenMark>,
}

struct SeenMark {
    mark: (u64, u64),
    /// When this mark was first seen.
    since: Instant,
    /// When this mark was last seen.
    last: Instant,
}

impl Observations {
    fn forget_after_gap(&mut self, longest_gap: Duration, now: Instant) {
        if self.answered.is_none_or(|answered| now.duration_since(answered) > longest_gap) {
            self.marks.clear();
        }
    }
}

impl Liveness {
    /// Begins for leases of this length.
    ///
    /// A holder sends four beats per lease. A gap of at most half a lease leaves room for two of
    /// them, so a living holder is still seen.
    pub fn new(lease: Duration) -> Self {
        Self { longest_gap: lease / 2, inner: Arc::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Observations> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that Redis has answered.
    pub(super) fn note_answer(&self, now: Instant) {
        let mut inner = self.inner();
        inner.forget_after_gap(self.longest_gap, now);
        inner.answered = Some(now);
    }

    /// Notes which run of Redis answers.
    ///
    /// A new run may have rolled back: the same marks may mean something else there.
    pub(super) fn note_run(&self, run_id: &str) {
        let mut inner = self.inner();
        if inner.run_id != run_id {
            inner.marks.clear();
            run_id.clone_into(&mut inner.run_id);
        }
    }

    /// Notes the mark of `name`, and returns for how long this mark has been the same.
    pub fn unchanged_for(&self, name: &str, mark: (u64, u64), now: Instant) -> Duration {
        let mut inner = self.inner();
        inner.forget_after_gap(self.longest_gap, now);
        let new = SeenMark { mark, since: now, last: now };
        let seen = inner.marks.entry(name.to_owned()).or_insert(new);
        if seen.mark != mark {
            *seen = SeenMark { mark, since: now, last: now };
        }
        seen.last = now;
        now.duration_since(seen.since)
    }

    /// Forgets all marks: while Redis does not answer, nobody can show that it lives.
    pub(super) fn forget_all(&self) {
        self.inner().marks.clear();
    }

    /// Forgets the marks that were not seen lately.
    pub(super) fn forget_old(&self, now: Instant) {
        self.inner().marks.retain(|_, seen| now.duration_since(seen.last) < FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unchanged_mark_grows_old() {
        let (liveness, start) = (Liveness::new(Duration::from_secs(4000)), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        liveness.note_answer(start);
        assert_eq!(liveness.unchanged_for("a", (1, 1), at(0)), Duration::ZERO);
        assert_eq!(liveness.unchanged_for("a", (1, 1), at(5)), Duration::from_secs(5));
        assert_eq!(liveness.unchanged_for("a", (1, 2), at(6)), Duration::ZERO);
        assert_eq!(liveness.unchanged_for("b", (1, 2), at(7)), Duration::ZERO);
        assert_eq!(liveness.unchanged_for("a", (1, 2), at(9)), Duration::from_secs(3));
        liveness.forget_all();
        assert_eq!(liveness.unchanged_for("a", (1, 2), at(10)), Duration::ZERO);
        liveness.forget_old(at(700));
        assert_eq!(liveness.unchanged_for("a", (1, 2), at(701)), Duration::ZERO);
    }

    #[test]
    fn another_run_of_redis_makes_every_mark_new() {
        let (liveness, start) = (Liveness::new(Duration::from_secs(4000)), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        liveness.note_answer(start);
        liveness.note_run("a");
        liveness.unchanged_for("chunk", (1, 1), at(0));
        liveness.note_run("a");
        assert_eq!(liveness.unchanged_for("chunk", (1, 1), at(5)), Duration::from_secs(5));
        liveness.note_run("b");
        assert_eq!(liveness.unchanged_for("chunk", (1, 1), at(6)), Duration::ZERO);
    }

    #[test]
    fn a_gap_in_the_answers_of_redis_makes_every_mark_new() {
        let (liveness, start) = (Liveness::new(Duration::from_secs(10)), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        let seen = |s| liveness.unchanged_for("a", (1, 1), at(s)).as_secs();
        seen(0);
        assert_eq!(seen(1), 0, "never answered");
        (1..20).for_each(|s| liveness.note_answer(at(s)));
        assert_eq!((seen(19), seen(24)), (0, 5));
        // a gap of more than five seconds counts while it lasts and afterwards
        assert_eq!((seen(25), seen(26)), (0, 0));
        liveness.note_answer(at(26));
        assert_eq!((seen(26), seen(30)), (0, 4));
        liveness.note_answer(at(40));
        assert_eq!((seen(40), seen(41)), (0, 1));
    }
}

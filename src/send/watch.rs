//! What this process has seen standing still, and for how long by its own clock. Nobody compares wall clocks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Something that moves while its worker lives, by name: the beat of a chunk, the progress of a preparation.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<HashMap<String, Seen>>>);

struct Seen {
    mark: (u64, u64),
    since: Instant,
    last: Instant,
}

/// What was not looked at for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

impl Watch {
    /// Notes what `name` looks like now; for how long it has looked like that.
    pub fn see(&self, name: &str, mark: (u64, u64), now: Instant) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(name.to_owned()).or_insert(Seen { mark, since: now, last: now });
        if seen.mark != mark {
            *seen = Seen { mark, since: now, last: now };
        }
        seen.last = now;
        now.duration_since(seen.since)
    }

    /// Forgets everything: while Redis does not answer, nobody can show life.
    pub fn reset(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets what is gone.
    pub fn tidy(&self, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, seen| now.duration_since(seen.last) < FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_still_grows_old() {
        let (watch, start) = (Watch::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
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
}

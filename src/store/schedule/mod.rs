//! The schedule in Redis: the waves of a delivery, and the lists that say when work is due.
//!
//! The room owns the table of waves and the table of chunks of a preparation. It also owns the list
//! of deliveries that wait for a wave, the list of deliveries with held waves, and the list of
//! templates and occurrences.
//!
//! Entry points: [`ScheduleStore`] reads and writes waves and releases due waves. The result is
//! [`ReleasedWaves`]. The list of templates and occurrences is part of
//! [`DeliveryStore`](crate::store::DeliveryStore), because changes of these deliveries write it.
//!
//! Only `release_waves.lua` releases waves. It holds overdue waves, and `hold_waves.lua` holds
//! waves when a held store is released.
//!
//! Not here: the layout of the tables and the rules of due times are in
//! [`crate::domain::schedule`]. The scheduler's steps are in `send::release` and `send::define`.

mod due_list;
mod recurring;
mod waves;

pub use waves::{ReleasedWaves, ScheduleStore};

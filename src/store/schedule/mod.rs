//! TODO head

pub mod due_list;
pub mod recurring;
pub mod waves;

pub use waves::ReleasedWaves;
pub use waves::ScheduleStore;

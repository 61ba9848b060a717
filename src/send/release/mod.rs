//! TODO head

pub mod due_waves;
pub mod fair_queue;
pub mod start;

pub use due_waves::DueWaves;
pub use fair_queue::FairQueue;
pub use start::Starts;

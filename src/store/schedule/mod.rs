//! TODO head

pub mod recurring;
pub mod waves;

pub use waves::ReleasedWaves;

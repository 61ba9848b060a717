//! TODO head

pub mod finish;
pub mod index_sweep;
pub mod liveness;
pub mod poisoned_chunks;
pub mod reconciler;

pub use liveness::Liveness;
pub use poisoned_chunks::given_up;

//! TODO head

pub mod chunk;
pub mod confirm;
pub mod define;
pub mod limits;
pub mod operate;
pub mod prepare;
pub mod recover;
pub mod release;

//! TODO head

pub mod keyring;

pub use keyring::{CONFIRM_SEND, Claims, Keyring, NotAuthentic};

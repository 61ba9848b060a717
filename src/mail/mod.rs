//! TODO head

pub mod address;
pub mod catcher;
pub mod compose;
pub mod links;
pub mod message_maker;
pub mod smtp;
pub mod template;

pub use address::{address_key, to_ascii};
pub use message_maker::MessageMaker;
pub use message_maker::{StampKey, TemplateCache};

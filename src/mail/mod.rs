//! Mail out: templates become messages, the relay takes them; the catcher stands in for a relay.

pub mod address;
mod body;
pub mod catcher;
mod links;
mod mime;
mod plain;
mod quoted;
pub mod relay;
mod scan;
pub mod template;

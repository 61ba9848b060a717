//! Mail out: templates become messages, relays take them; the catcher stands in for a relay.

pub mod address;
mod body;
pub mod catcher;
mod hole;
mod links;
mod mime;
mod plain;
mod quoted;
pub mod relay;
pub mod relays;
pub mod rewrite;
mod scan;
pub mod template;
pub mod token;

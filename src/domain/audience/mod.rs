//! TODO head

pub mod address_mask;
pub mod csv_reader;
pub mod exclusion;
pub mod fatigue;
pub mod ndjson_reader;
pub mod reader;
pub mod recipient;

pub use address_mask::matches;
pub use exclusion::{Exclusion, ExclusionCause};
pub use fatigue::{
    AddressKey, FatigueMoment, FatigueRule, FatigueWeight, OwnFatigue, digest_of, message_counts,
    weight,
};
pub use reader::{AudienceFormat, AudienceReader, LineError};
pub use recipient::Recipient;

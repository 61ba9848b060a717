//! TODO head

pub mod copies;
pub mod definitions;
pub mod effective_settings;
pub mod recurrences;
pub mod uploads;

pub use copies::Copies;
pub use definitions::Definitions;
pub use effective_settings::effective_settings;
pub use recurrences::Recurrences;
pub use uploads::Uploads;

//! TODO head

pub mod check;
pub mod relays;
pub mod retention;
pub mod settings;
pub mod throttles;
pub mod tracking;

pub use retention::RetentionSettings;
pub use settings::{
    AuthSettings, CatcherSettings, Config, ConfigError, DEFAULTS, FatigueSettings, JwtKeySettings,
    KeepReplies, LogFormat, LogSettings, PreparationSettings, QueueSettings, RedisSettings,
    RelaySettings, SendSettings, ServerSettings, Tls, TokenSettings, secret,
};
pub use throttles::{BreakerSettings, DomainLimit, ThrottleSettings};
pub use tracking::{PublicSettings, TrackingSettings};

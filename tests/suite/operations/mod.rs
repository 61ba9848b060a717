//! Running Versand: settings, the embedded Redis, shutdown, metrics, alerts, retention, systemd.

mod alerts;
mod backup;
mod conservation;
mod embedded_redis;
mod log_lines;
mod prometheus;
mod redis_tls;
mod reload;
mod retention;
mod settings;
mod shutdown;
mod start_errors;
mod systemd_unit;
mod watchdog;

//! The admin API: access, refusals, answers, and how a sending is paused and stopped.

mod access;
mod audit_log;
mod confirmation;
mod input;
mod listener_limits;
mod logs;
mod pause_and_stop;
mod preparation;
mod profile_history;
mod tokens;
mod upload;

//! Schedules, waves and recurring deliveries: sent at their time, and once.

mod recurring;
mod schedules;

//! Schedules, waves and recurring deliveries: sent at their time, once, and never by surprise.

mod recurring;
mod schedules;

//! Pure: no async, no I/O, no clock (`now` is an argument).

pub mod address;
pub mod audience;
pub mod audit;
pub mod counts;
pub mod delivery;
pub mod exclusion;
pub mod fatigue;
pub mod id;
pub mod kpi;
pub mod labelling;
pub mod ledger;
pub mod outcome;
pub mod recipient;
pub mod recurrence;
pub mod retry;
pub mod role;
pub mod schedule;
pub mod settings;
pub mod state;
pub mod statistics;
pub mod tracking;
pub mod waves;

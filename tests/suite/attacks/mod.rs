//! Attacks, as an attacker would make them: each was possible before its mend.

mod stale_steps;
mod stale_store;
mod state_dir;

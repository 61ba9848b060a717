//! Attacks: what whoever may do little tries, and what becomes of it.

mod installation_key;
mod redis_writer;

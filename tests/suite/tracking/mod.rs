//! Opens, clicks and opt-outs: tokens in messages, hits on the public listener, statistics.

mod figures;
mod hits;
mod links;
mod statistics;

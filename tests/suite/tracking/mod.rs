//! Opens, clicks and opt-outs: tokens in messages, hits on the public listener, figures and statistics.

mod figures;
mod hits;
mod links;
mod statistics;

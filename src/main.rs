//! Arguments, logging, start, wait, stop.

fn main() {}

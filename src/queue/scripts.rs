//! The Lua scripts of the queue.
//!
//! The head of each Lua file names its keys and arguments.

use redis::Script;

/// The scripts, ready to call.
pub(super) struct Scripts {
    pub enqueue: Script,
    pub begin: Script,
    pub put_back: Script,
    pub set_aside: Script,
    pub retire: Script,
    pub promote: Script,
    pub sweep: Script,
    pub retry_dead: Script,
    pub discard_dead: Script,
    pub status: Script,
}

impl Scripts {
    /// All scripts, from the files beside this one.
    pub fn new() -> Self {
        Self {
            enqueue: Script::new(include_str!("enqueue.lua")),
            begin: Script::new(include_str!("begin.lua")),
            put_back: Script::new(include_str!("put_back.lua")),
            set_aside: Script::new(include_str!("set_aside.lua")),
            retire: Script::new(include_str!("retire.lua")),
            promote: Script::new(include_str!("promote.lua")),
            sweep: Script::new(include_str!("sweep.lua")),
            retry_dead: Script::new(include_str!("retry_dead.lua")),
            discard_dead: Script::new(include_str!("discard_dead.lua")),
            status: Script::new(include_str!("status.lua")),
        }
    }
}

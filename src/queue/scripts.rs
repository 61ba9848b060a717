//! The Lua scripts of the queue; each file says its keys and arguments.

use redis::Script;

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
    pub fn new() -> Self {
        Self {
            enqueue: Script::new(include_str!("scripts/enqueue.lua")),
            begin: Script::new(include_str!("scripts/begin.lua")),
            put_back: Script::new(include_str!("scripts/put_back.lua")),
            set_aside: Script::new(include_str!("scripts/set_aside.lua")),
            retire: Script::new(include_str!("scripts/retire.lua")),
            promote: Script::new(include_str!("scripts/promote.lua")),
            sweep: Script::new(include_str!("scripts/sweep.lua")),
            retry_dead: Script::new(include_str!("scripts/retry_dead.lua")),
            discard_dead: Script::new(include_str!("scripts/discard_dead.lua")),
            status: Script::new(include_str!("scripts/status.lua")),
        }
    }
}

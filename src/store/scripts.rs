//! Lua scripts that share the functions over ledgers.

/// Makes a script of the prelude and this text. The prelude runs in each call.
pub(super) fn with_prelude(text: &str) -> redis::Script {
    redis::Script::new(&format!("{}\n{text}", include_str!("chunks/prelude.lua")))
}

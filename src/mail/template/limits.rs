//! How much work one part of a message may take, with the engine and on the fast path.

use super::fast_path::MergeLimits;

/// The engine's fuel for one part: its steps, and what its values weigh.
///
/// It is far above the need of any mail. `examples/template_limits.rs` prints how long the worst
/// templates take with it.
pub const ENGINE_FUEL: u64 = 200_000;
/// Bytes of output per unit of fuel.
const BYTES_PER_FUEL: u64 = 64;
/// The engine's fuel for one link with merge fields: a link is short, and a message may have many.
pub const LINK_FUEL: u64 = 1000;
/// The most links with merge fields in a template.
pub const MOST_MERGED_LINKS: usize = 2000;
/// The bounds of one part on the fast path.
pub const MERGE_LIMITS: MergeLimits =
    MergeLimits { steps: ENGINE_FUEL, bytes: (ENGINE_FUEL * BYTES_PER_FUEL) as usize };
/// The bounds of one link on the fast path.
pub const LINK_LIMITS: MergeLimits =
    MergeLimits { steps: LINK_FUEL, bytes: (LINK_FUEL * BYTES_PER_FUEL) as usize };

//! How much work one part of a message may take, with the engine and on the fast path.

use super::fast_path::MergeLimits;

/// The engine's fuel for one part: its steps, and the pieces of output.
///
/// It is far above the need of any mail, and takes at most about 20 ms and 12 MB.
pub const ENGINE_FUEL: u64 = 200_000;
/// Bytes of output per unit of fuel.
const BYTES_PER_FUEL: u64 = 64;
/// The same bounds for the fast path.
pub const MERGE_LIMITS: MergeLimits =
    MergeLimits { steps: ENGINE_FUEL, bytes: (ENGINE_FUEL * BYTES_PER_FUEL) as usize };

//! The audience in Redis: uploads, the recipients of each chunk, exclusion logs, tracked links.
//!
//! All of these are stored in *slices*. A slice is one compressed Redis string of NDJSON lines,
//! numbered from 0 within its [`SliceKind`]. Each slice bears a seal, so that no altered or swapped
//! one is used. The number of slices of each kind is noted, so that all can be removed. The room
//! also owns the progress of a preparation.
//!
//! Entry points: [`AudienceStore`] reads, writes, copies and removes slices. [`ndjson`] makes the
//! text of a slice. [`PreparationProgress`] is shown to people and proves that a worker lives.
//!
//! Not here: the tables of waves and chunks have a [`SliceKind`] for their keys, but they are not
//! compressed and belong to [`crate::store::schedule`]. The status of recipients is in the ledgers
//! of [`crate::store::chunks`]. Uploading and preparing are in `send::define` and `send::prepare`.

mod preparation_progress;
mod sealed_slice;
mod slices;
mod unsealed_slices;

pub use preparation_progress::PreparationProgress;
pub use slices::{AudienceStore, SliceKind, ndjson};

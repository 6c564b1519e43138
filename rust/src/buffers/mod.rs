//! Replay buffers: rings of transitions as plain bytes.
//!
//! What a field of a transition means (its dtype and shape) is the caller's business; here it is a
//! number of bytes. Random draws are pure functions of `(seed, step)`, see [`draw`].

pub mod draw;
mod frames;
mod gather;
pub mod hindsight;
mod links;
pub mod priorities;
mod raw;
mod records;
pub mod replay;
mod sample;
pub mod sequences;
pub mod state;
mod table;
pub mod tree;

pub use priorities::Priorities;
pub use replay::{Layout, Observation, Replay, Rows};
pub use sample::Batch;

/// No slot, no frame.
const NONE: u32 = u32::MAX;
/// The largest capacity.
pub const MAX_CAPACITY: usize = NONE as usize;
/// Bits of a transition's flag byte.
pub const TERMINATED: u8 = 1;
pub const TRUNCATED: u8 = 2;

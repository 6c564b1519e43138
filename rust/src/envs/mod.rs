//! Vector environments on slices.

mod batch;
mod cartpole;
mod chunk;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes_x86;
mod step;
mod task;
pub(crate) mod trigonometry;

pub use batch::{Autoreset, Batch, Outputs, State, first_invalid_action};
pub use cartpole::CartPole;
pub use task::Task;
pub use trigonometry::sin_cos;

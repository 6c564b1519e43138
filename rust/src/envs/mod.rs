//! Vector environments on slices.

mod acrobot;
mod batch;
mod cartpole;
mod chunk;
mod frozenlake;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes_x86;
mod mountaincar;
mod mountaincarcontinuous;
mod pendulum;
mod rollout;
mod rules;
mod step;
mod task;
pub(crate) mod trigonometry;

pub use acrobot::Acrobot;
pub use batch::{Autoreset, Batch, Outputs, State, first_invalid_action};
pub use cartpole::CartPole;
pub use frozenlake::FrozenLake;
pub use lanes::Row;
pub use mountaincar::MountainCar;
pub use mountaincarcontinuous::MountainCarContinuous;
pub use pendulum::Pendulum;
pub use rollout::Actions;
pub use rules::Columns;
pub use task::{Action, ActionOf, Params, Task};
pub use trigonometry::sin_cos;

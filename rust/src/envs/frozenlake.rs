//! A walk over ice with holes in it, on Gymnasium's 4 x 4 map, with the names and the order of
//! `FrozenLakeEnv`.

use super::lanes::Lanes;
use super::task::{Discrete, Task, task};

task! {
    #[allow(clippy::struct_field_names)]
    pub struct FrozenLake {
        /// A random number below the first turns the action left, one from the second on right.
        left_below,
        right_from,
        reward_goal,
        reward_hole,
        reward_frozen,
    }
}

const SIDE: f32 = 4.0;
const HOLES: [f32; 4] = [5.0, 7.0, 11.0, 12.0];
const GOAL: f32 = 15.0;

#[inline(always)]
fn equal<L: Lanes>(a: L, b: L) -> L::Mask {
    a.at_least(b) & b.at_least(a)
}

#[inline(always)]
fn is_hole<L: Lanes>(cell: L) -> L::Mask {
    let [a, b, c, d] = HOLES.map(|hole| equal(cell, L::splat(hole)));
    a | b | c | d
}

impl Task for FrozenLake {
    /// The cell, row after row.
    type State = [i32; 1];
    /// One number per cell, 1 at the cell.
    type Obs = [f32; 16];
    /// Left, down, right, up.
    type Action = Discrete<4>;
    const SLIPS: bool = true;

    #[inline(always)]
    fn slip<L: Lanes>(params: &FrozenLake<L>, action: L, noise: L) -> L {
        let [zero, one, last] = [0.0, 1.0, 3.0].map(L::splat);
        let before = last.select(action - one, action.less(one));
        let after = zero.select(action + one, action.at_least(last));
        let turned = after.select(action, noise.at_least(params.right_from));
        before.select(turned, noise.less(params.left_below))
    }

    #[inline(always)]
    fn step<L: Lanes>(params: &FrozenLake<L>, [cell]: [L; 1], action: L) -> ([L; 1], L, L::Mask) {
        let [zero, one, two, last] = [0.0, 1.0, 2.0, 3.0].map(L::splat);
        let side = L::splat(SIDE);
        let row = (cell / side).floor();
        let col = cell - row * side;

        let col_left = (col - one).clip(zero, last);
        let row_down = (row + one).clip(zero, last);
        let col_right = (col + one).clip(zero, last);
        let row_up = (row - one).clip(zero, last);
        let new_col = col_right.select(col, equal(action, two));
        let new_col = col_left.select(new_col, action.less(one));
        let new_row = row_down.select(row, equal(action, one));
        let new_row = row_up.select(new_row, action.at_least(last));

        // Whoever is in a hole or at the goal stays there.
        let goal = L::splat(GOAL);
        let stays = is_hole(cell) | equal(cell, goal);
        let next = cell.select(new_row * side + new_col, stays);
        let (in_hole, at_goal) = (is_hole(next), equal(next, goal));
        let reward = params.reward_hole.select(params.reward_frozen, in_hole);
        let reward = params.reward_goal.select(reward, at_goal);
        ([next], zero.select(reward, stays), in_hole | at_goal)
    }

    #[inline(always)]
    fn observe<L: Lanes>([cell]: [L; 1]) -> [L; 16] {
        let [zero, one] = [0.0, 1.0].map(L::splat);
        let mut obs = [zero; 16];
        let mut i = 0;
        while i < obs.len() {
            obs[i] = one.select(zero, equal(cell, L::splat(i as f32)));
            i += 1;
        }
        obs
    }

    #[inline(always)]
    fn initial(&self, _: [u32; 4]) -> [i32; 1] {
        [0]
    }

    #[inline(always)]
    fn random_action(&self, word: u32) -> i64 {
        Discrete::<4>::choice(word)
    }
}

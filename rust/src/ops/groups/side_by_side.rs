//! Groups of one size, a lane to each: what the lanes have in common needs no sums across them.

use super::{Rule, Scale, is_finite};
use crate::ops::element::{Real, each};
use crate::ops::registers::Register;

/// Lanes of the widest register.
const MOST: usize = 16;

/// Memory for rewards by their index in the group, a lane to each group.
pub struct Columns<R> {
    numbers: Vec<R>,
}

impl<R: Real> Columns<R> {
    pub fn new() -> Self {
        Self {
            numbers: Vec::new(),
        }
    }

    /// Advantages of at most as many groups as there are lanes, side by side in `rewards`.
    ///
    /// Returns whether all rewards are finite; a group in which one is not gives NaN throughout.
    #[inline(always)]
    pub fn advantages<V: Register<Real = R>>(
        &mut self,
        rewards: &[R],
        size: usize,
        rule: &Rule,
        divisor: Option<f64>,
        results: &mut [R],
    ) -> bool {
        let groups = rewards.len() / size;
        self.numbers
            .resize(size.next_multiple_of(V::LANES) * V::LANES, R::ZERO);
        for start in (0..size).step_by(V::LANES) {
            // Lanes without a group repeat the last one.
            let mut tile: [V; MOST] = [V::splat(R::ZERO); MOST];
            for (lane, slot) in tile.iter_mut().enumerate().take(V::LANES) {
                let row = lane.min(groups - 1) * size;
                *slot = load_part(&rewards[row + start..row + size]);
            }
            transpose(&mut tile);
            let to = &mut self.numbers[start * V::LANES..][..V::LANES * V::LANES];
            for (slot, column) in to.chunks_exact_mut(V::LANES).zip(tile) {
                column.store(slot);
            }
        }
        let columns = &mut self.numbers[..size * V::LANES];
        let finite = turn_into_advantages::<V>(columns, size, rule, divisor);
        for start in (0..size).step_by(V::LANES) {
            let mut tile: [V; MOST] = [V::splat(R::ZERO); MOST];
            let from = &self.numbers[start * V::LANES..][..V::LANES * V::LANES];
            for (slot, column) in tile.iter_mut().zip(from.chunks_exact(V::LANES)) {
                *slot = V::load(column);
            }
            transpose(&mut tile);
            for (group, row) in tile.into_iter().enumerate().take(V::LANES.min(groups)) {
                store_part(row, &mut results[group * size + start..(group + 1) * size]);
            }
        }
        finite
    }
}

/// By the formulas of the parent module; returns whether all rewards are finite.
#[inline(always)]
fn turn_into_advantages<V: Register>(
    columns: &mut [V::Real],
    size: usize,
    rule: &Rule,
    divisor: Option<f64>,
) -> bool {
    let number = |x: f64| V::splat(V::Real::from_f64(x));
    let zero = number(0.0);
    let mut low = V::load(columns);
    let mut high = low;
    for column in columns.chunks_exact(V::LANES) {
        let rewards = V::load(column);
        low = rewards.least(low);
        high = rewards.greatest(high);
    }
    let width = high.sub(low).greatest(V::splat(V::Real::MIN_POSITIVE));
    let inverse = number(1.0).div(width);
    let mut sum = zero;
    for column in columns.chunks_exact_mut(V::LANES) {
        let scaled = V::load(column).sub(low).mul(inverse);
        sum = sum.add(scaled);
        scaled.store(column);
    }
    let mean = sum.div(number(size as f64));
    let mut m2 = zero;
    for column in columns.chunks_exact_mut(V::LANES) {
        let centred = V::load(column).sub(mean);
        m2 = m2.add(centred.mul(centred));
        centred.store(column);
    }
    let factor = factor::<V>(width, m2, size as f64, rule, divisor);
    for column in columns.chunks_exact_mut(V::LANES) {
        // Adding zero takes the sign off a negative one.
        V::load(column).mul(factor).add(zero).store(column);
    }
    let mut squares = [V::Real::ZERO; MOST];
    m2.store(&mut squares);
    squares.iter().all(|&square| is_finite(square))
}

#[inline(always)]
fn factor<V: Register>(width: V, m2: V, size: f64, rule: &Rule, divisor: Option<f64>) -> V {
    let number = |x: f64| V::splat(V::Real::from_f64(x));
    let zero = number(0.0);
    if size < 2.0 {
        return zero;
    }
    let factor = match (rule.scale, divisor) {
        (Scale::Off, _) => width,
        (_, Some(divisor)) if divisor > 0.0 => width.div(number(divisor)),
        (_, Some(_)) => zero,
        _ => {
            let deviation = m2.div(number(size - rule.ddof)).sqrt();
            let factor = number(1.0).div(deviation.add(number(rule.eps).div(width)));
            if rule.least > 0.0 {
                factor.masked(at_least(deviation.mul(width), rule.least))
            } else {
                factor
            }
        }
    };
    let factor = if rule.leave_one_out {
        factor.mul(number(size / (size - 1.0)))
    } else {
        factor
    };
    // Equal rewards may have come to an infinite one, and are zero times it.
    factor.least(V::splat(V::Real::MAX))
}

#[inline(always)]
fn at_least<V: Register>(deviations: V, least: f64) -> V::Mask {
    let mut numbers = [V::Real::ZERO; MOST];
    deviations.store(&mut numbers);
    let below: [u8; MOST] = each(|lane| u8::from(numbers[lane].to_f64() < least));
    V::unset(&below)
}

/// The first lanes are those of a row, which may be shorter than the lanes.
#[inline(always)]
fn load_part<V: Register>(row: &[V::Real]) -> V {
    if row.len() >= V::LANES {
        return V::load(row);
    }
    let mut padded = [V::Real::ZERO; MOST];
    for (slot, &number) in padded.iter_mut().zip(row) {
        *slot = number;
    }
    V::load(&padded)
}

#[inline(always)]
fn store_part<V: Register>(lanes: V, row: &mut [V::Real]) {
    if row.len() >= V::LANES {
        return lanes.store(row);
    }
    let mut padded = [V::Real::ZERO; MOST];
    lanes.store(&mut padded);
    for (slot, &number) in row.iter_mut().zip(&padded) {
        *slot = number;
    }
}

/// Swap lanes and indices, bit by bit (Eklundh, "A fast computer method for matrix transposing",
/// IEEE Transactions on Computers, 1972).
#[inline(always)]
fn transpose<V: Register>(tile: &mut [V; MOST]) {
    if V::LANES > 8 {
        swap_bit::<V, 8>(tile);
    }
    if V::LANES > 4 {
        swap_bit::<V, 4>(tile);
    }
    swap_bit::<V, 2>(tile);
    swap_bit::<V, 1>(tile);
}

/// A constant bit, for the compiler to leave nothing of the loop.
#[inline(always)]
fn swap_bit<V: Register, const BIT: usize>(tile: &mut [V; MOST]) {
    let lower = V::unset(&Bit::<BIT>::LANES);
    for pair in 0..V::LANES / 2 {
        let at = pair + (pair & !(BIT - 1));
        let (a, b) = (tile[at], tile[at + BIT]);
        let crossed = V::choose(lower, b, a).exchange(BIT);
        tile[at] = V::choose(lower, a, crossed);
        tile[at + BIT] = V::choose(lower, crossed, b);
    }
}

struct Bit<const BIT: usize>;

impl<const BIT: usize> Bit<BIT> {
    /// Nonzero where the number of the lane has the bit.
    const LANES: [u8; MOST] = {
        let mut lanes = [0; MOST];
        let mut lane = 0;
        while lane < MOST {
            lanes[lane] = (lane & BIT) as u8;
            lane += 1;
        }
        lanes
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_lanes_and_indices() {
        let mut tile: [[f32; 8]; MOST] = each(|at| each(|lane| (10 * at + lane) as f32));
        transpose(&mut tile);
        for (at, lanes) in tile[..8].iter().enumerate() {
            for (lane, &number) in lanes.iter().enumerate() {
                assert_eq!(number, (10 * lane + at) as f32);
            }
        }
    }
}

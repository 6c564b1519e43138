//! What the rewards of a group have in common, and the advantages that follow from it.

use super::{Row, Rule, STRETCH, Scale};
use crate::ops::element::Real;
use crate::ops::registers::{Arch, Register};

/// Move the rewards that count to the start of `dense`; returns how many there are.
#[inline(always)]
fn pack<R: Real>((rewards, flags): Row<'_, R>, dense: &mut [R]) -> usize {
    let mut count = 0;
    for (at, &reward) in rewards.iter().enumerate() {
        dense[count] = reward;
        let kept = flags.is_none_or(|flags| flags[at] != 0);
        count += usize::from(kept & is_finite(reward));
    }
    count
}

/// `f` of all lanes.
#[inline(always)]
fn across<V: Register>(mut x: V, f: impl Fn(V, V) -> V) -> V::Real {
    let mut by = V::LANES / 2;
    while by > 0 {
        x = f(x, x.shift(by, x));
        by /= 2;
    }
    x.lane_0()
}

/// Fold the first `count` elements of a row into `lanes`; the row is a multiple of the lanes long.
#[inline(always)]
fn along<V: Register>(row: &[V::Real], count: usize, mut lanes: V, f: impl Fn(V, V) -> V) -> V {
    const OUTSIDE: [u8; 32] = {
        let mut outside = [1; 32];
        let mut lane = 0;
        while lane < 16 {
            outside[lane] = 0;
            lane += 1;
        }
        outside
    };
    let (whole, rest) = row.split_at(count - count % V::LANES);
    for chunk in whole.chunks_exact(V::LANES) {
        lanes = f(lanes, V::load(chunk));
    }
    if whole.len() < count {
        let inside = V::unset(&OUTSIDE[16 - (count - whole.len())..]);
        lanes = V::choose(inside, f(lanes, V::load(rest)), lanes);
    }
    lanes
}

/// The sum of `term` over the first `count` elements of a row.
#[inline(always)]
fn total<V: Register>(row: &[V::Real], count: usize, term: impl Fn(V) -> V) -> f64 {
    let zero = V::splat(V::Real::ZERO);
    let mut total = 0.0;
    for start in (0..count).step_by(STRETCH) {
        let stretch = STRETCH.min(count - start);
        let lanes = along(&row[start..], stretch, zero, |sum, x| sum.add(term(x)));
        total += across(lanes, V::add).to_f64();
    }
    total
}

/// What the rewards of a group have in common; `mean` and `m2` are of `(reward - low) / width`.
pub struct Moments<R: Real> {
    pub count: f64,
    low: R,
    pub width: f64,
    inverse: R,
    mean: R,
    m2: f64,
}

impl<R: Real> Moments<R> {
    /// Of a row, with `dense` as memory to work in.
    #[inline(always)]
    pub fn of<A: Arch>(row: Row<'_, R>, dense: &mut Vec<R>) -> Self {
        let lanes = <R::Register<A> as Register>::LANES;
        dense.resize(row.0.len().next_multiple_of(lanes), R::ZERO);
        let count = pack(row, dense);
        let infinity = R::from_f64(f64::INFINITY);
        let lows = along(
            dense,
            count,
            R::Register::<A>::splat(infinity),
            Register::least,
        );
        let low = across(lows, Register::least);
        let none = R::Register::<A>::splat(R::ZERO - infinity);
        let high = across(
            along(dense, count, none, Register::greatest),
            Register::greatest,
        );
        // Without rewards the distance is negative, and the width the least.
        let width = (high - low).to_f64().max(R::MIN_POSITIVE.to_f64());
        let inverse = R::from_f64(1.0 / width);
        let (lows, inverses) = (
            R::Register::<A>::splat(low),
            R::Register::<A>::splat(inverse),
        );
        let scaled = |x: R::Register<A>| x.sub(lows).mul(inverses);
        let mean = R::from_f64(total(dense, count, scaled) / (count as f64).max(1.0));
        let means = R::Register::<A>::splat(mean);
        let m2 = total(dense, count, |x| {
            let centred = scaled(x).sub(means);
            centred.mul(centred)
        });
        Self {
            count: count as f64,
            low,
            width,
            inverse,
            mean,
            m2,
        }
    }

    /// Of `(reward - low) / width`; there are at least two rewards.
    #[inline(always)]
    pub fn deviation(&self, ddof: f64) -> f64 {
        (self.m2 / (self.count - ddof)).sqrt()
    }

    #[inline(always)]
    pub fn factor(&self, rule: &Rule, divisor: Option<f64>) -> R {
        if self.count < 2.0 || self.m2 == 0.0 {
            return R::ZERO;
        }
        let deviation = self.deviation(rule.ddof);
        let scale = match (rule.scale, divisor) {
            (Scale::Off, _) => self.width,
            (_, Some(divisor)) if divisor > 0.0 => self.width / divisor,
            (_, Some(_)) => 0.0,
            _ if deviation * self.width < rule.least => 0.0,
            _ => 1.0 / (deviation + rule.eps / self.width),
        };
        let baseline = if rule.leave_one_out {
            self.count / (self.count - 1.0)
        } else {
            1.0
        };
        R::from_f64(scale * baseline)
    }

    /// Zero where a reward is masked, NaN where one that is not masked is not finite.
    #[inline(always)]
    pub fn write(&self, factor: R, (rewards, flags): Row<'_, R>, results: &mut [R]) {
        for (slot, &reward) in results.iter_mut().zip(rewards) {
            let centred = (reward - self.low) * self.inverse - self.mean;
            // Adding zero takes the sign off a negative one.
            *slot = centred * factor + zero_or_nan(reward);
        }
        if let Some(flags) = flags {
            for (slot, &flag) in results.iter_mut().zip(flags) {
                *slot = slot.masked(R::mask(flag != 0));
            }
        }
    }
}

/// Zero, or NaN where `x` is not finite.
#[allow(clippy::eq_op)] // the difference is the point
#[inline(always)]
fn zero_or_nan<R: Real>(x: R) -> R {
    x - x
}

#[inline(always)]
pub fn is_finite<R: Real>(x: R) -> bool {
    zero_or_nan(x) == R::ZERO
}

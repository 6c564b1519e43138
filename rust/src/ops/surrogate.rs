//! The clipped surrogate, shared by the policy losses.

use super::element::{Element, Real};

/// A sample's `-min(r A, clip(r, low, high) A)`.
#[derive(Clone, Copy, Default)]
pub struct Surrogate<R> {
    pub loss: R,
    /// Its derivative with respect to `log r`: zero where the clip holds.
    pub slope: R,
    /// Whether the clip holds.
    pub held: bool,
}

/// The surrogate for the ratio `r` and the advantage `A`; NaN stays NaN in both parts.
#[inline(always)]
pub fn surrogate<R: Real>(ratio: R, advantage: R, low: R, high: R) -> Surrogate<R> {
    let limited = clamp(ratio, low, high) * advantage;
    let weighted = ratio * advantage;
    let held = weighted > limited;
    Surrogate {
        loss: R::ZERO - R::choose(R::mask(held), limited, weighted),
        slope: R::choose(R::mask(held), R::ZERO, R::ZERO - weighted),
        held,
    }
}

/// `x` within `[low, high]`; NaN stays NaN.
#[inline(always)]
pub fn clamp<R: Real>(x: R, low: R, high: R) -> R {
    let x = R::choose(R::mask(x < low), low, x);
    R::choose(R::mask(x > high), high, x)
}

/// The sum of all lanes, a power of two of them, by halves.
#[inline(always)]
pub(super) fn total<R: Real, const L: usize>(lanes: &[R; L]) -> f64 {
    let mut lanes = *lanes;
    let mut width = L;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = lanes[lane] + lanes[lane + width];
        }
    }
    lanes[0].to_f64()
}

/// `gradient[r, c] * scale[r] * factor`: what a loss's backward pass gives, from the gradients that
/// its forward pass left unscaled.
///
/// # Panics
/// If the lengths do not fit together.
pub fn scaled<V: Element>(gradient: &[V], scale: &[V::Real], factor: V::Real, out: &mut [V]) {
    assert_eq!(gradient.len(), out.len());
    if gradient.is_empty() {
        return;
    }
    let columns = gradient.len() / scale.len();
    for ((from, to), &row) in gradient
        .chunks(columns)
        .zip(out.chunks_mut(columns))
        .zip(scale)
    {
        let by = row * factor;
        for (&x, y) in from.iter().zip(to) {
            *y = V::narrow(x.widen() * by);
        }
    }
}

//! The clipped surrogate, shared by the policy losses.

use super::element::Real;

/// A sample's `-min(r A, clip(r, low, high) A)`.
#[derive(Clone, Copy, Default)]
pub struct Surrogate<R> {
    pub loss: R,
    /// Its derivative with respect to `log r`: zero where the clip holds.
    pub slope: R,
}

/// The surrogate for the ratio `r` and the advantage `A`; NaN stays NaN in both parts.
#[inline(always)]
pub fn surrogate<R: Real>(ratio: R, advantage: R, low: R, high: R) -> Surrogate<R> {
    let limited = clamp(ratio, low, high) * advantage;
    let weighted = ratio * advantage;
    let held = R::mask(weighted > limited);
    Surrogate {
        loss: R::ZERO - R::choose(held, limited, weighted),
        slope: R::choose(held, R::ZERO, R::ZERO - weighted),
    }
}

/// `x` within `[low, high]`; NaN stays NaN.
#[inline(always)]
pub fn clamp<R: Real>(x: R, low: R, high: R) -> R {
    let x = R::choose(R::mask(x < low), low, x);
    R::choose(R::mask(x > high), high, x)
}

/// `gradient[r, c] * scale[r] * factor`: what a loss's backward pass gives, from the gradients that
/// its forward pass left unscaled.
///
/// # Panics
/// If the lengths do not fit together.
pub fn scaled<V: super::element::Element>(
    gradient: &[V],
    scale: &[V::Real],
    factor: V::Real,
    out: &mut [V],
) {
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

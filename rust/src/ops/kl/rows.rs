//! Rows of tokens as they are worked on: what is wanted of each, with its ratio and mask.

use super::{Inputs, Kind, Want};
use crate::ops::element::Real;
use crate::ops::registers::Arch;
use crate::ops::strided::Rows;
use crate::ops::tiles::{Feed, FlagFeed};
use crate::ops::transcendental::Transcendental;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Space for arrays that cannot be used as they lie.
pub struct Feeds<R> {
    logprobs: Feed<R>,
    ref_logprobs: Feed<R>,
    ratio: Feed<R>,
    mask: FlagFeed,
}

impl<R: Real> Feeds<R> {
    pub fn new() -> Self {
        Self {
            logprobs: Feed::new(),
            ref_logprobs: Feed::new(),
            ratio: Feed::new(),
            mask: FlagFeed::new(),
        }
    }

    #[inline(always)]
    pub fn tile<'a>(&'a mut self, part: &'a Inputs<R>) -> Tile<'a, R> {
        Tile {
            logprobs: self.logprobs.rows(&part.logprobs),
            ref_logprobs: self.ref_logprobs.rows(&part.ref_logprobs),
            ratio: part.ratio.as_ref().map(|x| self.ratio.rows(x)),
            mask: part.mask.as_ref().map(|x| self.mask.rows(x)),
        }
    }
}

/// The rows of a tile.
pub struct Tile<'a, R> {
    logprobs: Rows<'a, R>,
    ref_logprobs: Rows<'a, R>,
    ratio: Option<Rows<'a, R>>,
    mask: Option<Rows<'a, u8>>,
}

impl<'a, R: Real> Tile<'a, R> {
    #[inline(always)]
    pub fn row(&self, index: usize) -> Row<'a, R> {
        Row {
            logprobs: self.logprobs.row(index),
            ref_logprobs: self.ref_logprobs.row(index),
            ratio: self.ratio.as_ref().map(|x| x.row(index)),
            mask: self.mask.as_ref().map(|x| x.row(index)),
        }
    }
}

/// A row of a tile, wherever it lies.
pub struct Row<'a, R> {
    pub logprobs: &'a [R],
    pub ref_logprobs: &'a [R],
    pub ratio: Option<&'a [R]>,
    pub mask: Option<&'a [u8]>,
}

impl<R: Real + Transcendental> Row<'_, R> {
    /// What is wanted, without the gradient that comes from above and without the mask.
    #[inline(always)]
    pub fn compute<A: Arch>(&self, kind: Kind, want: Want, out: &mut [R]) {
        let zero = R::ZERO;
        let half = R::from_f64(0.5);
        let (a, b) = (self.logprobs, self.ref_logprobs);
        let estimate = matches!(want, Want::Estimate | Want::Ratio);
        match (kind, estimate) {
            (Kind::K1, true) => fill(out, a, b, |a, b| a - b),
            (Kind::K1, false) => out.fill(R::ONE),
            (Kind::K2, true) => fill(out, a, b, |a, b| (a - b) * (a - b) * half),
            (Kind::K2, false) => fill(out, a, b, |a, b| a - b),
            (Kind::K3, true) => fill(out, a, b, |a, b| R::exp_excess_of::<A>(b - a)),
            (Kind::K3, false) => fill(out, a, b, |a, b| zero - R::exp_m1_of::<A>(b - a)),
        }
        if let (Some(ratio), true) = (self.ratio, want != Want::Ratio) {
            scale(out, ratio, R::ONE);
        }
        if want == Want::RefLogprobs {
            for x in out.iter_mut() {
                *x = zero - *x;
            }
        }
    }

    /// Zeros where the mask is zero.
    #[inline(always)]
    pub fn silence(&self, out: &mut [R]) {
        if let Some(mask) = self.mask {
            for (x, &flag) in out.iter_mut().zip(mask) {
                *x = x.masked(R::mask(flag != 0));
            }
        }
    }

    /// How many tokens count.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.mask.map_or(self.logprobs.len(), |mask| {
            mask.iter().filter(|&&flag| flag != 0).count()
        })
    }
}

/// `f` of every pair; apart from the first few, which lie before a cache line begins, no vector is
/// written into two lines.
#[inline(always)]
fn fill<R: Real>(out: &mut [R], a: &[R], b: &[R], f: impl Fn(R, R) -> R) {
    let head = out.as_ptr().align_offset(LINE).min(out.len());
    let ((a_head, a), (b_head, b)) = (a.split_at(head), b.split_at(head));
    let (out_head, out) = out.split_at_mut(head);
    for (out, a, b) in [(out_head, a_head, b_head), (out, a, b)] {
        for ((x, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *x = f(a, b);
        }
    }
}

/// `out` times `by` times `factor`.
#[inline(always)]
pub fn scale<R: Real>(out: &mut [R], by: &[R], factor: R) {
    for (x, &by) in out.iter_mut().zip(by) {
        *x = *x * (by * factor);
    }
}

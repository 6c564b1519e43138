//! The recurrence along one trajectory, without the latency of a chain of dependent steps.
//!
//! Consecutive steps compose: `(a, b)` and then `(a', b')` is `(a a', b + a b')`, where `(a, b)`
//! stands for `x = a x_next + b`. A block of consecutive times is composed with its own copies
//! shifted by 1, 2, 4 and 8 lanes; then every lane holds the steps from its time to the end of the
//! block as a single one, and only that one waits for what follows (Hillis and Steele, "Data
//! parallel algorithms", CACM 1986).

use super::element::Real;
use super::registers::Register;

/// Times that are composed at once.
pub const BLOCK: usize = 16;

/// The registers of a block; types with fewer than four leave the last ones alone.
pub type Block<V> = [V; 4];

/// How many registers a block takes.
pub const fn registers<V: Register>() -> usize {
    BLOCK / V::LANES
}

/// Register `index` of the block moved forward by `2^LEVEL` lanes, with `end` behind the block;
/// `None` if nothing but `end` is left.
#[inline(always)]
fn shifted<V: Register, const LEVEL: usize>(block: &Block<V>, index: usize, end: V) -> Option<V> {
    let distance = 1 << LEVEL;
    let count = registers::<V>();
    if distance < V::LANES {
        let after = if index + 1 < count {
            block[index + 1]
        } else {
            end
        };
        return Some(block[index].shift(distance, after));
    }
    let source = index + distance / V::LANES;
    (source < count).then(|| block[source])
}

/// What each lane multiplies what lies behind it with, as composition proceeds.
trait Decays<V: Register> {
    /// The product of register `index` with `x` at `level`.
    fn times(&self, level: usize, index: usize, x: V) -> V;

    fn compose<const LEVEL: usize>(&mut self);
}

/// Decays that differ from lane to lane; where one is zero, nothing passes.
struct Varying<V>(Block<V>);

impl<V: Register> Decays<V> for Varying<V> {
    #[inline(always)]
    fn times(&self, _level: usize, index: usize, x: V) -> V {
        self.0[index].kept(x)
    }

    #[inline(always)]
    fn compose<const LEVEL: usize>(&mut self) {
        let one = V::splat(V::Real::ONE);
        let before = self.0;
        for index in 0..registers::<V>() {
            if let Some(behind) = shifted::<V, LEVEL>(&before, index, one) {
                self.0[index] = before[index].mul(behind);
            }
        }
    }
}

/// The powers of a decay that is the same in all lanes, by level.
pub struct Powers<V>([Block<V>; LEVELS + 1]);

const LEVELS: usize = BLOCK.ilog2() as usize;

impl<V: Register> Powers<V> {
    #[inline(always)]
    pub fn new(decay: V::Real) -> Self {
        let mut decays = Varying([V::splat(decay); 4]);
        let mut powers = [decays.0; LEVELS + 1];
        decays.compose::<0>();
        powers[1] = decays.0;
        decays.compose::<1>();
        powers[2] = decays.0;
        decays.compose::<2>();
        powers[3] = decays.0;
        decays.compose::<3>();
        powers[4] = decays.0;
        Self(powers)
    }
}

impl<V: Register> Decays<V> for &Powers<V> {
    #[inline(always)]
    fn times(&self, level: usize, index: usize, x: V) -> V {
        self.0[level][index].mul(x)
    }

    #[inline(always)]
    fn compose<const LEVEL: usize>(&mut self) {}
}

#[inline(always)]
fn compose<V: Register, D: Decays<V>>(mut decays: D, mut x: Block<V>, carry: V) -> Block<V> {
    compose_level::<V, D, 0>(&mut decays, &mut x);
    compose_level::<V, D, 1>(&mut decays, &mut x);
    compose_level::<V, D, 2>(&mut decays, &mut x);
    compose_level::<V, D, 3>(&mut decays, &mut x);
    for (index, x) in x.iter_mut().enumerate().take(registers::<V>()) {
        *x = x.add(decays.times(LEVELS, index, carry));
    }
    x
}

#[inline(always)]
fn compose_level<V: Register, D: Decays<V>, const LEVEL: usize>(decays: &mut D, x: &mut Block<V>) {
    let zero = V::splat(V::Real::ZERO);
    let before = *x;
    for index in 0..registers::<V>() {
        if let Some(behind) = shifted::<V, LEVEL>(&before, index, zero) {
            x[index] = before[index].add(decays.times(LEVEL, index, behind));
        }
    }
    decays.compose::<LEVEL>();
}

/// A block of offsets to its solution, with decays that differ; `carry` is `x` behind the block in
/// every lane and becomes `x` at its beginning.
#[inline(always)]
pub fn solve<V: Register>(decays: Block<V>, offsets: Block<V>, carry: &mut V) -> Block<V> {
    let x = compose(Varying(decays), offsets, *carry);
    *carry = x[0].first();
    x
}

/// [`solve`] with one decay for all lanes, which is not zero.
#[inline(always)]
pub fn solve_uncut<V: Register>(powers: &Powers<V>, offsets: Block<V>, carry: &mut V) -> Block<V> {
    let x = compose(powers, offsets, *carry);
    *carry = x[0].first();
    x
}

//! Advantages of rewards against the other rewards of their group.
//!
//! ```text
//! low, width  = the least reward of the group, and the distance to the greatest
//! u           = (reward - low) / width                     in [0, 1]: nothing over- or underflows
//! mean, m2    = of u, in two passes
//! advantage   = (u - mean) * factor
//! factor      = width                                      Scale::Off
//!               1 / (sqrt(m2 / (count - ddof)) + eps / width)          Scale::Group
//!               width / (deviation of all rewards + eps)               Scale::Batch
//!               times count / (count - 1) against the mean of the others alone
//!               0 in a group of fewer than two or of equal rewards
//! ```
//!
//! Rewards that are masked or not finite are in no group.

mod side_by_side;

use std::ops::Range;

use crate::ops::element::Real;
use crate::ops::registers::{self, Arch, Register, Task};
use crate::ops::strided::{FlagSource, Sink, Source};
use crate::ops::tiles::{Drain, Feed, FlagFeed};
use crate::pool::{self, PoolError};
use side_by_side::Columns;

/// What centred rewards are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Off,
    Group,
    Batch,
}

/// How advantages are formed.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The baseline is the mean of the others, not of the whole group.
    pub leave_one_out: bool,
    pub scale: Scale,
    /// What is taken off the count in a variance.
    pub ddof: f64,
    /// What is added to a deviation.
    pub eps: f64,
    /// A group whose deviation is below this counts as constant.
    pub least: f64,
}

/// The arrays that are read.
#[derive(Clone, Copy)]
pub struct Inputs<'a, R: Real> {
    pub groups: usize,
    pub size: usize,
    /// `[groups, size]`.
    pub rewards: Source<R>,
    /// Which rewards count, of the same shape.
    pub mask: Option<FlagSource>,
    /// One per reward, row by row: where given, groups are not the rows but the rewards of equal
    /// id.
    pub ids: Option<&'a [i64]>,
    /// `[groups * size, T]`: which tokens of a reward's sequence get its advantage.
    pub tokens: Option<FlagSource>,
}

/// Groups of fewer rewards than these are worked out side by side.
const LONG: usize = 128;

/// Rewards that are summed in their own type; longer sums continue in f64.
const STRETCH: usize = 2048;

/// Rewards that pass through a buffer in one go, where one is needed.
const TILE: usize = 4096;

/// Elements from which work is shared among threads.
const PARALLEL: usize = 1 << 18;

/// Advantages of rewards, shaped like them, or of all tokens.
///
/// # Errors
/// Only those of [`pool::current`], and only for arrays large enough to be shared among threads.
pub fn group_advantages<R: Real>(
    inputs: &Inputs<'_, R>,
    out: Sink<'_, R>,
    rule: &Rule,
) -> Result<(), PoolError> {
    let Some(tokens) = inputs.tokens else {
        return of_rewards(inputs, out, rule);
    };
    let mut advantages = vec![R::ZERO; inputs.groups * inputs.size];
    of_rewards(inputs, Sink::of_buffer(&mut advantages, inputs.size), rule)?;
    to_tokens(&advantages, tokens, out)
}

fn of_rewards<R: Real>(
    inputs: &Inputs<'_, R>,
    out: Sink<'_, R>,
    rule: &Rule,
) -> Result<(), PoolError> {
    match inputs.ids {
        None => of_rows(inputs, out, rule),
        Some(ids) => {
            of_ids(inputs, ids, out, rule);
            Ok(())
        }
    }
}

fn of_rows<R: Real>(
    inputs: &Inputs<'_, R>,
    out: Sink<'_, R>,
    rule: &Rule,
) -> Result<(), PoolError> {
    let divisor = match rule.scale {
        Scale::Batch => Some(batch_divisor(&Loaded::new(inputs), rule)),
        _ => None,
    };
    in_shares(inputs.groups, inputs.size, out, |rows, mut out| {
        registers::run(Rows {
            inputs: &inputs.part(rows),
            out: &mut out,
            rule,
            divisor,
        });
    })
}

fn of_ids<R: Real>(inputs: &Inputs<'_, R>, ids: &[i64], mut out: Sink<'_, R>, rule: &Rule) {
    let loaded = Loaded::new(inputs);
    let order = order_of(ids);
    let sorted = Loaded {
        rewards: order.iter().map(|&at| loaded.rewards[at]).collect(),
        flags: loaded
            .flags
            .as_ref()
            .map(|flags| order.iter().map(|&at| flags[at]).collect()),
    };
    let mut ends: Vec<usize> = (1..order.len())
        .filter(|&at| ids[order[at]] != ids[order[at - 1]])
        .collect();
    ends.push(order.len());
    let mut advantages = vec![R::ZERO; ids.len()];
    registers::run(Runs {
        sorted: &sorted,
        ends: &ends,
        results: &mut advantages,
        rule,
        divisor: (rule.scale == Scale::Batch).then(|| batch_divisor(&loaded, rule)),
    });
    let mut results = loaded.rewards;
    for (&at, &advantage) in order.iter().zip(&advantages) {
        results[at] = advantage;
    }
    out.store(&results);
}

/// Indices in the order of their ids, those of equal id in their own.
fn order_of(ids: &[i64]) -> Vec<usize> {
    let low = ids.iter().copied().min().unwrap_or(0);
    let high = ids.iter().copied().max().unwrap_or(0);
    let span = high.abs_diff(low) as usize;
    let mut order: Vec<usize> = (0..ids.len()).collect();
    // Few distinct ids, as indices of prompts are, are counted.
    if span > 4 * ids.len() {
        order.sort_by_key(|&at| ids[at]);
        return order;
    }
    let mut starts = vec![0_usize; span + 2];
    for &id in ids {
        starts[id.abs_diff(low) as usize + 1] += 1;
    }
    for key in 0..=span {
        starts[key + 1] += starts[key];
    }
    for (at, &id) in ids.iter().enumerate() {
        let start = &mut starts[id.abs_diff(low) as usize];
        order[*start] = at;
        *start += 1;
    }
    order
}

/// One advantage per row of `out`, at the tokens that count; zero elsewhere.
fn to_tokens<R: Real>(
    advantages: &[R],
    tokens: FlagSource,
    out: Sink<'_, R>,
) -> Result<(), PoolError> {
    let width = tokens.lanes();
    in_shares(advantages.len(), width, out, |rows, mut out| {
        registers::run(Spread {
            advantages: &advantages[rows.clone()],
            tokens: tokens.part(rows, 0..width),
            out: &mut out,
        });
    })
}

/// Call `body` with shares of the rows, on several threads if there is much to do.
fn in_shares<R: Real>(
    rows: usize,
    width: usize,
    out: Sink<'_, R>,
    body: impl Fn(Range<usize>, Sink<'_, R>) + Sync,
) -> Result<(), PoolError> {
    if rows == 0 || width == 0 {
        return Ok(());
    }
    if rows * width < PARALLEL || rows == 1 {
        body(0..rows, out);
        return Ok(());
    }
    let pool = pool::current()?;
    let share = rows.div_ceil(pool.num_threads());
    let mut rest = out.transposed();
    let mut shares = Vec::new();
    for start in (0..rows).step_by(share) {
        let end = rows.min(start + share);
        shares.push((start..end, rest.take_lanes(end - start).transposed()));
    }
    pool.for_each_item(shares, |(rows, out)| body(rows, out));
    Ok(())
}

impl<R: Real> Inputs<'_, R> {
    fn part(&self, rows: Range<usize>) -> Self {
        Self {
            groups: rows.len(),
            rewards: self.rewards.part(rows.clone(), 0..self.size),
            mask: self.mask.map(|mask| mask.part(rows, 0..self.size)),
            ..*self
        }
    }
}

/// Rewards and flags in memory of their own.
struct Loaded<R> {
    rewards: Vec<R>,
    flags: Option<Vec<u8>>,
}

impl<R: Real> Loaded<R> {
    fn new(inputs: &Inputs<'_, R>) -> Self {
        let count = inputs.groups * inputs.size;
        let mut rewards = vec![R::ZERO; count];
        inputs.rewards.load(&mut rewards);
        let flags = inputs.mask.map(|mask| {
            let mut flags = vec![0; count];
            mask.load(&mut flags);
            flags
        });
        Self { rewards, flags }
    }
}

/// What every group divides by under [`Scale::Batch`]; zero if it is to give zeros.
fn batch_divisor<R: Real>(loaded: &Loaded<R>, rule: &Rule) -> f64 {
    let mut deviation = 0.0;
    registers::run(Deviation {
        loaded,
        ddof: rule.ddof,
        result: &mut deviation,
    });
    if deviation == 0.0 || deviation < rule.least {
        0.0
    } else {
        deviation + rule.eps
    }
}

/// The deviation of all rewards.
struct Deviation<'a, R: Real> {
    loaded: &'a Loaded<R>,
    ddof: f64,
    result: &'a mut f64,
}

impl<R: Real> Task for Deviation<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let row = (&self.loaded.rewards[..], self.loaded.flags.as_deref());
        let moments = Moments::of::<A>(row, &mut Vec::new());
        if moments.count >= 2.0 {
            *self.result = moments.deviation(self.ddof) * moments.width;
        }
    }
}

/// Some rows, one after the other.
struct Rows<'a, 'b, R: Real> {
    inputs: &'a Inputs<'a, R>,
    out: &'a mut Sink<'b, R>,
    rule: &'a Rule,
    divisor: Option<f64>,
}

impl<R: Real> Task for Rows<'_, '_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Inputs { groups, size, .. } = *self.inputs;
        let (mut feed, mut flag_feed, mut drain) = (Feed::new(), FlagFeed::new(), Drain::new());
        let (mut columns, mut dense) = (Columns::new(), Vec::new());
        let lanes = <R::Register<A> as Register>::LANES;
        let tile = (TILE / size).max(1).next_multiple_of(lanes);
        for start in (0..groups).step_by(tile) {
            let rows = start..groups.min(start + tile);
            let part = self.inputs.part(rows.clone());
            let mut sink = self.out.part(rows, 0..size);
            let rewards = feed.rows(&part.rewards);
            let flags = part.mask.as_ref().map(|mask| flag_feed.rows(mask));
            let mut results = drain.rows(&mut sink);
            let (mut tried, mut sound) = (false, false);
            if size < LONG
                && flags.is_none()
                && let (Some(rewards), Some(results)) = (rewards.flat(), results.flat())
            {
                (tried, sound) = (true, true);
                let blocks = results.chunks_mut(lanes * size);
                for (rewards, results) in rewards.chunks(lanes * size).zip(blocks) {
                    sound &= columns.advantages::<R::Register<A>>(
                        rewards,
                        size,
                        self.rule,
                        self.divisor,
                        results,
                    );
                }
            }
            for row in 0..if sound { 0 } else { part.groups } {
                // A reward that is not finite has made all of its group NaN.
                if tried && is_finite(results.row(row)[0]) {
                    continue;
                }
                let row_of_flags = flags.as_ref().map(|flags| flags.row(row));
                let group = (rewards.row(row), row_of_flags);
                let moments = Moments::of::<A>(group, &mut dense);
                moments.write(
                    moments.factor(self.rule, self.divisor),
                    group,
                    results.row(row),
                );
            }
            drain.flush(&mut sink);
        }
    }
}

/// Groups one after the other, `ends` where each ends.
struct Runs<'a, R: Real> {
    sorted: &'a Loaded<R>,
    ends: &'a [usize],
    results: &'a mut [R],
    rule: &'a Rule,
    divisor: Option<f64>,
}

impl<R: Real> Task for Runs<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let mut dense = Vec::new();
        let mut start = 0;
        for &end in self.ends {
            let flags = self.sorted.flags.as_ref().map(|flags| &flags[start..end]);
            let group = (&self.sorted.rewards[start..end], flags);
            let moments = Moments::of::<A>(group, &mut dense);
            let factor = moments.factor(self.rule, self.divisor);
            moments.write(factor, group, &mut self.results[start..end]);
            start = end;
        }
    }
}

struct Spread<'a, 'b, R: Real> {
    advantages: &'a [R],
    tokens: FlagSource,
    out: &'a mut Sink<'b, R>,
}

impl<R: Real> Task for Spread<'_, '_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let width = self.tokens.lanes();
        let (mut flag_feed, mut drain) = (FlagFeed::new(), Drain::new());
        for (row, &advantage) in self.advantages.iter().enumerate() {
            let tokens = self.tokens.part(row..row + 1, 0..width);
            let mut sink = self.out.part(row..row + 1, 0..width);
            let flags = flag_feed.rows(&tokens);
            let mut results = drain.rows(&mut sink);
            for (slot, &flag) in results.row(0).iter_mut().zip(flags.row(0)) {
                *slot = advantage.masked(R::mask(flag != 0));
            }
            drain.flush(&mut sink);
        }
    }
}

/// A row of rewards and which of them count.
type Row<'a, R> = (&'a [R], Option<&'a [u8]>);

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
struct Moments<R: Real> {
    count: f64,
    low: R,
    width: f64,
    inverse: R,
    mean: R,
    m2: f64,
}

impl<R: Real> Moments<R> {
    /// Of a row, with `dense` as memory to work in.
    #[inline(always)]
    fn of<A: Arch>(row: Row<'_, R>, dense: &mut Vec<R>) -> Self {
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
    fn deviation(&self, ddof: f64) -> f64 {
        (self.m2 / (self.count - ddof)).sqrt()
    }

    #[inline(always)]
    fn factor(&self, rule: &Rule, divisor: Option<f64>) -> R {
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
    fn write(&self, factor: R, (rewards, flags): Row<'_, R>, results: &mut [R]) {
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
fn is_finite<R: Real>(x: R) -> bool {
    zero_or_nan(x) == R::ZERO
}

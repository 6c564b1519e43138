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

mod moments;
mod side_by_side;

use std::ops::Range;

use crate::ops::element::Real;
use crate::ops::registers::{self, Arch, Register, Task};
use crate::ops::strided::{FlagSource, Sink, Source};
use crate::ops::tiles::{Drain, Feed, FlagFeed};
use crate::pool::{self, PoolError};
use moments::{Moments, is_finite};
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

//! Sums and least values of weights, as a tree whose nodes are cache lines.
//!
//! A parent is always computed from its eight children, in their order, and never by adding a
//! difference: the total depends on the weights alone, not on the way to them, and no error builds
//! up.

use std::array::from_fn;

use crate::ops::registers::{Arch, Register, Task, run};

/// Children of a node: eight f64 make a cache line.
const FAN_OUT: usize = 8;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Node([f64; FAN_OUT]);

const EMPTY_SUM: Node = Node([0.0; FAN_OUT]);
const EMPTY_LEAST: Node = Node([f64::INFINITY; FAN_OUT]);

/// Weights of `0..capacity`, zero at first.
pub struct Tree {
    /// From the weights up to the one node below the root.
    sums: Vec<Vec<Node>>,
    /// The least of those that are not zero; the level of the weights is missing, it is the same.
    least: Vec<Vec<Node>>,
    capacity: usize,
    /// Nodes to be computed, kept to spare allocations.
    dirty: Vec<u32>,
}

impl Tree {
    /// # Panics
    /// If there is no memory.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let mut sums = Vec::new();
        let mut least = Vec::new();
        let mut entries = capacity.max(1);
        loop {
            let nodes = entries.div_ceil(FAN_OUT);
            if !sums.is_empty() {
                least.push(vec![EMPTY_LEAST; nodes]);
            }
            sums.push(vec![EMPTY_SUM; nodes]);
            entries = nodes;
            if nodes == 1 {
                break;
            }
        }
        Self {
            sums,
            least,
            capacity,
            dirty: Vec::new(),
        }
    }

    /// The sum of all weights.
    #[must_use]
    pub fn total(&self) -> f64 {
        sum(self.sums.last().map_or(&EMPTY_SUM, |level| &level[0]))
    }

    /// The least weight that is not zero; infinity if all are.
    #[must_use]
    pub fn least(&self) -> f64 {
        match self.least.last() {
            Some(level) => least(&level[0]),
            None => least(&positive(&self.sums[0][0])),
        }
    }

    #[must_use]
    pub fn weight(&self, index: u32) -> f64 {
        self.sums[0][index as usize / FAN_OUT].0[index as usize % FAN_OUT]
    }

    /// Set one weight.
    pub fn set(&mut self, index: u32, weight: f64) {
        self.write(index, weight);
        let mut node = index as usize / FAN_OUT;
        for level in 1..self.sums.len() {
            self.compute(level, node);
            node /= FAN_OUT;
        }
    }

    /// Set several weights; of several for one index the last one stays.
    pub fn set_all(&mut self, indices: &[u32], weights: impl Iterator<Item = f64>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.clear();
        for (&index, weight) in indices.iter().zip(weights) {
            self.write(index, weight);
            add(&mut dirty, index / FAN_OUT as u32);
        }
        run(Climb {
            tree: self,
            dirty: &mut dirty,
        });
        self.dirty = dirty;
    }

    fn write(&mut self, index: u32, weight: f64) {
        assert!((index as usize) < self.capacity, "an index of the tree");
        self.sums[0][index as usize / FAN_OUT].0[index as usize % FAN_OUT] = weight;
    }

    /// Compute the entry of `level` that stands for the node `node` of the level below.
    #[inline(always)]
    fn compute(&mut self, level: usize, node: usize) {
        let below = &self.sums[level - 1][node];
        let smallest = match level {
            1 => least(&positive(below)),
            _ => least(&self.least[level - 2][node]),
        };
        let total = sum(below);
        let (parent, child) = (node / FAN_OUT, node % FAN_OUT);
        self.sums[level][parent].0[child] = total;
        self.least[level - 1][parent].0[child] = smallest;
    }

    /// For each target in `[0, total)`, the first index at which the sum of the weights up to it
    /// exceeds the target. An index of weight zero is never found, unless all are.
    pub fn find(&self, targets: &mut [f64], found: &mut [u32]) {
        run(Find {
            tree: self,
            targets,
            found,
        });
    }

    /// All weights become zero.
    pub fn clear(&mut self) {
        self.sums.iter_mut().for_each(|level| level.fill(EMPTY_SUM));
        self.least
            .iter_mut()
            .for_each(|level| level.fill(EMPTY_LEAST));
    }
}

fn add(dirty: &mut Vec<u32>, node: u32) {
    if dirty.last() != Some(&node) {
        dirty.push(node);
    }
}

/// From the nodes `dirty` to the root.
struct Climb<'a> {
    tree: &'a mut Tree,
    dirty: &'a mut Vec<u32>,
}

impl Task for Climb<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Self { tree, dirty } = self;
        for level in 1..tree.sums.len() {
            let nodes = tree.sums[level - 1].len();
            if dirty.len() >= nodes {
                dirty.clear();
                for node in 0..nodes {
                    tree.compute(level, node);
                }
                dirty.extend(0..tree.sums[level].len() as u32);
                continue;
            }
            let mut kept = 0;
            for at in 0..dirty.len() {
                let node = dirty[at];
                tree.compute(level, node as usize);
                let parent = node / FAN_OUT as u32;
                if kept == 0 || dirty[kept - 1] != parent {
                    dirty[kept] = parent;
                    kept += 1;
                }
            }
            dirty.truncate(kept);
        }
    }
}

struct Find<'a> {
    tree: &'a Tree,
    targets: &'a mut [f64],
    found: &'a mut [u32],
}

impl Task for Find<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let lanes = A::F64::LANES;
        let whole = self.targets.len() / lanes * lanes;
        let (targets, last_targets) = self.targets.split_at_mut(whole);
        let (found, last_found) = self.found.split_at_mut(whole);
        walk::<A::F64>(self.tree, targets, found);
        if last_targets.is_empty() {
            return;
        }
        let mut padded = [0.0; FAN_OUT];
        padded[..last_targets.len()].copy_from_slice(last_targets);
        let mut found = [0; FAN_OUT];
        walk::<A::F64>(self.tree, &mut padded[..lanes], &mut found[..lanes]);
        last_found.copy_from_slice(&found[..last_found.len()]);
    }
}

/// Registers of targets, level by level, so that the nodes of many are waited for at once.
#[inline(always)]
fn walk<R: Register<Real = f64>>(tree: &Tree, targets: &mut [f64], found: &mut [u32]) {
    found.fill(0);
    for level in tree.sums.iter().rev() {
        let groups = targets.chunks_exact_mut(R::LANES);
        for (targets, at) in groups.zip(found.chunks_exact_mut(R::LANES)) {
            descend::<R>(level, targets, at);
        }
    }
}

/// From nodes to the children that the targets fall into; the children before are taken off them.
#[inline(always)]
fn descend<R: Register<Real = f64>>(level: &[Node], targets: &mut [f64], at: &mut [u32]) {
    let target = R::load(targets);
    let [mut child, mut before, mut sum] = [R::splat(0.0); 3];
    for (i, weight) in children::<R>(level, at).into_iter().enumerate() {
        // Weights of zero are never reached: where rounding has carried a target past the end, the
        // last one above zero is meant.
        let positive = R::splat(0.0).below(weight);
        let passed = R::choose(positive, target, R::splat(f64::NEG_INFINITY)).below(sum);
        child = R::choose(passed, child, R::splat(i as f64));
        before = R::choose(passed, before, sum);
        sum = sum.add(weight);
    }
    target.sub(before).store(targets);
    let mut chosen = [0.0; FAN_OUT];
    child.store(&mut chosen);
    for (at, child) in at.iter_mut().zip(chosen) {
        *at = *at * FAN_OUT as u32 + child as u32;
    }
}

/// The children of the nodes at `at`, a node in each lane.
#[inline(always)]
fn children<R: Register<Real = f64>>(level: &[Node], at: &[u32]) -> [R; FAN_OUT] {
    let nodes: [&Node; FAN_OUT] = from_fn(|row| &level[at[row % R::LANES] as usize]);
    let mut children = square::<R>(nodes, 0);
    if R::LANES < FAN_OUT {
        let others = square::<R>(nodes, R::LANES);
        children[R::LANES..].copy_from_slice(&others[..FAN_OUT - R::LANES]);
    }
    children
}

/// As many children of the nodes as there are lanes, from `first` on; the others are of no use.
///
/// Rows change sides about the diagonal: first within pairs of them, then between the pairs.
#[inline(always)]
fn square<R: Register<Real = f64>>(nodes: [&Node; FAN_OUT], first: usize) -> [R; FAN_OUT] {
    let mut rows = [R::splat(0.0); FAN_OUT];
    for (row, node) in rows.iter_mut().zip(nodes) {
        *row = R::load(&node.0[first..]);
    }
    rows = exchanged::<R, 1>(rows);
    if R::LANES > 2 {
        rows = exchanged::<R, 2>(rows);
    }
    if R::LANES > 4 {
        rows = exchanged::<R, 4>(rows);
    }
    rows
}

/// Lanes whose number differs from the row's in the bit `BY` change places with those of the row
/// whose number differs in that bit.
#[inline(always)]
fn exchanged<R: Register, const BY: usize>(rows: [R; FAN_OUT]) -> [R; FAN_OUT] {
    let odd = R::unset(&from_fn::<u8, FAN_OUT, _>(|lane| (!lane & BY) as u8));
    let even = R::unset(&from_fn::<u8, FAN_OUT, _>(|lane| (lane & BY) as u8));
    let mut exchanged = rows;
    for (row, to) in exchanged.iter_mut().enumerate() {
        let own = if row & BY == 0 { even } else { odd };
        *to = R::choose(own, rows[row], rows[row ^ BY].exchange(BY));
    }
    exchanged
}

#[inline(always)]
fn sum(node: &Node) -> f64 {
    node.0.iter().fold(0.0, |sum, &x| sum + x)
}

/// In halves, which is faster than in turn; no weight is NaN.
#[inline(always)]
fn least(node: &Node) -> f64 {
    let less = |a: f64, b: f64| if a < b { a } else { b };
    let x = node.0;
    let x: [f64; 4] = from_fn(|i| less(x[i], x[i + 4]));
    let x: [f64; 2] = from_fn(|i| less(x[i], x[i + 2]));
    less(x[0], x[1])
}

#[inline(always)]
fn positive(node: &Node) -> Node {
    Node(node.0.map(|x| if x > 0.0 { x } else { f64::INFINITY }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::registers::Portable;

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, n: usize) -> usize {
            (self.next() % n as u64) as usize
        }

        fn unit(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    const CAPACITIES: [usize; 8] = [1, 7, 8, 9, 64, 65, 1000, 4097];

    fn check(tree: &Tree, weights: &[f64]) {
        let total: f64 = weights.iter().sum();
        assert!((tree.total() - total).abs() <= 1e-12 * total);
        let least = weights
            .iter()
            .copied()
            .filter(|&x| x > 0.0)
            .fold(f64::INFINITY, f64::min);
        assert_eq!(tree.least(), least);
        for (i, &weight) in weights.iter().enumerate() {
            assert_eq!(tree.weight(i as u32), weight);
        }
    }

    #[test]
    fn single_and_batched_updates_agree_with_plain_sums() {
        for capacity in CAPACITIES {
            let mut random = Random(capacity as u64);
            let mut weights = vec![0.0; capacity];
            let (mut single, mut batched) = (Tree::new(capacity), Tree::new(capacity));
            check(&single, &weights);
            for round in 0..20 {
                let count = [0, 1, 5, capacity, 3 * capacity][round % 5];
                let indices: Vec<u32> = (0..count).map(|_| random.below(capacity) as u32).collect();
                let new: Vec<f64> = (0..count)
                    .map(|_| match random.below(4) {
                        0 => 0.0,
                        _ => random.unit() * 10.0,
                    })
                    .collect();
                for (&index, &weight) in indices.iter().zip(&new) {
                    weights[index as usize] = weight;
                    single.set(index, weight);
                }
                batched.set_all(&indices, new.iter().copied());
                check(&single, &weights);
                check(&batched, &weights);
                assert_eq!(single.total(), batched.total());
            }
            batched.clear();
            check(&batched, &vec![0.0; capacity]);
        }
    }

    #[test]
    fn targets_find_the_weight_they_fall_into() {
        for capacity in CAPACITIES {
            let mut random = Random(99 + capacity as u64);
            let mut tree = Tree::new(capacity);
            // Whole numbers, which sums hold exactly.
            let weights: Vec<f64> = (0..capacity).map(|_| random.below(4) as f64).collect();
            let indices: Vec<u32> = (0..capacity as u32).collect();
            tree.set_all(&indices, weights.iter().copied());
            let mut sum = 0.0;
            let mut targets = Vec::new();
            let mut expected = Vec::new();
            for (i, &weight) in weights.iter().enumerate() {
                if weight > 0.0 {
                    targets.extend([sum, sum + weight / 2.0, sum + weight - 0.25]);
                    expected.extend([i as u32; 3]);
                }
                sum += weight;
            }
            for count in [1, 3, 4, 8, 29, targets.len()] {
                let count = count.min(targets.len());
                let mut found = vec![0; count];
                tree.find(&mut targets[..count].to_vec(), &mut found);
                assert_eq!(found, expected[..count], "capacity {capacity}");
                found.fill(0);
                Find {
                    tree: &tree,
                    targets: &mut targets[..count].to_vec(),
                    found: &mut found,
                }
                .run::<Portable>();
                assert_eq!(found, expected[..count], "capacity {capacity}, portable");
            }
        }
    }

    #[test]
    fn targets_past_the_end_find_the_last_weight_above_zero() {
        let mut tree = Tree::new(100);
        tree.set(3, 0.1);
        tree.set(71, 0.2);
        let mut found = [0; 2];
        tree.find(&mut [tree.total(), 1e9], &mut found);
        assert_eq!(found, [71; 2]);
    }

    // Ten million random updates: the total is that of the weights.
    #[test]
    fn totals_do_not_drift() {
        let capacity = 20_000;
        let mut random = Random(5);
        let mut tree = Tree::new(capacity);
        let mut weights = vec![0.0; capacity];
        let mut indices = vec![0; 1000];
        let mut new = vec![0.0; 1000];
        for _ in 0..10_000 {
            for (index, weight) in indices.iter_mut().zip(&mut new) {
                *index = random.below(capacity) as u32;
                // Over twelve orders of magnitude.
                *weight = 10.0_f64.powf(12.0 * random.unit() - 6.0);
                weights[*index as usize] = *weight;
            }
            tree.set_all(&indices, new.iter().copied());
        }
        let total: f64 = weights.iter().sum();
        assert!((tree.total() - total).abs() <= 1e-9 * total);
        assert!((tree.total() - total).abs() <= 1e-12 * total);
    }
}

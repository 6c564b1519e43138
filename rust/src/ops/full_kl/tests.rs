//! The divergence against its definition, and where there is none.

use super::*;

const TEMPERATURE: f64 = 0.7;

fn wave(count: usize, phase: f64) -> Vec<f64> {
    let at = |i: usize| 5.0 * (i as f64 * 0.7 + phase).sin() + (i % 13) as f64;
    (0..count).map(at).collect()
}

/// Divergences and both gradients for gradients of 2.
fn both(logits: &[f64], ref_logits: &[f64], mask: &[u8], vocabulary: usize) -> [Vec<f64>; 3] {
    let rows = logits.len() / vocabulary;
    let inputs = Inputs {
        row: |i: usize| &logits[i * vocabulary..][..vocabulary],
        ref_row: |i: usize| &ref_logits[i * vocabulary..][..vocabulary],
        mask,
        rows,
        vocabulary,
        temperature: TEMPERATURE,
    };
    let mut divergences = vec![f64::NAN; rows];
    let mut statistics = vec![[f64::NAN; 4]; rows];
    forward(inputs, &mut divergences, &mut statistics).unwrap();
    let saved = Saved {
        grad: &vec![2.0; rows],
        divergences: &divergences,
        statistics: &statistics,
    };
    let (mut grad, mut ref_grad) = (vec![f64::NAN; logits.len()], vec![f64::NAN; logits.len()]);
    backward(inputs, saved, &mut grad, &mut ref_grad).unwrap();
    [divergences, grad, ref_grad]
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| ((x - max) / TEMPERATURE).exp()).sum();
    row.iter()
        .map(|x| (x - max) / TEMPERATURE - sum.ln())
        .collect()
}

fn assert_near(got: f64, want: f64) {
    assert!(
        (got - want).abs() <= 1e-11 * (1.0 + want.abs()),
        "{got} {want}"
    );
}

#[test]
fn every_size_agrees_with_the_definition() {
    for vocabulary in [1, 2, 31, 32, 63, 1000, BLOCK, 2 * BLOCK + 17] {
        let (logits, ref_logits) = (wave(2 * vocabulary, 0.0), wave(2 * vocabulary, 0.4));
        let [divergences, grad, ref_grad] = both(&logits, &ref_logits, &[], vocabulary);
        for (row, &divergence) in divergences.iter().enumerate() {
            let range = row * vocabulary..(row + 1) * vocabulary;
            let log_p = log_softmax(&logits[range.clone()]);
            let log_q = log_softmax(&ref_logits[range.clone()]);
            let terms = log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q));
            let want: f64 = terms.sum();
            assert_near(divergence, want);
            for (j, (p, q)) in log_p.iter().zip(&log_q).enumerate() {
                let slope = 2.0 / TEMPERATURE;
                assert_near(grad[range.start + j], slope * p.exp() * (p - q - want));
                assert_near(ref_grad[range.start + j], slope * (q.exp() - p.exp()));
            }
        }
    }
}

#[test]
fn masked_rows_are_zero_whatever_they_hold() {
    let (mut logits, ref_logits) = (wave(3 * 40, 0.0), wave(3 * 40, 1.0));
    logits[40..80].fill(f64::NAN);
    let [divergences, grad, ref_grad] = both(&logits, &ref_logits, &[1, 0, 1], 40);
    assert!(divergences[0] > 0.0 && divergences[1] == 0.0 && divergences[2] > 0.0);
    for gradient in [grad, ref_grad] {
        assert!(gradient[40..80].iter().all(|&g| g == 0.0));
        assert!(gradient.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn excluded_tokens() {
    let (mut logits, mut ref_logits) = (wave(3 * BLOCK, 0.0), wave(3 * BLOCK, 0.3));
    logits[..BLOCK + 5].fill(f64::NEG_INFINITY);
    let [alone, grad, _] = both(&logits, &ref_logits, &[], 3 * BLOCK);
    assert!(alone[0].is_finite() && grad[..BLOCK].iter().all(|&g| g == 0.0));
    ref_logits[..BLOCK].fill(f64::NEG_INFINITY);
    let [together, _, ref_grad] = both(&logits, &ref_logits, &[], 3 * BLOCK);
    assert!(together[0].is_finite() && ref_grad[..BLOCK].iter().all(|&g| g == 0.0));
    // Wherever it is, and however little probability the policy leaves it.
    for (at, x) in [(BLOCK + 7, 0.0), (3 * BLOCK - 1, -1e5), (BLOCK + 6, -1e300)] {
        let (mut logits, mut ref_logits) = (logits.clone(), ref_logits.clone());
        (logits[at], ref_logits[at]) = (x, f64::NEG_INFINITY);
        let [divergences, grad, ref_grad] = both(&logits, &ref_logits, &[], 3 * BLOCK);
        assert_eq!(divergences[0], f64::INFINITY);
        assert!(grad[at].is_nan() && ref_grad.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn parts_that_only_one_side_excludes_may_come_in_any_order() {
    let (some, none) = (wave(BLOCK, 0.0), vec![f64::NEG_INFINITY; BLOCK]);
    let join = |parts: [&[f64]; 3]| parts.concat();
    let policy = join([&none, &none, &some]);
    for reference in [
        join([&none, &some, &some]),
        join([&some, &none, &some]),
        join([&some, &some, &some]),
    ] {
        let [divergences, ..] = both(&policy, &reference, &[], 3 * BLOCK);
        let (log_p, log_q) = (log_softmax(&policy), log_softmax(&reference));
        let terms = log_p.iter().zip(&log_q).filter(|(p, _)| p.is_finite());
        assert_near(divergences[0], terms.map(|(p, q)| p.exp() * (p - q)).sum());
        let [divergences, ..] = both(&reference, &policy, &[], 3 * BLOCK);
        assert_eq!(divergences[0], f64::INFINITY);
    }
}

#[test]
fn nan_where_there_is_no_answer() {
    let nothing = vec![f64::NEG_INFINITY; 40];
    let some = wave(40, 0.0);
    let mut spoilt = some.clone();
    spoilt[7] = f64::NAN;
    let pairs = [
        (&nothing, &some),
        (&some, &nothing),
        (&spoilt, &some),
        (&some, &spoilt),
    ];
    for (logits, ref_logits) in pairs {
        let [divergences, grad, _] = both(logits, ref_logits, &[], 40);
        assert!(divergences[0].is_nan() && grad.iter().all(|g| g.is_nan()));
    }
}

#[test]
fn rows_do_not_depend_on_how_they_are_shared() {
    let (rows, vocabulary) = (150, 1001);
    let (logits, ref_logits) = (wave(rows * vocabulary, 0.0), wave(rows * vocabulary, 0.5));
    let together = both(&logits, &ref_logits, &[], vocabulary);
    for row in 0..rows {
        let range = row * vocabulary..(row + 1) * vocabulary;
        let part = (&logits[range.clone()], &ref_logits[range.clone()]);
        let alone = both(part.0, part.1, &[], vocabulary);
        assert_eq!(alone[0][0].to_bits(), together[0][row].to_bits());
        assert_eq!(alone[1], together[1][range.clone()]);
        assert_eq!(alone[2], together[2][range]);
    }
}

use super::*;
use crate::envs::Autoreset;
use crate::envs::{Acrobot, CartPole, MountainCar, MountainCarContinuous, Params, Pendulum, Row};
use crate::philox::{philox, uniform};

#[derive(Clone, PartialEq, Debug)]
struct Owned {
    state: Vec<[f32; 4]>,
    elapsed: Vec<i32>,
    episode: Vec<u32>,
    seed: Vec<u64>,
    ended: Vec<u8>,
    episode_return: Vec<f32>,
    obs: Vec<[f32; 4]>,
    rewards: Vec<f32>,
    flags: [Vec<u8>; 2],
    final_obs: Vec<[f32; 4]>,
    final_return: Vec<f32>,
    final_length: Vec<i32>,
    num_ended: usize,
}

/// Environments about to fall or at rest, one in ten with an angle beyond the vector path.
fn environments(n: usize) -> Owned {
    let draw = |i: usize, k: usize| philox(9, i as u64, 0, 7)[k] as f32 / u32::MAX as f32 - 0.5;
    let state = |i: usize| {
        let far = if i % 10 == 3 { 1e6 } else { 0.9 };
        [5.0 * draw(i, 0), draw(i, 1), far * draw(i, 2), draw(i, 3)]
    };
    Owned {
        state: (0..n).map(state).collect(),
        elapsed: (0..n).map(|i| (i % 50) as i32).collect(),
        episode: (0..n).map(|i| i as u32).collect(),
        seed: (0..n).map(|i| i as u64 * 77).collect(),
        ended: (0..n).map(|i| u8::from(i % 7 == 2)).collect(),
        episode_return: (0..n).map(|i| i as f32).collect(),
        obs: vec![[9.0; 4]; n],
        rewards: vec![9.0; n],
        flags: [vec![9; n], vec![9; n]],
        final_obs: vec![[9.0; 4]; n],
        final_return: vec![9.0; n],
        final_length: vec![9; n],
        num_ended: 0,
    }
}

const PARAMS: [f32; 13] = [
    9.8, 0.1, 1.1, 0.5, 0.05, 10.0, 0.02, 0.3, 2.4, 1.0, -1.0, -0.05, 0.05,
];

fn batch(autoreset: Autoreset) -> Batch<CartPole> {
    Batch {
        task: CartPole::from_params(&PARAMS).unwrap(),
        autoreset,
        max_episode_steps: 40,
    }
}

fn part<'a>(
    batch: &'a Batch<CartPole>,
    owned: &'a mut Owned,
    actions: &'a [i64],
) -> Part<'a, CartPole> {
    let [terminated, truncated] = &mut owned.flags;
    Part {
        batch,
        first: 0,
        state: State {
            state: &mut owned.state,
            elapsed: &mut owned.elapsed,
            episode: &mut owned.episode,
            seed: &owned.seed,
            ended: &mut owned.ended,
            episode_return: &mut owned.episode_return,
            columns: None,
        },
        actions,
        outputs: Outputs {
            obs: &mut owned.obs,
            rewards: &mut owned.rewards,
            terminated,
            truncated,
            final_obs: Some(&mut owned.final_obs),
            final_return: Some(&mut owned.final_return),
            final_length: Some(&mut owned.final_length),
        },
    }
}

fn instruction_sets<T: Task>(of_each: bool) -> Vec<StepChunk<T>> {
    let mut sets = vec![InstructionSet::<T>::plain(of_each).step_chunk];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            sets.push(InstructionSet::<T>::avx2(of_each).step_chunk);
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            sets.push(InstructionSet::<T>::avx512(of_each).step_chunk);
        }
    }
    sets
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for n in [0, 1, 7, 8, 15, 16, 17, 63, 64, 200, CHUNK] {
        let actions: Vec<i64> = (0..n as i64).map(|i| (i * i) % 2).collect();
        for mode in [
            Autoreset::NextStep,
            Autoreset::SameStep,
            Autoreset::Disabled,
        ] {
            let batch = batch(mode);
            let params: Vec<f32> = PARAMS.iter().flat_map(|&p| vec![p; n]).collect();
            let limits = vec![batch.max_episode_steps; n];
            let columns = Columns::new(&params, &limits);
            let shared = instruction_sets::<CartPole>(false).into_iter();
            let of_each = instruction_sets::<CartPole>(true).into_iter();
            let results: Vec<Owned> = shared
                .map(|set| (set, None))
                .chain(of_each.map(|set| (set, Some(columns))))
                .map(|(step_chunk, columns)| {
                    let mut owned = environments(n);
                    for _ in 0..30 {
                        let mut chunk = part(&batch, &mut owned, &actions);
                        chunk.state.columns = columns;
                        // SAFETY: only sets that the processor has are listed.
                        let num_ended = unsafe { step_chunk(&mut chunk) };
                        owned.num_ended += num_ended;
                    }
                    owned
                })
                .collect();
            assert!(results.iter().all(|result| *result == results[0]));
            assert!(n < 63 || results[0].num_ended > 0);
        }
    }
}

#[test]
fn splitting_a_batch_changes_nothing() {
    let n = 5 * CHUNK + 37;
    let actions: Vec<i64> = (0..n as i64).map(|i| (i / 3) % 2).collect();
    let batch = batch(Autoreset::SameStep);
    let mut whole = environments(n);
    whole.num_ended = part(&batch, &mut whole, &actions).step();
    for count in [1, 2, 3, 7, 100] {
        let mut split = environments(n);
        let parts = part(&batch, &mut split, &actions).split_into(count);
        assert!(parts.len() <= count.max(1));
        split.num_ended = parts.into_iter().map(Part::step).sum();
        assert_eq!(split, whole);
    }
}

#[test]
fn threads_change_nothing() {
    let n = PARALLEL_FROM + 5;
    let actions = vec![1; n];
    let batch = batch(Autoreset::NextStep);
    let mut single = environments(n);
    part(&batch, &mut single, &actions).step();
    let mut parallel = environments(n);
    let Part { state, outputs, .. } = part(&batch, &mut parallel, &actions);
    step(&batch, state, &actions, outputs).unwrap();
    assert_eq!(single, parallel);
}

/// One task's states after some steps from random ones, by every instruction set.
fn states_by_set<T: Task>(params: &[f32], scale: f32, actions: &[ActionOf<T>]) -> Vec<Vec<f32>>
where
    T::State: AsMut<[f32]>,
    T::Obs: AsRef<[f32]>,
{
    let n = actions.len();
    let batch = Batch {
        task: T::from_params(params).unwrap(),
        autoreset: Autoreset::SameStep,
        max_episode_steps: 7,
    };
    let roll = |step_chunk: StepChunk<T>| {
        let mut state = vec![T::State::ZERO; n];
        for (i, row) in state.iter_mut().enumerate() {
            let words = philox(3, i as u64, 0, 7);
            for (number, word) in row.as_mut().iter_mut().zip(words) {
                *number = uniform(word, -scale, scale);
            }
        }
        let mut owned = environments(n);
        let mut obs = vec![T::Obs::ZERO; n];
        let mut seen = Vec::new();
        for _ in 0..20 {
            let [terminated, truncated] = &mut owned.flags;
            let mut part = Part {
                batch: &batch,
                first: 0,
                state: State {
                    state: &mut state,
                    elapsed: &mut owned.elapsed,
                    episode: &mut owned.episode,
                    seed: &owned.seed,
                    ended: &mut owned.ended,
                    episode_return: &mut owned.episode_return,
                    columns: None,
                },
                actions,
                outputs: Outputs {
                    obs: &mut obs,
                    rewards: &mut owned.rewards,
                    terminated,
                    truncated,
                    final_obs: None,
                    final_return: None,
                    final_length: None,
                },
            };
            // SAFETY: only sets that the processor has are listed.
            unsafe { step_chunk(&mut part) };
            seen.extend(obs.iter().flat_map(|row| row.as_ref().to_vec()));
            seen.extend_from_slice(&owned.rewards);
        }
        seen
    };
    instruction_sets::<T>(false).into_iter().map(roll).collect()
}

#[test]
fn every_task_gives_the_same_bits_in_every_instruction_set() {
    let pushes: Vec<i64> = (0..77).map(|i| i % 3).collect();
    let torques: Vec<f32> = (0..77).map(|i| i as f32 * 0.1 - 3.0).collect();
    let pendulum = [8.0, 2.0, 0.05, 15.0, 3.0, 3.1, 1.0];
    let car = [-1.2, 0.6, 0.07, 0.5, 0.0, 0.001, 0.0025, -0.6, -0.4];
    let engine = [-1.0, 1.0, -1.2, 0.6, 0.07, 0.45, 0.0, 0.0015, -0.6, -0.4];
    let acrobot = [0.2, 1.0, 1.0, 1.0, 0.5, 0.5, 1.0, 12.5, 28.3, -0.1, 0.1];
    for results in [
        states_by_set::<Pendulum>(&pendulum, 50.0, &torques),
        states_by_set::<MountainCar>(&car, 1.0, &pushes),
        states_by_set::<MountainCarContinuous>(&engine, 1.0, &torques),
        states_by_set::<Acrobot>(&acrobot, 8.0, &pushes),
    ] {
        assert!(results.iter().all(|result| *result == results[0]));
    }
}

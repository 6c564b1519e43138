"""The wrappers on both faces and in every autoreset mode: against Gymnasium's where it has one,
and against loops over what the bare environment gives."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from env_cases import MODES
from fake_device import run_on_fake_device
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as theirs

from rlox_gpu import RolloutCollector, make_vec
from rlox_gpu.envs import wrappers as ours
from rlox_gpu.envs.tensor import TensorVectorEnv
from rlox_gpu.policies import DiscretePolicy

N, LIMIT, STEPS = 5, 9, 60
SAME_STEP, NEXT_STEP = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP


def on_arrays(mode=SAME_STEP, env_id="CartPole-v1", num_envs=N, **arguments):
    arguments = {"max_episode_steps": LIMIT, **arguments}
    return make_vec(env_id, num_envs, autoreset_mode=mode, **arguments)


def on_tensors(mode=SAME_STEP, env_id="CartPole-v1", num_envs=N, **arguments):
    arguments = {"max_episode_steps": LIMIT, **arguments}
    return TensorVectorEnv(env_id, num_envs, device="cpu", autoreset_mode=mode, **arguments)


@pytest.fixture(params=[on_arrays, on_tensors], ids=["numpy", "tensor"])
def face(request):
    return request.param


def array(x):
    return x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def drive(env, steps=STEPS, seed=0):
    """Reset and step; gives for each step what came, as arrays, and which episodes ended."""
    rng = np.random.default_rng(7)
    tensors = getattr(env.unwrapped, "device", None) is not None
    disabled = env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    obs, _ = env.reset(seed=seed)
    yield array(obs).copy(), None, None, None, {}
    for _ in range(steps):
        if isinstance(env.single_action_space, gym.spaces.Box):
            actions = rng.uniform(-1, 1, (env.num_envs, 1)).astype(np.float32)
        else:
            # Environment 0 is pushed one way and falls before the limit.
            actions = rng.integers(0, 2, env.num_envs)
            actions[0] = 1
        obs, rewards, terminated, truncated, infos = env.step(
            torch.from_numpy(actions) if tensors else actions
        )
        result = [array(x).copy() for x in (obs, rewards, terminated, truncated)]
        ended = result[2] | result[3]
        if "final_obs" in infos:
            final = infos["final_obs"]
            infos["final_obs"] = (
                array(final).copy() if len(ended) and not is_ragged(final) else final
            )
        yield *result, infos
        if disabled and ended.any():
            obs, _ = env.reset(options={"reset_mask": ended})
            yield array(obs).copy(), None, None, ended, {}


def is_ragged(final):
    return isinstance(final, np.ndarray) and final.dtype == object


# Observations.


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_observations_are_normalised_as_by_gymnasium(face, env_id):
    mine = drive(ours.NormalizeObservation(face(NEXT_STEP, env_id)))
    other = drive(theirs.NormalizeObservation(on_arrays(NEXT_STEP, env_id)))
    for a, b in zip(mine, other, strict=True):
        assert a[0].dtype == np.float32
        # Gymnasium's statistics are in float32.
        np.testing.assert_allclose(a[0], b[0], rtol=2e-3, atol=2e-3)


class Counted:
    """Gymnasium's formula over everything that was counted, in float64."""

    def __init__(self):
        self.rows = []

    def moments(self):
        rows = np.concatenate(self.rows).astype(np.float64)
        count = len(rows) + 1e-4
        mean = rows.sum(0) / count
        second = (np.square(rows).sum(0) + 1e-4) / count
        return mean, second - mean**2

    def normalize(self, x):
        mean, var = self.moments()
        return (x - mean) / np.sqrt(var + 1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_every_observation_is_counted_once_and_normalised(face, mode):
    env = ours.NormalizeObservation(face(mode))
    counted = Counted()
    num_ended = 0
    for a, b in zip(drive(env), drive(face(mode)), strict=True):
        obs, rewards, terminated, truncated, infos = b
        if rewards is None:
            begun = slice(None) if truncated is None else truncated
            counted.rows.append(obs[begun])
        else:
            counted.rows.append(obs)
            ended = terminated | truncated
            num_ended += ended.sum()
        if "final_obs" in infos:
            counted.rows.append(infos["final_obs"][ended])
            want = counted.normalize(infos["final_obs"])
            np.testing.assert_allclose(a[4]["final_obs"][ended], want[ended], atol=1e-4)
            assert not a[4]["final_obs"][~ended].any()
        np.testing.assert_allclose(a[0], counted.normalize(obs), atol=1e-4)
    assert num_ended > 10
    mean, var = counted.moments()
    np.testing.assert_allclose(array(env.obs_rms.mean()), mean, atol=1e-9)
    np.testing.assert_allclose(array(env.obs_rms.var()), var, atol=1e-9)


def test_resting_environments_are_not_counted():
    env = ours.NormalizeObservation(on_tensors("Disabled", max_episode_steps=1))
    env.reset(seed=0)
    env.step(torch.zeros(N, dtype=torch.int64))
    before = env.obs_rms.count()
    env.step(torch.zeros(N, dtype=torch.int64))
    assert env.obs_rms.count() == before == 2 * N


def test_frozen_statistics_stay(face):
    for env, statistics in (
        (ours.NormalizeObservation(face()), "obs_rms"),
        (ours.NormalizeReward(face()), "return_rms"),
    ):
        list(drive(env))
        before = array(getattr(env, statistics).state).copy()
        assert env.update_running_mean
        env.update_running_mean = False
        list(drive(env))
        np.testing.assert_array_equal(array(getattr(env, statistics).state), before)


def test_integer_observations_become_float32():
    env = SyncVectorEnv([lambda: gym.make("FrozenLake-v1")] * 2, autoreset_mode=NEXT_STEP)
    boxes = theirs.TransformObservation(
        env,
        lambda obs: np.stack([obs, obs], -1),
        gym.spaces.Box(0, 48, (2, 2), np.int64),
        gym.spaces.Box(0, 48, (2,), np.int64),
    )
    obs, _ = ours.NormalizeObservation(boxes).reset(seed=0)
    assert obs.dtype == np.float32
    np.testing.assert_allclose(obs, 0, atol=0.05)


class Stacked:
    """Gymnasium's environments, each with a stack of its own."""

    @staticmethod
    def make(mode, padding):
        def one():
            env = gym.make("CartPole-v1", max_episode_steps=LIMIT)
            return gym.wrappers.FrameStackObservation(env, 3, padding_type=padding)

        return SyncVectorEnv([one] * N, autoreset_mode=mode)


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize("mode", MODES)
def test_stacks_are_gymnasiums(mode, padding):
    plain = SyncVectorEnv(
        [lambda: gym.make("CartPole-v1", max_episode_steps=LIMIT)] * N, autoreset_mode=mode
    )
    mine = ours.FrameStackObservation(plain, 3, padding_type=padding)
    other = Stacked.make(mode, padding)
    assert mine.single_observation_space == other.single_observation_space
    assert mine.observation_space == other.observation_space
    num_final = 0
    for a, b in zip(drive(mine), drive(other), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert a[0].dtype == np.float32
        if "final_obs" in b[4]:
            for i in np.flatnonzero(b[4]["_final_obs"]):
                num_final += 1
                np.testing.assert_array_equal(a[4]["final_obs"][i], b[4]["final_obs"][i])
    assert num_final > 10 or mode is not SAME_STEP


@pytest.mark.parametrize("mode", MODES)
def test_both_faces_give_the_same(mode):
    def wrapped(env):
        return ours.NormalizeReward(ours.NormalizeObservation(ours.FrameStack(env, 2)))

    runs = [drive(wrapped(make(mode))) for make in (on_arrays, on_tensors)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a[0], b[0], atol=1e-5)
        if a[1] is not None:
            np.testing.assert_allclose(a[1], b[1], rtol=1e-5)
            assert b[0].dtype == b[1].dtype == np.float32
        if "final_obs" in a[4]:
            np.testing.assert_allclose(a[4]["final_obs"], b[4]["final_obs"], atol=1e-5)


def test_a_stack_is_the_callers_own(face):
    env = ours.FrameStack(face(), 2)
    first, _ = env.reset(seed=0)
    kept = array(first).copy()
    first[:] = 99
    actions = np.zeros(N, np.int64)
    obs = env.step(actions if face is on_arrays else torch.from_numpy(actions))[0]
    np.testing.assert_array_equal(array(obs)[:, 0], kept[:, 1])


# Rewards.


def test_rewards_are_scaled_as_by_gymnasium(face):
    arguments = {"env_id": "Pendulum-v1", "max_episode_steps": 200}
    mine = drive(ours.NormalizeReward(face(NEXT_STEP, **arguments), gamma=0.9))
    other = drive(theirs.NormalizeReward(on_arrays(NEXT_STEP, **arguments), gamma=0.9))
    for a, b in zip(mine, other, strict=True):
        if a[1] is not None:
            np.testing.assert_allclose(a[1], b[1], rtol=1e-4)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("mode", MODES)
def test_returns_begin_anew_after_every_end(face, mode, env_id):
    env = ours.NormalizeReward(face(mode, env_id), gamma=0.8)
    returns, idle, counted = np.zeros(N), np.zeros(N, bool), Counted()
    for a, b in zip(drive(env), drive(face(mode, env_id)), strict=True):
        if b[1] is None:
            if b[3] is not None:
                returns[b[3]], idle[b[3]] = 0, False
            continue
        rewards, ended = b[1], b[2] | b[3]
        for i in range(N):
            returns[i] = 0 if idle[i] else 0.8 * returns[i] + rewards[i]
        counted.rows.append(returns[~idle, None].copy())
        _, var = counted.moments()
        np.testing.assert_allclose(a[1], rewards / np.sqrt(var + 1e-8), rtol=1e-5)
        assert a[1].dtype == np.float32
        returns[ended] = 0
        idle = ended & (mode is not SAME_STEP)
    np.testing.assert_allclose(array(env.return_rms.var()), var, rtol=1e-9)


@pytest.mark.parametrize("bounds", [(-3.0, -1.0), (None, -2.0), (-2.0, None)])
def test_rewards_are_clipped_as_by_gymnasium(face, bounds):
    mine = drive(ours.ClipReward(face(env_id="Pendulum-v1"), *bounds))
    other = drive(theirs.ClipReward(on_arrays(env_id="Pendulum-v1"), *bounds))
    for a, b in zip(mine, other, strict=True):
        if a[1] is not None:
            np.testing.assert_array_equal(a[1], b[1].astype(np.float32))


# Episodes.


@pytest.mark.parametrize("mode", MODES)
def test_statistics_are_the_environments_own(face, mode):
    env = ours.RecordEpisodeStatistics(face(mode), buffer_length=7)
    returns, lengths = [], []
    for a, b in zip(drive(env), drive(on_arrays(mode)), strict=True):
        if a[1] is None:
            continue
        ended = b[2] | b[3]
        if face is on_tensors or ended.any():
            np.testing.assert_array_equal(array(a[4]["_episode"]), ended)
        if ended.any():
            mine, other = a[4]["episode"], b[4]["episode"]
            for name in ("r", "l"):
                np.testing.assert_array_equal(array(mine[name]), other[name])
            assert (array(mine["t"]) > 0).tolist() == ended.tolist()
            assert [array(mine[name]).dtype for name in "rlt"] == [float, np.int64, float]
            # Episodes that end together are in the order of their environments.
            returns += other["r"][ended].tolist()
            lengths += other["l"][ended].tolist()
    assert env.episode_count == len(lengths) > 7
    assert list(env.return_queue) == returns[-7:]
    assert list(env.length_queue) == lengths[-7:]
    assert len(env.time_queue) == 7


def test_statistics_are_gymnasiums(face):
    env = ours.RecordEpisodeStatistics(face(NEXT_STEP), buffer_length=7)
    other = theirs.RecordEpisodeStatistics(
        on_arrays(NEXT_STEP, episode_statistics=False), buffer_length=7
    )
    for a, b in zip(drive(env), drive(other), strict=True):
        if "episode" in b[4]:
            for name in ("r", "l"):
                mine = array(a[4]["episode"][name])
                np.testing.assert_array_equal(mine, b[4]["episode"][name])
                assert mine.dtype == b[4]["episode"][name].dtype
    assert env.episode_count == other.episode_count > 7
    assert env.return_queue == other.return_queue
    assert env.length_queue == other.length_queue


@pytest.mark.parametrize("length", [1, 3, 100])
def test_queues_hold_the_last_episodes(face, length):
    env = ours.RecordEpisodeStatistics(face(max_episode_steps=2), buffer_length=length)
    expected = []
    for *_, infos in drive(env, 9):
        if infos:
            expected += [2] * int(array(infos["_episode"]).sum())
            assert list(env.length_queue) == expected[-length:]
    assert len(expected) == 4 * N


def test_another_key_leaves_the_environments_own_entry(face):
    env = ours.RecordEpisodeStatistics(face(max_episode_steps=1), stats_key="mine")
    *_, last = drive(env, 1)
    assert array(last[4]["mine"]["l"]).tolist() == array(last[4]["episode"]["l"]).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_a_time_limit_is_the_environments_own(face, mode):
    limited = ours.TimeLimit(face(mode, max_episode_steps=-1), LIMIT)
    for a, b in zip(drive(limited), drive(face(mode)), strict=True):
        for x, y in zip(a[:4], b[:4], strict=True):
            np.testing.assert_array_equal(x, y)
        if "episode" in b[4]:
            np.testing.assert_array_equal(array(a[4]["episode"]["l"]), array(b[4]["episode"]["l"]))


def test_a_time_limit_lowers_those_of_each_environment(face):
    env = ours.TimeLimit(face(max_episode_steps=np.array([2, 3, 4, 5, 6])), 4)
    assert env.unwrapped.max_episode_steps.tolist() == [2, 3, 4, 4, 4]
    lengths = [array(s[4]["episode"]["l"]) for s in drive(env, 4) if "episode" in s[4]]
    assert np.max(lengths, 0).tolist() == [2, 3, 4, 4, 4]


def test_a_time_limit_lowers_and_never_raises(face):
    env = ours.TimeLimit(ours.TimeLimit(ours.FrameStack(face(), 2), 3), 5)
    assert env.unwrapped.max_episode_steps == 3
    lengths = [array(s[4]["episode"]["l"]) for s in drive(env, 3) if "episode" in s[4]]
    assert lengths[-1].tolist() == [3] * N


# Both.


def all_of_them(env):
    env = ours.RecordEpisodeStatistics(ours.TimeLimit(env, 8), buffer_length=4)
    env = ours.FrameStack(ours.NormalizeObservation(env), 3)
    return ours.ClipReward(ours.NormalizeReward(env), -1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_saved_state_goes_on_exactly(face, mode):
    env, other = all_of_them(face(mode)), all_of_them(face(mode))
    list(drive(env, 20))
    saved = env.state_dict()
    other.load_state_dict(saved)
    actions = np.ones(N, np.int64)
    actions = actions if face is on_arrays else torch.from_numpy(actions)
    if mode is AutoresetMode.DISABLED:
        for each in (env, other):
            each.reset(options={"reset_mask": np.ones(N, bool)})
    for _ in range(12):
        a, b = env.step(actions), other.step(actions)
        for x, y in zip(a[:4], b[:4], strict=True):
            np.testing.assert_array_equal(array(x), array(y))
        if mode is AutoresetMode.DISABLED and array(a[2] | a[3]).any():
            for each in (env, other):
                each.reset(options={"reset_mask": array(a[2] | a[3]).copy()})
    for name, value in env.state_dict().items():
        if not name.endswith("ring_t"):
            np.testing.assert_array_equal(np.asarray(value), np.asarray(other.state_dict()[name]))
    assert not np.array_equal(
        array(saved["env.statistics"]), array(env.state_dict()["env.statistics"])
    )


@pytest.mark.parametrize("mode", MODES)
def test_states_are_written_in_place(mode):
    """What a captured graph of a step needs to go on from replay to replay."""
    env = all_of_them(on_tensors(mode))
    env.reset(seed=0)
    layers = [env]
    while layers[-1].env is not env.unwrapped:
        layers.append(layers[-1].env)
    before = [{name: id(x) for name, x in layer._state().items()} for layer in layers]
    env.step(torch.ones(N, dtype=torch.int64))
    env.reset(options={"reset_mask": np.array([True] + [False] * (N - 1))})
    assert before == [{name: id(x) for name, x in layer._state().items()} for layer in layers]


def test_a_saved_state_is_checked(face):
    env = ours.NormalizeReward(face())
    saved = env.state_dict()
    with pytest.raises(ValueError, match="state lacks returns"):
        env.load_state_dict({name: x for name, x in saved.items() if name != "returns"})
    with pytest.raises(ValueError, match=r"state\['returns'\] must be .*float64 \(5,\)"):
        env.load_state_dict({**saved, "returns": saved["returns"][:2]})
    with pytest.raises(ValueError, match="state lacks"):
        env.load_state_dict({n: x for n, x in saved.items() if not n.startswith("env.")})


def test_gymnasiums_environments_are_saved_without_their_state():
    envs = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    wrapped = ours.NormalizeReward(envs)
    assert set(wrapped.state_dict()) == {"idle", "statistics", "returns"}
    wrapped.load_state_dict(wrapped.state_dict())


def test_a_wrapped_environment_fills_a_rollout():
    env = ours.NormalizeReward(ours.NormalizeObservation(on_tensors(num_envs=4)))
    twin = ours.NormalizeReward(ours.NormalizeObservation(on_tensors(num_envs=4)))
    collector = RolloutCollector("CartPole-v1", env=env)
    batch = collector.collect(DiscretePolicy(4, 2), 40)
    assert len(collector.episode_lengths) > 10
    assert max(collector.episode_lengths) == LIMIT
    assert collector.episode_rewards == collector.episode_lengths
    obs = twin.reset(seed=0)[0]
    for t in range(40):
        torch.testing.assert_close(batch.obs.view(40, 4, 4)[t], obs)
        obs = twin.step(batch.actions.view(40, 4)[t])[0]


def wrappers_step_without_looking():
    import torch

    from rlox_gpu.envs import wrappers
    from rlox_gpu.envs.tensor import TensorVectorEnv

    for mode in ("NextStep", "SameStep", "Disabled"):
        for padding in ("reset", "zero"):
            env = TensorVectorEnv("CartPole-v1", 8, device="gpu", autoreset_mode=mode)
            env = wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(env, 9), buffer_length=3)
            env = wrappers.FrameStackObservation(env, 3, padding_type=padding)
            env = wrappers.NormalizeReward(wrappers.NormalizeObservation(env))
            env = wrappers.ClipReward(env, -1.0, 1.0)
            obs, _ = env.reset(seed=0)
            actions = torch.zeros(8, dtype=torch.int64, device="gpu")
            out = env.unwrapped.make_buffers()._replace(
                obs=torch.empty(8, 3, 4, device="gpu"), final_obs=torch.zeros(8, 3, 4, device="gpu")
            )
            for _ in range(3):
                obs, rewards, terminated, truncated, infos = env.step(actions)
                env.step_into(actions, out)
            mask = torch.zeros(8, dtype=torch.bool, device="gpu")
            env.reset(options={"reset_mask": mask})
            results = [obs, rewards, terminated, truncated, *infos["episode"].values()]
            if mode == "SameStep":
                results.append(infos["final_obs"])
                assert infos["final_obs"].shape == (8, 3, 4)
            results += [x for x in env.state_dict().values() if isinstance(x, torch.Tensor)]
            assert {tensor.device.type for tensor in results} == {"gpu"}
            env.load_state_dict(env.state_dict())


def a_look_would_be_noticed():
    import pytest
    from torch._subclasses.fake_tensor import DataDependentOutputException

    from rlox_gpu.envs import wrappers
    from rlox_gpu.envs.tensor import TensorVectorEnv

    env = wrappers.RecordEpisodeStatistics(TensorVectorEnv("CartPole-v1", 8, device="gpu"))
    with pytest.raises(DataDependentOutputException):
        _ = env.episode_count


@pytest.mark.parametrize("body", [wrappers_step_without_looking, a_look_would_be_noticed])
def test_on_a_device_without_data(body):
    run_on_fake_device(body)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_on_cuda_as_on_the_cpu_without_waiting(mode):
    def wrapped(device):
        return all_of_them(TensorVectorEnv("CartPole-v1", 64, device=device, autoreset_mode=mode))

    envs = {device: wrapped(device) for device in ("cpu", "cuda")}
    for device, env in envs.items():
        env.reset(seed=0)
        env.step(torch.ones(64, dtype=torch.int64, device=device))  # compiles
    actions = torch.randint(0, 2, (30, 64))
    on_cuda = actions.to("cuda")
    for t in range(30):
        cpu = envs["cpu"].step(actions[t])
        torch.cuda.set_sync_debug_mode("error")
        try:
            cuda = envs["cuda"].step(on_cuda[t])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for x, y in zip(cpu[:4], cuda[:4], strict=True):
            torch.testing.assert_close(y.cpu(), x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cuda[4]["episode"]["l"].cpu(), cpu[4]["episode"]["l"])
    queues = [env.env.env.env.env.length_queue for env in envs.values()]
    assert queues[0] == queues[1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda env: ours.NormalizeObservation(gym.make("CartPole-v1")), TypeError, "env"),
        (lambda env: ours.NormalizeObservation(env, 0.0), ValueError, "epsilon"),
        (lambda env: ours.NormalizeReward(env, gamma=1.5), ValueError, "gamma"),
        (lambda env: ours.NormalizeReward(env, gamma="a"), TypeError, "gamma"),
        (lambda env: ours.NormalizeReward(env, epsilon=-1.0), ValueError, "epsilon"),
        (lambda env: ours.ClipReward(env), ValueError, "at least one"),
        (lambda env: ours.ClipReward(env, 2, 1), ValueError, "min_reward"),
        (lambda env: ours.ClipReward(env, "low"), TypeError, "min_reward"),
        (lambda env: ours.ClipReward(env, None, float("nan")), ValueError, "max_reward"),
        (lambda env: ours.FrameStack(env, 0), ValueError, "stack_size"),
        (lambda env: ours.FrameStack(env, 2.0), TypeError, "stack_size"),
        (lambda env: ours.FrameStack(env, 2, padding_type="edge"), ValueError, "padding_type"),
        (lambda env: ours.RecordEpisodeStatistics(env, 0), ValueError, "buffer_length"),
        (lambda env: ours.RecordEpisodeStatistics(env, 9, 3), TypeError, "stats_key"),
        (lambda env: ours.TimeLimit(env, 0), ValueError, "max_episode_steps"),
        (lambda env: ours.TimeLimit(env, None), TypeError, "max_episode_steps"),
        (lambda env: ours.TimeLimit(env, -1), ValueError, "max_episode_steps"),
        (lambda env: ours.TimeLimit(env, 1.5), TypeError, "max_episode_steps"),
        (lambda env: ours.TimeLimit(gym.make_vec("Acrobot-v1", 1), 5), TypeError, "native"),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make(on_arrays())


def test_environments_are_checked():
    discrete = gym.make_vec("FrozenLake-v1", 1)
    for wrapper in (ours.NormalizeObservation, lambda env: ours.FrameStack(env, 2)):
        with pytest.raises(ValueError, match="Box"):
            wrapper(discrete)
    silent = on_arrays()
    silent.metadata = {}
    with pytest.raises(ValueError, match="autoreset_mode"):
        ours.ClipReward(silent, 0)
    tensors = on_tensors()
    tensors.device = None
    with pytest.raises(TypeError, match="NumPy arrays"):
        ours.ClipReward(tensors, 0).reset()


def test_a_mask_of_gymnasiums_environments_is_left_alone():
    env = ours.NormalizeObservation(gym.make_vec("Acrobot-v1", 2, vectorization_mode="sync"))
    env.reset(seed=0)
    options = {"reset_mask": np.array([True, False])}
    env.reset(options=options)
    assert list(options) == ["reset_mask"]

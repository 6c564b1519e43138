import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from rlox_gpu import PPO, make_vec, record_video
from rlox_gpu.envs import wrappers
from rlox_gpu.envs.tensor import TensorVectorEnv

pytest.importorskip("pygame")
Image = pytest.importorskip("PIL.Image")


def right(obs):
    return (
        torch.ones(len(obs), dtype=torch.int64)
        if isinstance(obs, torch.Tensor)
        else np.ones(len(obs), np.int64)
    )


def frames_of(path, milliseconds):
    """Each moment's picture; Pillow stores those that do not differ as one that stays longer."""
    with Image.open(path) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            moments, rest = divmod(image.info["duration"], milliseconds)
            assert rest == 0
            frames += [np.asarray(image.convert("RGB"))] * moments
        return frames


def states_drawn(mode, seed):
    """What a video of two episodes under ``right`` shows."""
    env = make_vec("CartPole-v1", 2, autoreset_mode=mode, render_mode="rgb_array", render_envs=[1])
    env.reset(seed=seed)
    pictures, left = [env.render()[0]], 2
    while left:
        *_, terminated, truncated, _ = env.step(np.ones(2, np.int64))
        pictures.append(env.render()[0])
        ended = terminated | truncated
        left -= int(ended[1])
        if left and ended.any() and mode is AutoresetMode.DISABLED:
            env.reset(options={"reset_mask": ended})
            if ended[1]:
                pictures.append(env.render()[0])
    return pictures


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("tensors", [False, True], ids=["numpy", "tensor"])
def test_a_gif_shows_every_moment(tmp_path, mode, tensors):
    arguments = {"autoreset_mode": mode, "render_mode": "rgb_array", "render_envs": [1]}
    env = (
        TensorVectorEnv("CartPole-v1", 2, device="cpu", **arguments)
        if tensors
        else make_vec("CartPole-v1", 2, **arguments)
    )
    path = record_video(env, right, tmp_path / "cart.gif", num_episodes=2, seed=4)
    frames = frames_of(path, 20)  # 50 pictures per second
    expected = states_drawn(mode, 4)
    assert len(frames) == len(expected)
    for frame, picture in zip(frames, expected, strict=True):
        assert frame.shape == (400, 600, 3)
        assert np.abs(frame.astype(int) - picture).mean() < 1
    assert env.render()[0].shape == (400, 600, 3)  # still open


# The reader that decodes for the test leaves its pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_mp4_has_the_same_pictures(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = record_video("CartPole-v1", right, tmp_path / "cart.mp4", seed=0)
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    frames = [np.frombuffer(frame, np.uint8).reshape(400, 600, 3) for frame in reader]
    assert meta["fps"] == 50
    assert meta["size"] == (600, 400)
    env = make_vec("CartPole-v1", 1, render_mode="rgb_array")
    env.reset(seed=0)
    assert np.abs(frames[0].astype(int) - env.render()[0]).mean() < 3
    ended = False
    steps = 0
    while not ended:
        ended = env.step(np.ones(1, np.int64))[2][0]
        steps += 1
    assert len(frames) == steps + 1
    assert np.abs(frames[-1].astype(int) - env.render()[0]).mean() < 3


@pytest.mark.parametrize(
    "env_id",
    ["Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "tests/Acrobot-v1"],
)
def test_every_task_by_its_id_with_random_actions(tmp_path, env_id):
    path = record_video(env_id, None, tmp_path / "a.gif", max_steps=4, seed=0, fps=10)
    frames = frames_of(path, 100)
    assert len(frames) == 5
    assert any(not np.array_equal(frames[0], frame) for frame in frames[1:])


def test_parameters_make_the_environment(tmp_path):
    path = record_video("CartPole-v1", right, tmp_path / "a.gif", max_episode_steps=3)
    assert len(frames_of(path, 20)) == 4


class Predicts:
    """As SB3's algorithms: actions and the state of a recurrent policy."""

    def predict(self, obs, deterministic=False):
        assert deterministic
        return right(obs), None


@pytest.mark.parametrize("make", [Predicts, lambda: PPO("CartPole-v1", n_envs=2, n_steps=8)])
def test_objects_that_predict_are_policies(tmp_path, make):
    path = record_video("CartPole-v1", make(), tmp_path / "a.gif", max_steps=3)
    assert path.stat().st_size > 0


def test_a_wrapped_environment_is_drawn(tmp_path):
    env = make_vec("CartPole-v1", 1, render_mode="rgb_array")
    env = wrappers.NormalizeObservation(wrappers.FrameStack(env, 2))
    seen = []
    record_video(env, lambda obs: seen.append(obs.shape) or right(obs), tmp_path / "a.gif")
    assert set(seen) == {(1, 2, 4)}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "video.avi"}, ValueError, "mp4 or .gif"),
        ({"policy": 3}, TypeError, "policy"),
        ({"num_episodes": 0}, ValueError, "num_episodes"),
        ({"max_steps": 1.5}, TypeError, "max_steps"),
        ({"fps": 0}, ValueError, "fps"),
        ({"env": gym.make("CartPole-v1")}, TypeError, "vector environment"),
        ({"env": make_vec("CartPole-v1", 1)}, ValueError, "render_mode"),
        ({"env": "NoSuchEnv-v0"}, gym.error.UnregisteredEnv, "NoSuchEnv"),
        (
            {"env": make_vec("CartPole-v1", 1, render_mode="rgb_array"), "gravity": 1.0},
            TypeError,
            "gravity",
        ),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, error, message):
    given = {"env": "CartPole-v1", "policy": right, "path": "a.gif", **arguments}
    with pytest.raises(error, match=message):
        record_video(given.pop("env"), given.pop("policy"), tmp_path / given.pop("path"), **given)


@pytest.mark.parametrize(("module", "suffix"), [("PIL", "gif"), ("imageio_ffmpeg", "mp4")])
def test_without_the_library_the_extra_is_named(module, suffix):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import rlox_gpu\n"
        f"try:\n    rlox_gpu.record_video('CartPole-v1', None, 'a.{suffix}')\n"
        "except ImportError as error:\n    assert 'rlox-gpu[video]' in str(error)\n"
        "else:\n    raise SystemExit('recorded')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

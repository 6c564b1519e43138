"""The replay buffers' kernels as compiled: PTX executed, accesses and races checked, counted."""

import numpy as np
import pytest
import replay_kernel_cases as cases
import torch
from replay_twins import Twins, make_rows, make_steps, to
from simulation import simulated

import rlox_gpu
from rlox_gpu.buffers import _launches

ARCHITECTURES = (80, 90, 100, 120)


@pytest.mark.parametrize(
    ("prioritized", "n_step", "arch"),
    [(False, 1, 90), (False, 3, 90), (True, 1, 90), *((True, 3, arch) for arch in ARCHITECTURES)],
)
def test_draws_and_contents_are_those_of_the_cpu(prioritized, n_step, arch):
    with simulated(arch=arch):
        cases.check_replay_is_that_of_the_cpu("cpu", prioritized, n_step)


@pytest.mark.parametrize(
    ("capacity", "arch"), [(1, 90), (8, 90), (513, 90), *((65, arch) for arch in ARCHITECTURES)]
)
def test_updates_with_duplicate_indices_do_not_race(capacity, arch):
    with simulated(arch=arch):
        cases.check_replay_priorities_of_any_capacity("cpu", capacity)


@pytest.mark.parametrize("arch", [80, 90])
def test_sequences_are_those_of_the_cpu(arch):
    with simulated(arch=arch):
        cases.check_replay_sequences_are_those_of_the_cpu("cpu", None)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float64"])
def test_observations_of_any_dtype(dtype):
    with simulated():
        cases.check_replay_observations_of_any_dtype("cpu", (5,), dtype)


@pytest.mark.parametrize(
    ("num_envs", "capacity", "n_step", "arch"),
    [(1, 1, 1, 90), (1, 17, 3, 90), *((5, 23, 3, arch) for arch in ARCHITECTURES)],
)
def test_observations_stored_once(num_envs, capacity, n_step, arch):
    with simulated(arch=arch):
        cases.check_replay_observations_stored_once("cpu", num_envs, capacity, n_step)


def test_other_observations_stored_once(tmp_path):
    with simulated():
        cases.check_replay_stored_once_whatever_the_bits("cpu")
        cases.check_replay_images_stored_once("cpu")
        cases.check_replay_dict_observations_stored_once("cpu", tmp_path)
        cases.check_replay_stored_once_from_the_start("cpu")


def test_many_rows_stored_once():
    """More rows than the program that settles their frames holds at once."""
    rng = np.random.default_rng(6)
    with simulated():
        twins = Twins("cpu", 2500, 1, 1, num_envs=3, deduplicate=True)
        ends = np.zeros((3, 1), np.float32)
        for count, envs in ((300, None), (2100, 3), (2400, None)):
            twins.extend(make_steps(rng, ends, count, envs))
            twins.check()


def test_bad_priorities_change_nothing():
    with simulated():
        cases.check_replay_bad_priorities("cpu", np.nan)
        cases.check_replay_all_priorities_zero("cpu")


def test_many_environments_and_many_updates():
    """More environments than a program walks, more indices than it holds at once."""
    rng = np.random.default_rng(0)
    with simulated():
        twins = Twins("cpu", 5000, 3, 1, prioritized=True, num_envs=300, n_step=3)
        for count in (300, 600, 4500):
            twins.extend(make_rows(rng, count, 3, 1))
            twins.check()
        twins.update(rng.integers(0, 5000, 2000), rng.random(2000))
        twins.sample(300)


def test_a_long_batch_of_one_environment():
    rng = np.random.default_rng(1)
    with simulated():
        twins = Twins("cpu", 3000, 1, 1, n_step=2)
        for count in (1, 1300, 3000):
            twins.extend(make_rows(rng, count, 1, 1, ends=0.01))
            twins.check()


def test_one_launch_each():
    rng = np.random.default_rng(2)
    buffer_options = {"num_envs": 4, "n_step": 3, "device": "cpu"}
    with simulated() as simulation:
        buffer = rlox_gpu.ReplayBuffer(64, 17, 6, **buffer_options)
        buffer.extend(to(make_rows(rng, 64), "cpu"))
        buffer.sample(32)
        assert [launch.kernel for launch in simulation.launches] == [
            "_push_kernel",
            "_sample_kernel",
        ]
        buffer = rlox_gpu.PrioritizedReplayBuffer(64, 17, 6, **buffer_options)
        buffer.extend(to(make_rows(rng, 64), "cpu"))
        sample = buffer.sample(32)
        buffer.update_priorities(sample["indices"], sample["weights"])
        assert [launch.kernel for launch in simulation.launches[2:]] == [
            "_push_kernel",
            "_update_kernel",
            "_sample_kernel",
            "_update_kernel",
        ]


def test_images_are_moved_once():
    rows = make_rows(np.random.default_rng(3), 8, (84, 84, 4), 6, "uint8")
    moved = 8 * (2 * 84 * 84 * 4 + 6 * 4 + 4 + 2)
    with simulated() as simulation:
        buffer = rlox_gpu.ReplayBuffer(8, (84, 84, 4), 6, obs_dtype="uint8", device="cpu")
        buffer.extend(to(rows, "cpu"))
        buffer.sample(8)
    push, sample = simulation.launches
    for launch in (push, sample):
        assert 32 * launch.global_load_sectors <= 1.05 * moved
        assert 32 * launch.global_store_sectors <= 1.05 * moved
        assert launch.coalescing_efficiency > 0.9


def test_images_are_stored_once():
    rng = np.random.default_rng(7)
    shape, image = (84, 84, 4), 84 * 84 * 4
    ends = np.zeros((2, *shape), np.uint8)
    with simulated() as simulation:
        buffer = rlox_gpu.ReplayBuffer(
            16, shape, 1, obs_dtype="uint8", num_envs=2, deduplicate=True, device="cpu"
        )
        for _ in range(2):
            rows = make_steps(rng, ends, 8, breaks=0.0)
            rows["obs"][4] ^= 1
            buffer.extend(to(rows, "cpu"))
        buffer.sample(8)
    compare, settle, move, push = simulation.launches[4:8]
    sample = simulation.launches[-1]
    assert [launch.kernel for launch in simulation.launches[4:]] == [
        "_compare_kernel",
        "_settle_kernel",
        "_move_kernel",
        "_push_kernel",
        "_sample_kernel",
    ]

    def moved(launch):
        return 32 * launch.global_load_sectors, 32 * launch.global_store_sectors

    def close(found, images):
        """Beside the images, what each of the eight rows' programs looks up."""
        programs = 8 * -(-image // 4096)
        return images * image <= found <= 1.05 * images * image + 320 * programs

    # Each row with the frame before it; nothing but marks is written.
    assert close(moved(compare)[0], 16)
    assert moved(compare)[1] <= 1024
    assert max(moved(settle)) <= 4096
    # What is new: a break, and where each of two environments is now.
    assert all(close(found, 3) for found in moved(move))
    assert all(close(found, 8) for found in moved(push))
    assert all(close(found, 16) for found in moved(sample))
    for launch in (compare, move, push, sample):
        assert launch.coalescing_efficiency > 0.9


def test_a_draw_reads_two_lines_of_each_level():
    """Rows of a single number: little else is read."""
    rng = np.random.default_rng(4)
    options = {"obs_dtype": "float32", "device": "cpu"}
    with simulated() as simulation:
        buffer = rlox_gpu.PrioritizedReplayBuffer(4096, (), (), **options)
        rows = make_rows(rng, 4096, (), 1)
        rows["actions"] = rows["actions"][:, 0]
        buffer.extend(to(rows, "cpu"))
        sample = buffer.sample(256)
        buffer.update_priorities(sample["indices"], sample["weights"])
    draw, update = simulation.launches[-2:]
    # Four levels of lines of two sectors; seven fields of a sector each; per program the root's
    # two lines and the counters.
    programs = 256 // 16
    assert draw.global_load_sectors <= 256 * (4 * 2 + 7) + programs * 16
    # An index, a priority, and what elects the last; three levels of two lines read, two sectors
    # written.
    assert update.global_load_sectors <= 256 * (3 + 3 * 4) + 512
    assert update.global_store_sectors <= 256 * (2 + 3 * 2) + 512


@pytest.mark.filterwarnings("ignore:.*requires_grad")
def test_the_launches_are_ops_that_torch_understands():
    rng = np.random.default_rng(5)
    with simulated():
        buffer = rlox_gpu.PrioritizedReplayBuffer(32, 3, 1, seed=0, device="cpu")
        rows = to(make_rows(rng, 20, 3, 1), "cpu")
        buffer.extend(rows)
        sample = buffer.sample(8)
        state, fields, tree = buffer._state, buffer._fields, buffer._sum_tree
        names = ("obs", "next_obs", "actions", "rewards", "terminated", "truncated")
        pushed = [rows[name] for name in names]
        results = [sample[name] for name in names]
        extra = (None, sample["weights"], sample["indices"])
        slots = torch.zeros(4, 2, dtype=torch.int64)
        update = (tree, buffer._owners, sample["indices"], sample["weights"], 8, 0.6)
        tests = ("test_schema", "test_faketensor")
        for op, arguments in (
            (_launches._push_op, (pushed, 1, True)),
            (_launches._sample_op, (tree, None, None, [], results, *extra, 0, False, 1, 0.9)),
            (_launches._sequences_op, (slots, 1, 0, False)),
            (_launches._update_op, update),
        ):
            torch.library.opcheck(op, (*state, fields, *arguments), test_utils=tests)

        once = rlox_gpu.ReplayBuffer(32, 3, 1, seed=0, deduplicate=True, device="cpu")
        once.extend(rows)
        frames = (once._once._frames(), once._once.breaks)
        arguments = (*once._state, once._fields, *frames, None, [rows["obs"]], [rows["next_obs"]])
        torch.library.opcheck(_launches._frames_op, arguments, test_utils=tests)

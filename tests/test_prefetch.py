"""Samples as tensors, on the CPU and by way of a CUDA device that puts its work off."""

import contextlib
import functools
import types

import numpy as np
import pytest
import torch
from replay_twins import filled

import rlox_gpu
from rlox_gpu.buffers import prefetch as module

CUDA = torch.device("cuda", 0)


class Stream:
    """Work in order, each piece done when something needs it and not before."""

    def __init__(self, device=CUDA):
        self.device, self.work, self.done = device, [], 0

    def run(self, until=None):
        until = len(self.work) if until is None else until
        while self.done < until:
            self.done += 1
            self.work[self.done - 1]()

    def wait_event(self, event):
        stream, place = event.stream, event.place
        self.work.append(lambda: stream.run(place))


class Event:
    stream = place = None

    def record(self, stream):
        self.stream, self.place = stream, len(stream.work)

    def synchronize(self):
        if self.stream is not None:
            self.stream.run(self.place)


class OnDevice(torch.Tensor):
    """The result of a copy."""

    machine = None

    def record_stream(self, stream):
        self.machine.recorded.append((self.data_ptr(), stream))


class Pinned(torch.Tensor):
    """Memory of the host that the device reads when it comes to it."""

    machine = None

    def to(self, device, *, non_blocking):
        assert device == CUDA
        assert non_blocking
        return self.machine.copy(self)


class Machine:
    """The parts of ``torch`` that know a device."""

    def __init__(self):
        self.current = Stream()
        self.pinned, self.recorded, self.copied_on = [], [], []
        self.pending = set()  # the addresses that copies have yet to read
        self.cuda = types.SimpleNamespace(
            Stream=Stream, Event=Event, stream=self.entered, current_stream=lambda _: self.current
        )

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, size, *, device, pin_memory=False, **options):
        if torch.device(device).type == "cuda":
            return types.SimpleNamespace(device=CUDA)
        if not pin_memory:
            return torch.empty(size, device=device, **options)
        self.pinned.append(torch.empty(size, device=device, **options).as_subclass(Pinned))
        return self.pinned[-1]

    @contextlib.contextmanager
    def entered(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def copy(self, memory):
        copy = torch.full(memory.shape, 77, dtype=torch.uint8)
        self.pending.add(memory.data_ptr())
        self.copied_on.append(self.current)

        def work():
            copy.copy_(memory.as_subclass(torch.Tensor))
            self.pending.remove(memory.data_ptr())

        self.current.work.append(work)
        return copy.as_subclass(OnDevice)

    def read(self, sample):
        """Clones of the tensors, there once the current stream has run."""
        clones = {}

        def work():
            clones.update(leaves(sample))

        self.current.work.append(work)
        return clones


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(module, "torch", made)
    monkeypatch.setattr(OnDevice, "machine", made)
    monkeypatch.setattr(Pinned, "machine", made)
    return made


def leaves(sample, name=""):
    """Clones of the tensors of a sample, or its arrays as tensors, by their names."""
    found = {}
    for key, x in sample.items():
        if isinstance(x, dict):
            found |= leaves(x, f"{name}{key}.")
        elif isinstance(x, torch.Tensor):
            found[name + key] = x.detach().as_subclass(torch.Tensor).clone()
        else:
            found[name + key] = torch.from_numpy(x.astype("i8") if x.dtype == "u8" else x)
    return found


def assert_same(found, wanted):
    wanted = leaves(wanted)
    assert list(found) == list(wanted)
    for name, x in wanted.items():
        assert found[name].dtype == x.dtype
        assert torch.equal(found[name], x), name


def distance(achieved, desired):
    return -np.abs(achieved - desired).sum(-1)


GOALS = {"achieved_goal": 2, "desired_goal": 2, "observation": 3}
MIXED = {"obs_dim": {"image": (4, 4), "indices": 3}, "obs_dtype": {"image": "u1", "indices": "f4"}}
CASES = {
    "uniform": (rlox_gpu.ReplayBuffer, {}),
    "odd_sizes": (rlox_gpu.ReplayBuffer, {"obs_dim": (3, 7), "obs_dtype": "float16"}),
    "n_step": (rlox_gpu.ReplayBuffer, {"n_step": 3}),
    "dicts": (rlox_gpu.ReplayBuffer, MIXED),
    "prioritized": (rlox_gpu.PrioritizedReplayBuffer, {}),
    "hindsight": (rlox_gpu.HERBuffer, {"obs_dim": GOALS, "reward_fn": distance}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
def test_a_late_device_gets_the_buffers_samples_in_order(machine, case, prefetch):
    kind, options = CASES[case]
    buffer, twin = filled(kind, **options), filled(kind, **options)
    samples = buffer.batches(16, device="cuda", prefetch=prefetch)
    found = [machine.read(next(samples)) for _ in range(12)]
    machine.current.run()
    for sample in found:
        assert_same(sample, twin.sample(16))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_cpu_gets_the_buffers_samples_in_order(case, prefetch):
    kind, options = CASES[case]
    buffer, twin = filled(kind, **options), filled(kind, **options)
    samples = buffer.batches(16, device="cpu", prefetch=prefetch)
    assert iter(samples) is samples
    for _ in range(5):
        assert_same(leaves(next(samples)), twin.sample(16))


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_memory_is_written_when_its_copy_is_done_and_the_host_waits_for_no_other(machine, prefetch):
    buffer = filled()
    written = []

    def sample(batch_size, out=None):
        if out is not None:
            (memory,) = (x for x in machine.pinned if np.shares_memory(x.numpy(), out["obs"]))
            assert memory.data_ptr() not in machine.pending
            written.append(memory.data_ptr())
        return buffer.sample(batch_size, out=out)

    samples = buffer.batches(16, device="cuda", prefetch=prefetch, sample=sample)
    for _ in range(10):
        next(samples)
        assert len(machine.pending) == prefetch + 1
    memories = [x.data_ptr() for x in machine.pinned]
    assert len(memories) == prefetch + 1
    # The first sample is drawn before its size is known.
    assert written == (memories * 10)[1 : 10 + prefetch]


def test_the_callers_stream_waits_for_the_copy_and_keeps_the_memory(machine):
    buffer, twin = filled(), filled()
    samples = buffer.batches(16, device="cuda", prefetch=1)
    for stream in (machine.current, Stream(), Stream()):
        with machine.entered(stream):
            sample = next(samples)
            found = machine.read(sample)
        pointer, recorded = machine.recorded[-1]
        assert recorded is stream
        assert pointer == min(x.data_ptr() for x in sample.values())
        stream.run()
        assert_same(found, twin.sample(16))
    assert len(machine.recorded) == 3
    (side,) = set(machine.copied_on)
    assert side is not machine.current


def test_tensors_are_aligned_and_lie_in_one_copy(machine):
    sample = next(filled(**MIXED).batches(3, device="cuda"))
    starts = [x.data_ptr() for part in ("obs", "next_obs") for x in sample[part].values()]
    starts += [x.data_ptr() for x in sample.values() if not isinstance(x, dict)]
    assert len(machine.pinned) == len(machine.copied_on) == 3
    assert [(start - min(starts)) % 256 for start in starts] == [0] * 8
    assert max(starts) - min(starts) < machine.pinned[0].numel()


def test_what_is_pushed_shows_after_the_samples_that_are_drawn_already(machine):
    for device, prefetch, late in (("cuda", 0, 0), ("cuda", 1, 1), ("cuda", 3, 3), ("cpu", 3, 0)):
        buffer = rlox_gpu.ReplayBuffer(1, 1, 1)
        samples = buffer.batches(1, device=device, prefetch=prefetch)
        found = []
        for t in range(8):
            buffer.push([t], 0.0, t, False, False)
            sample = next(samples)
            found.append(machine.read(sample) if device == "cuda" else leaves(sample))
        machine.current.run()
        assert [x["rewards"].item() for x in found] == [max(0, t - late) for t in range(8)]


def test_priorities_count_after_the_samples_that_are_drawn_already(machine):
    for device, prefetch, late in (("cuda", 0, 0), ("cuda", 2, 2), ("cpu", 2, 0)):
        buffer = filled(rlox_gpu.PrioritizedReplayBuffer)
        samples = buffer.batches(4, device=device, prefetch=prefetch)
        found = []
        for t in range(8):
            priorities = np.zeros(50)
            priorities[t] = 1.0
            buffer.update_priorities(np.arange(50), priorities)
            sample = next(samples)
            found.append(machine.read(sample) if device == "cuda" else leaves(sample))
        machine.current.run()
        assert [x["indices"].tolist() for x in found] == [[max(0, t - late)] * 4 for t in range(8)]


def test_indices_of_tensors_update_priorities():
    buffer = filled(rlox_gpu.PrioritizedReplayBuffer, alpha=1.0)
    sample = next(buffer.batches(20, device="cpu"))
    assert sample["indices"].dtype is torch.int64
    buffer.update_priorities(sample["indices"], torch.full((20,), 3.0))
    assert buffer.total_weight == 50 + 2 * len(set(sample["indices"].tolist()))


def test_tensors_of_the_cpu_are_the_arrays_and_none_is_used_twice():
    buffer = filled(rlox_gpu.PrioritizedReplayBuffer)
    drawn = []

    def sample(batch_size):
        drawn.append(buffer.sample(batch_size))
        return drawn[-1]

    samples = buffer.batches(16, device="cpu", sample=sample)
    first, second = next(samples), next(samples)
    for key, x in first.items():
        assert np.shares_memory(x.numpy(), drawn[0][key])
        assert not np.shares_memory(x.numpy(), second[key].numpy())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_sequences(machine, device):
    buffer, twin = filled(), filled()
    sample = functools.partial(buffer.sample_sequences, length=3)
    samples = buffer.batches(6, device=device, sample=sample)
    found = [machine.read(next(samples)) for _ in range(5)]
    machine.current.run()
    for sequences in found:
        assert_same(sequences, twin.sample_sequences(6, 3))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_of_a_draw_is_not_the_end(machine, device):
    buffer = rlox_gpu.ReplayBuffer(8, 1, 1)
    samples = buffer.batches(2, device=device, prefetch=2)
    with pytest.raises(ValueError, match="the buffer is empty"):
        next(samples)
    found = []
    for t in range(6):
        buffer.clear()
        with pytest.raises(ValueError, match="the buffer is empty"):
            next(samples)
        buffer.push([t], 0.0, t, False, False)
        found.append(machine.read(next(samples)))
    machine.current.run()
    late = 2 if device == "cuda" else 0
    assert [x["rewards"][0].item() for x in found] == [max(0, t - late) for t in range(6)]


def test_the_default_device_is_that_of_torch():
    buffer = filled()
    assert next(buffer.batches(2))["obs"].device.type == "cpu"
    with torch.device("meta"):
        samples = buffer.batches(2)
    assert next(samples)["obs"].device.type == "meta"


BAD_ARGUMENTS = [
    ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
    ({"batch_size": -1}, ValueError, r"batch_size: expected an integer in .*, got -1"),
    ({"batch_size": 2.0}, TypeError, "batch_size: expected an integer, got float"),
    ({"prefetch": -1}, ValueError, r"prefetch: expected an integer in .*, got -1"),
    ({"prefetch": 1.5}, TypeError, "prefetch: expected an integer, got float"),
    ({"prefetch": True}, TypeError, "prefetch: expected an integer, got bool"),
    ({"device": "nonsense"}, ValueError, "device: expected one that torch can use here, got nons"),
    ({"device": "xpu:7"}, ValueError, "device: expected one that torch can use here, got xpu:7: "),
    ({"device": 2.5}, TypeError, r"device: expected one that torch can use here, got 2\.5"),
    ({"sample": 3}, TypeError, "sample: expected a function, got int"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_named_by_the_call(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        filled().batches(**{"batch_size": 4, **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_named_by_the_call():
    with pytest.raises(
        ValueError, match=r"^device: expected one that torch can use here, got cuda"
    ):
        filled().batches(4, device="cuda")


def test_samples_of_another_size_are_refused(machine):
    sizes = iter([4, 1])
    samples = filled().batches(4, device="cuda", sample=lambda n: filled().sample(next(sizes)))
    with pytest.raises(
        ValueError, match=r"^sample: expected obs of shape \(4, 3\) again, got \(1,"
    ):
        next(samples)


@pytest.mark.gpu
@pytest.mark.unpoisoned
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_real_device_gets_the_buffers_samples_in_order(case, prefetch):
    kind, options = CASES[case]
    buffer, twin = filled(kind, **options), filled(kind, **options)
    samples = buffer.batches(4096, device="cuda", prefetch=prefetch)
    stream, found = torch.cuda.Stream(), []
    next(samples)
    twin.sample(4096)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(12):
            with torch.cuda.stream(stream):
                sample = next(samples)
                # The copies of later samples go on while this stream is busy.
                torch.cuda._sleep(5_000_000)
                found.append(leaves(sample))
            del sample
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    for sample in found:
        assert all(x.is_cuda for x in sample.values())
        assert_same({name: x.cpu() for name, x in sample.items()}, twin.sample(4096))

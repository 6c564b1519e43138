"""Machine information, one thread everywhere, and the fixture that checks and then times."""

import statistics
import time

import machine

machine.one_thread()  # before NumPy, torch or ours is imported

import pytest  # noqa: E402
from harness import LeftOut, device_or_leave_out, need  # noqa: E402

LEFT_OUT = pytest.StashKey()
MACHINE = pytest.StashKey()
WARM_UP_CALLS = 3
SETTLING_CALLS = 1000  # which bring back to the caches what other work has displaced
TAIL_ROUNDS, TAIL_CALLS = 20, 20_000


def pytest_configure(config):
    config.stash[LEFT_OUT] = []
    config.stash[MACHINE] = machine.describe()
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["bench"] = config.stash[MACHINE]


def pytest_benchmark_update_json(config, output_json):
    output_json["left_out"] = config.stash[LEFT_OUT]


@pytest.fixture
def check_then_time(benchmark, request):
    """``check_then_time(job, provider, device, inputs)``: leave out, or check, warm up and time."""

    def run(job, provider, device, *inputs):
        try:
            for module in provider.needs:
                need(module)
            work = provider.build(*inputs, device=device_or_leave_out(device))
        except LeftOut as reason:
            request.config.stash[LEFT_OUT].append(
                {
                    "group": job.group,
                    "job": job.name,
                    "provider": provider.name,
                    "device": device,
                    "reason": str(reason),
                }
            )
            pytest.skip(str(reason))
        work.check()
        described = request.config.stash[MACHINE]
        benchmark.group = job.name
        benchmark.extra_info.update(
            job=job.name,
            group=job.group,
            provider=provider.name,
            ours=provider.ours,
            device=device,
            calls=work.calls,
            items=job.items,
            unit=job.unit,
            nbytes=job.nbytes,
            traffic=job.traffic,
            gpu=described["gpu"].get("name", described["gpu"].get("absent")),
            versions=described["versions"],
            source=described["source"],
        )
        if work.plain is not None:
            benchmark.extra_info["tails"] = [_tail(work.call) for _ in range(TAIL_ROUNDS)]
            benchmark.extra_info["tails_in_turn"] = [
                (_tail(work.call), _tail(work.plain)) for _ in range(TAIL_ROUNDS)
            ]
        _time(benchmark, work)

    return run


def _tail(call):
    """The 99th percentile of the time of single calls, as a multiple of their median."""
    clock = time.perf_counter_ns
    for _ in range(SETTLING_CALLS):
        call()
    durations = []
    for _ in range(TAIL_CALLS):
        start = clock()
        call()
        durations.append(clock() - start)
    cut_points = statistics.quantiles(durations, n=100)
    return cut_points[98] / cut_points[49]


def _time(benchmark, work):
    if work.rounds is not None:
        setup = {} if work.setup is None else {"setup": work.setup}
        benchmark.pedantic(work.call, rounds=work.rounds, iterations=1, **setup)
        return
    for _ in range(WARM_UP_CALLS):
        work.call()
    benchmark(work.call)

"""What the project states about its speed, as data, and whether a benchmark file bears it out.

Ratios are between the fastest rounds of two rows of one run, on one thread of the CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

GAE_1024 = "gae f32 128x1024 time-major"
GAE_8192 = "gae f32 128x8192 time-major"
GAE_SINGLE = "gae f64 32768 single trajectory"
GROUPS = "group advantages f32 4096x16"
GROUPS_SMALL = "group advantages f64 64x8"
VTRACE_1024 = "vtrace f32 128x1024 time-major"
VTRACE_8192 = "vtrace f32 128x8192 time-major"
TD_LAMBDA_1024 = "td_lambda_returns f32 128x1024 time-major"
OUT = "rlox-gpu numpy out="
LOGPROBS = "token_logprobs f32 4x512x50257"
LOGPROBS_PEERS = ("torch log_softmax", "torch row by row")
KL_K1 = "token KL k1 f32 64x2048"
KL_K3 = "token KL k3 f32 64x2048"
FULL_KL = "full_kl f32 512x50257"
FULL_KL_PEERS = ("torch kl_div", "torch row by row")
BACKWARD = "f32 forward and backward"
MOMENTS = "moments f32 4096x64"
NORMALIZE = "normalize f32 4096x64"
CALL = "gae call 16x4 f32"
START = "process start"
PPO = "PPO CartPole 8x32, 20 epochs of 256"
CARTPOLE_PEERS = ("rlox VecEnv", "gymnasium native")
TASK_PEERS = ("gymnasium", "envpool, 1 thread", "gymnax, jitted scan")
TASKS = {
    "CartPole-v1": (*TASK_PEERS, "rlox VecEnv"),
    "Pendulum-v1": TASK_PEERS,
    "MountainCar-v0": TASK_PEERS,
    "MountainCarContinuous-v0": TASK_PEERS,
    "Acrobot-v1": TASK_PEERS,
    "FrozenLake-v1": TASK_PEERS[:2],
}
ROLLOUT_256 = "CartPole random rollout n=256"
ROLLOUT_65536 = "CartPole random rollout n=65536"
PUSH_256 = "replay push_batch 256"
PRIORITIZED = "replay prioritized sample and update 256"
PRIORITIES = "replay priority update 256"
MICROSECOND, MILLISECOND = 1e-6, 1e-3


@dataclass(frozen=True)
class Claim:
    """``measure(results)`` gives the figure, or None where a row for it is missing."""

    text: str
    measure: Callable
    bound: float
    at_least: bool = True
    unit: str = "x"

    def verdict(self, results):
        """``(figure, holds)``; both None without data."""
        figure = self.measure(results)
        if figure is None:
            return None, None
        return figure, figure >= self.bound if self.at_least else figure <= self.bound


def ratio(job, ours, *peers):
    """How many times faster ``ours`` is than the fastest of ``peers``."""

    def measure(results):
        mine = results.find(job, ours)
        others = [row for peer in peers if (row := results.find(job, peer))]
        if mine is None or len(others) < len(peers):
            return None
        return min(row.best for row in others) / mine.best

    return measure


def seconds(job, provider, scale):
    """The time of one row in units of ``scale`` seconds."""

    def measure(results):
        row = results.find(job, provider)
        return None if row is None else row.best / scale

    return measure


def share(job, provider, *others):
    """The time of one row as a multiple of the fastest of ``others``, ``(job, provider)``."""

    def measure(results):
        mine = results.find(job, provider)
        theirs = [row for other in others if (row := results.find(*other))]
        if mine is None or len(theirs) < len(others):
            return None
        return mine.best / min(row.best for row in theirs)

    return measure


def tail(job, provider, of_rounds):
    """The 99th percentile of the time of one call, as a multiple of the median.

    ``of_rounds`` is what is taken of the rounds in which calls were timed: interruptions of the
    machine add to all but the quietest.
    """

    def measure(results):
        row = results.find(job, provider)
        return of_rounds(row.tails) if row and row.tails else None

    return measure


def tail_of_plain(job, provider):
    """``tail`` of the median round, as a multiple of that of a plain copy, both timed in turn."""

    def measure(results):
        row = results.find(job, provider)
        if row is None or not row.tails_in_turn:
            return None
        ours, plain = map(median, zip(*row.tails_in_turn, strict=True))
        return ours / plain

    return measure


CLAIMS = (
    Claim("gae 128x1024 against rlox", ratio(GAE_1024, "rlox-gpu numpy", "rlox"), 5),
    Claim("gae 128x1024 against a NumPy loop", ratio(GAE_1024, "rlox-gpu numpy", "numpy loop"), 12),
    Claim("gae 128x8192 against a NumPy loop", ratio(GAE_8192, "rlox-gpu numpy", "numpy loop"), 3),
    Claim("gae single trajectory against rlox", ratio(GAE_SINGLE, "rlox-gpu numpy", "rlox"), 3),
    Claim("group advantages 4096x16 against rlox", ratio(GROUPS, "rlox-gpu numpy", "rlox"), 5),
    Claim("group advantages 4096x16 against torch", ratio(GROUPS, "rlox-gpu numpy", "torch"), 15),
    Claim(
        "group advantages 64x8 against rlox",
        ratio(GROUPS_SMALL, "rlox-gpu, rlox's name", "rlox"),
        1,
    ),
    Claim(
        "V-trace 128x1024 in the time of GAE",
        share(VTRACE_1024, OUT, (GAE_1024, OUT)),
        1.3,
        at_least=False,
    ),
    Claim(
        "V-trace 128x8192 in the time of GAE",
        share(VTRACE_8192, OUT, (GAE_8192, OUT)),
        1.3,
        at_least=False,
    ),
    Claim(
        "TD(lambda) 128x1024 in the time of GAE",
        share(TD_LAMBDA_1024, OUT, (GAE_1024, OUT)),
        1.3,
        at_least=False,
    ),
    Claim(
        "token_logprobs 4x512x50257 against torch",
        ratio(LOGPROBS, "rlox-gpu torch", *LOGPROBS_PEERS),
        2,
    ),
    Claim(
        "token KL k3 against the faster of torch and NumPy",
        ratio(KL_K3, "rlox-gpu numpy", "torch", "numpy"),
        2.5,
    ),
    Claim(
        "token KL k3 per sequence against the fastest of torch, NumPy and rlox",
        ratio(f"{KL_K3} per sequence", "rlox-gpu numpy", "torch", "numpy", "rlox"),
        2.5,
    ),
    Claim(
        "token KL k1 against the faster of torch and NumPy",
        ratio(KL_K1, "rlox-gpu numpy", "torch", "numpy"),
        1,
    ),
    Claim(
        "full_kl 512x50257 against torch",
        ratio(FULL_KL, "rlox-gpu torch", *FULL_KL_PEERS),
        1.75,
    ),
    Claim(
        "token_logprobs 4x128x50257 with its gradient against torch",
        ratio("token_logprobs f32 4x128x50257 backward", "rlox-gpu torch", *LOGPROBS_PEERS),
        1.5,
    ),
    *(
        Claim(
            f"{name} with its gradient against torch",
            ratio(f"{name} {BACKWARD}", "rlox-gpu torch", "torch eager"),
            bound,
        )
        for name, bound in (("ppo 2048x6", 2), ("gaussian ppo 2048x6", 1.4), ("grpo 64x4096", 2))
    ),
    Claim(
        "running moments 4096x64 against the faster of NumPy and torch",
        ratio(MOMENTS, "rlox-gpu numpy", "numpy", "torch"),
        2,
    ),
    Claim(
        "normalize 4096x64 against the faster of NumPy and torch",
        ratio(NORMALIZE, "rlox-gpu numpy", "numpy", "torch"),
        1.5,
    ),
    Claim(
        "CartPole n=4096 against the fastest peer",
        ratio("CartPole n=4096", "rlox-gpu make_vec", *CARTPOLE_PEERS),
        10,
    ),
    Claim("CartPole n=1 against rlox", ratio("CartPole n=1", "rlox-gpu VecEnv", "rlox VecEnv"), 1),
    Claim(
        "CartPole n=16 against rlox", ratio("CartPole n=16", "rlox-gpu VecEnv", "rlox VecEnv"), 1
    ),
    *(
        Claim(
            f"{task} n=4096 against the fastest peer",
            ratio(f"{task} n=4096", "rlox-gpu make_vec", *peers),
            5,
        )
        for task, peers in TASKS.items()
    ),
    Claim(
        "random rollout n=256 against single steps",
        ratio(ROLLOUT_256, "rlox-gpu rollout_random", "rlox-gpu make_vec, step by step"),
        1.5,
    ),
    Claim(
        "random rollout n=65536, two threads against one",
        ratio(ROLLOUT_65536, "rlox-gpu rollout_random, 2 threads", "rlox-gpu rollout_random"),
        1.7,
    ),
    Claim("PPO training against SB3", ratio(PPO, "rlox-gpu PPO", "SB3 PPO"), 2),
    Claim(
        "import rlox_gpu, no torch, start of Python included",
        seconds(START, "import rlox_gpu", MILLISECOND),
        150,
        at_least=False,
        unit=" ms",
    ),
    Claim(
        "gae call overhead from NumPy",
        seconds(CALL, "rlox-gpu numpy", MICROSECOND),
        3,
        at_least=False,
        unit=" us",
    ),
    Claim(
        "gae call overhead from torch",
        seconds(CALL, "rlox-gpu torch", MICROSECOND),
        8,
        at_least=False,
        unit=" us",
    ),
    Claim("replay push against rlox", ratio("replay push", "rlox-gpu", "rlox"), 1),
    Claim(
        "replay push_batch 256 against rlox",
        ratio("replay push_batch 256", "rlox-gpu", "rlox"),
        1.3,
    ),
    Claim("replay sample 32 against rlox", ratio("replay sample 32", "rlox-gpu", "rlox"), 1),
    Claim("replay sample 256 against rlox", ratio("replay sample 256", "rlox-gpu", "rlox"), 1.5),
    Claim("replay sample 1024 against rlox", ratio("replay sample 1024", "rlox-gpu", "rlox"), 1.5),
    *(
        Claim(
            f"replay sample {n}: 99th percentile over median, {text} round",
            tail(f"replay sample {n}", "rlox-gpu", of_rounds),
            1.5,
            at_least=False,
        )
        for n in (32, 256, 1024)
        for text, of_rounds in (("quietest", min), ("median", median))
    ),
    *(
        Claim(
            f"replay sample {n}: the same of the median round, over a plain copy's in turn",
            tail_of_plain(f"replay sample {n}", "rlox-gpu"),
            1,
            at_least=False,
        )
        for n in (256, 1024)
    ),
    Claim(
        "prioritized sample and update 256 against rlox", ratio(PRIORITIZED, "rlox-gpu", "rlox"), 2
    ),
    Claim(
        "prioritized sample and update 256 against cpprb",
        ratio(PRIORITIZED, "rlox-gpu", "cpprb"),
        2,
    ),
    Claim(
        "replay sample of 32 images against the faster of rlox and SB3",
        ratio("replay sample 32 images", "rlox-gpu", "rlox", "SB3"),
        1,
    ),
)

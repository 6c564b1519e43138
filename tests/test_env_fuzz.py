"""A short run of the fuzzer; ``tests/fuzz_environments.py`` takes ten million steps per task."""

import numpy as np
import pytest
from env_tasks import CASES
from fuzz_environments import fuzz


@pytest.mark.parametrize("name", CASES)
def test_extremes_give_what_gymnasium_gives(name):
    taken, _, wrong = fuzz(CASES[name], 100_000, np.random.default_rng(1))
    assert taken >= 100_000
    assert wrong == 0

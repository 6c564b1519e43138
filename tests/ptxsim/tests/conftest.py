import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The helper modules beside the tests are imported by name, which importlib mode leaves to us.
sys.path[:0] = [str(HERE.parent), str(HERE)]

import ptxsim  # noqa: E402
from simulated import ARCHS, CHECK  # noqa: E402

# The references of these tests overflow and round NaN on purpose; Triton warns while it compiles.
IGNORED = ("ignore::RuntimeWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            for rule in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(rule))


@pytest.fixture(params=ARCHS)
def sim(request):
    with seeded_driver(arch=request.param, **CHECK) as simulation:
        yield simulation


@pytest.fixture
def sim90():
    with seeded_driver(arch=90) as simulation:
        yield simulation


def seeded_driver(**options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return ptxsim.triton_driver(**options)

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The helper modules beside the tests are imported by name, which importlib mode leaves to us.
sys.path[:0] = [str(HERE.parent), str(HERE)]

# The references of these tests overflow and round NaN on purpose; Triton warns while it compiles.
IGNORED = ("ignore::RuntimeWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            for rule in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(rule))

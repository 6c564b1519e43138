import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
LAST_LINES = {
    "own_policy.py": "evaluation: mean return",
    "own_training_loop.py": "iteration 9: KL",
    "train_cartpole.py": "one episode in Gymnasium's own CartPole",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert LAST_LINES[path.name] in done.stdout.splitlines()[-1]

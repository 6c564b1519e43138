"""What the kernels mean: every case in Triton's interpreter, against the float64 reference."""

import os
import re
import subprocess
import sys
from pathlib import Path


def test_every_case_in_the_interpreter():
    script = Path(__file__).parent / "interpreter_run.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=script.parent.parent,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 70

"""A device that does not exist: proves placement and the absence of host syncs.

Inside :func:`fake_device` tensors carry shapes and dtypes and no data. Reading one on the host
(``.item()``, ``bool(tensor)``, boolean indexing) raises, and so does an op that mixes devices.
The device's name is registered for the whole process, so tests run their body by
:func:`run_on_fake_device`, in a process of its own.
"""

import inspect
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch.utils import backend_registration

DEVICE = "gpu"


@contextmanager
def fake_device():
    """Everything inside runs on fake tensors; yields the mode (``mode.from_tensor`` converts)."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    if torch._C._get_privateuse1_backend_name() != DEVICE:
        backend_registration._setup_privateuseone_for_python_backend(DEVICE)
    with FakeTensorMode() as mode:
        yield mode


def run_on_fake_device(body, timeout=300):
    """Run function ``body()`` under :func:`fake_device` in a fresh process.

    Only the body's own source travels: it imports what it needs.
    """
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no backends written in Python")
    source = textwrap.dedent(inspect.getsource(body))
    program = (
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import fake_device\n{source}\n"
        f"with fake_device.fake_device():\n    {body.__name__}()\n"
        # Torch's threads for the device that has none at times end a regular exit with an abort.
        "import os\nsys.stdout.flush()\nos._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""What a user installs: the wheel built from the sdist, imported away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMPORT_FROM_WHEEL = """
import importlib.resources, sys
import numpy as np
import rlox_gpu, rlox_gpu._rust, rlox_gpu.kernels
assert rlox_gpu.__file__.startswith(sys.argv[1]), rlox_gpu.__file__
assert importlib.resources.files("rlox_gpu.csrc").joinpath("vector_env.cu").is_file()
result = rlox_gpu.gae(np.ones((3, 2)), np.zeros((3, 2)), np.zeros((3, 2), bool), np.zeros(2))
assert result.advantages[-1].tolist() == [1.0, 1.0]
"""


def _run(*command, env=None, cwd=None):
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, cwd=cwd, timeout=900, check=False
    )
    return done.returncode, done.stdout + done.stderr


def _copy_of_the_sources(folder):
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    if not (ROOT / ".git").exists():
        pytest.skip("builds from the files that git tracks, and this is no checkout")
    sources = _copy_of_the_sources(tmp_path_factory.mktemp("sources"))
    code, output = _run(sys.executable, "-m", "build", "-n", "--sdist", ".", cwd=sources)
    assert code == 0, output
    return next((sources / "dist").glob("*.tar.gz"))


@pytest.mark.slow
def test_wheel_from_the_sdist_works_from_any_directory(sdist, tmp_path):
    env = os.environ | {"CARGO_TARGET_DIR": str(ROOT / "rust" / "target")}
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    code, output = _run(
        *pip, "wheel", "--no-build-isolation", "--no-deps", "-w", str(tmp_path), str(sdist), env=env
    )
    assert code == 0, output
    (wheel,) = tmp_path.glob("*.whl")
    assert "cp310-abi3" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("csrc/vector_env.cu", "csrc/cartpole.cuh", "kernels/returns.py", "py.typed"):
        assert f"rlox_gpu/{name}" in names
    site = tmp_path / "site"
    code, output = _run(*pip, "install", "--no-deps", "--target", str(site), str(wheel))
    assert code == 0, output
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = os.environ | {"PYTHONPATH": str(site)}
    code, output = _run(sys.executable, "-c", IMPORT_FROM_WHEEL, str(site), env=env, cwd=elsewhere)
    assert code == 0, output


@pytest.mark.parametrize(
    ("tools", "missing"),
    [(("sh",), "no C++ compiler found; install one"), (("sh", "cc"), "cargo not found; install")],
)
def test_missing_tool_ends_in_one_line_that_says_what_to_install(tools, missing, tmp_path):
    for tool in tools:
        (tmp_path / tool).symlink_to(shutil.which(tool))
    env = os.environ | {"PATH": str(tmp_path)}
    code, output = _run(sys.executable, "setup.py", "build_ext", env=env, cwd=ROOT)
    assert code != 0
    assert f"rlox-gpu: {missing}" in output.splitlines()[-1]

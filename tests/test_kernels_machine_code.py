"""What the assembler says of every Triton kernel that dispatch can pick."""

import pytest
from machine_code import ARCHITECTURES, register_report


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_kernel_spills(arch):
    report = register_report(arch)
    assert len({row["kernel"] for row in report}) == len(report) > 30
    spilling = [row for row in report if row["spill_stores"] or row["spill_loads"]]
    assert not spilling
    # A block of 128 threads has 512 registers each: this bound keeps three blocks resident.
    assert max(row["registers"] for row in report) <= 168

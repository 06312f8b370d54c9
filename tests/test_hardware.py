"""What --accelerator and --precision mean on a machine."""

import platform
import subprocess
import sys

import pytest
import torch

from earteach.errors import EarTeachError
from earteach.hardware import on_cpu, precision_on_cpu

AS_BF16 = "--precision 16 has no benefit on a CPU: running as bf16"
AS_32 = "--precision {} would be many times slower on this CPU: running as 32"


@pytest.mark.parametrize(
    ("accelerator", "gpu", "expected"),
    [
        ("cpu", True, True),
        ("auto", True, False),
        ("auto", False, True),
        ("gpu", True, False),
        ("tpu", False, False),
    ],
)
def test_the_device_that_an_accelerator_stands_for(monkeypatch, accelerator, gpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert on_cpu(accelerator) is expected


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EarTeachError, match=r"^--accelerator gpu: torch finds no GPU here; use"):
        on_cpu("gpu")


@pytest.mark.parametrize(
    ("capability", "asked", "runs", "notes"),
    [
        ("AVX2", "32", "32", []),
        ("AVX2", "bf16", "32", [AS_32.format("bf16")]),
        ("AVX2", "16", "32", [AS_32.format("16")]),
        ("AVX512", "32", "32", []),
        ("AVX512", "bf16", "bf16", []),
        ("AVX512", "16", "bf16", [AS_BF16]),
    ],
)
def test_the_arithmetic_of_a_cpu(monkeypatch, caplog, capability, asked, runs, notes):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    caplog.set_level("INFO", "earteach")
    assert precision_on_cpu(asked) == runs
    assert caplog.messages == notes


CLEARED_PAGES = """
import resource, sys
import numpy as np
from earteach.hardware import reuse_freed_memory

if sys.argv[1] == "reused":
    reuse_freed_memory()
cleared = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**26, np.uint8)
before = cleared()
np.ones(2**26, np.uint8)
print(cleared() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_memory_is_used_again():
    def cleared(how):
        command = [sys.executable, "-c", CLEARED_PAGES, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert cleared("as it is") > 30  # with huge pages, which numpy asks for, 32
    assert cleared("reused") < 5

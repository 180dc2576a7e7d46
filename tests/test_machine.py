"""What is asked of the machine."""

import platform
import subprocess
import sys

import pytest
import torch

from zhuyi import machine

FAULTS = """
import resource, sys, torch
from zhuyi.machine import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for i in range(20):
        torch.ones(4_000_000 + 1000 * i)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory is told what to keep")
def test_freed_memory_is_kept_for_the_next_tensors() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    # 20 tensors of 16 MB are 78,000 pages of 4 KiB.
    assert faults("kept") < 1000 < faults("not kept")


HELD = """
import torch
from zhuyi.machine import give_back_freed_memory, keep_freed_memory

def held():
    return int(open("/proc/self/statm").read().split()[1])

keep_freed_memory()
pieces = [torch.ones(250_000) for _ in range(400)]  # 400 MB
del pieces[::2]
del pieces[:-1]  # the last one holds the others' place
before = held()
give_back_freed_memory()
print(before - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory is told what to keep")
def test_what_nobody_uses_is_given_back_when_asked_for() -> None:
    pages = int(subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout)
    assert pages > 90_000  # of 4 KiB; 400 MB are 97,656


def test_translation_precision_is_int8_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    for int8, bfloat16, expected in ((True, True, "int8"), (False, True, "bfloat16"), (False, False, "float32")):
        monkeypatch.setattr(machine, "has_int8_instructions", lambda has=int8: has)
        monkeypatch.setattr(machine, "has_bfloat16_instructions", lambda has=bfloat16: has)
        assert machine.choose_translation_precision(device) == expected

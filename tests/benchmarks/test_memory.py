"""How the benchmarks of memory measure, and what they say of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_what_the_work_holds(module: Callable[[str], Any]) -> None:
    attention = module("attention")
    torch.ones(300 * 2**18).sum()  # an earlier peak, which must not count
    found = attention.megabytes_of(lambda length: torch.ones(length, 1000).sum(), 50_000)
    assert found == pytest.approx(200, abs=10)


def test_the_plain_formula_stops_in_time(module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    attention = module("attention")

    def measured(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=str(int(command[-1]) ** 2 * 5e-5))

    monkeypatch.setattr(attention.subprocess, "run", measured)
    lengths = (1024, 4096, 8192, 16_384)
    assert list(attention.memory_by_length("plain formula", lengths)) == [1024, 4096, 8192]  # the next: 13,422 MB
    assert list(attention.memory_by_length("attend", lengths)) == list(lengths)


def test_tables_of_memory(module: Callable[[str], Any]) -> None:
    text = module("attention").memory_table(
        {"attend": {1000: 20.0, 2000: 40.0}, "plain formula": {1000: 128.0}}, (1000, 2000)
    )
    rows = [line.split() for line in text.splitlines()[-2:]]
    assert rows == [["1,000", "20", "(20)", "128", "(128)"], ["2,000", "40", "(20)", "-"]]
    growing = [(float(second), 100.0 + second) for second in range(1, 101)]
    text = module("memory").table({"lines": 7, "seconds_and_megabytes": growing})
    assert text.splitlines()[3].split() == ["1", "106", "101", "110"]
    assert "the last tenth to the second: +80 MB" in text


def test_lines_are_of_many_lengths_and_the_same_each_time(module: Callable[[str], Any]) -> None:
    memory = module("memory")
    found = list(memory.lines(2000))
    assert found == list(memory.lines(2000))
    assert len(found) == 2000
    assert found.count("……") == 20
    assert {len(line) for line in found} == {*range(2, 42), 1501}


def test_attention_by_the_kernels_is_measured_on_both_sides_of_its_limit(
    module: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = module("attention")
    limit = bench.attention.PLAIN_PATH_MAX_LOGITS
    monkeypatch.setattr(bench.kernels, "library_to_train", lambda x: "there")
    monkeypatch.setattr(bench, "measure", lambda shape, dtype, training: (1.0, shape[2] / 128))
    bench.learning_table(((8, 4, 256, 64), (4, 8, 512, 64)))
    rows = [line.split()[4:] for line in capsys.readouterr().out.splitlines()[3:]]
    assert rows == [
        ["bfloat16", "4.00", "1.00", "2.00", "plain"],
        ["float32", "4.00", "1.00", "2.00", "plain"],
        ["bfloat16", "16.00", "1.00", "4.00", "plain"],
        ["float32", "16.00", "1.00", "4.00", "fused"],
    ]
    monkeypatch.undo()
    assert all(milliseconds > 0 for milliseconds in bench.measure((1, 2, 7, 8), torch.float32, training=True))
    assert limit == bench.attention.PLAIN_PATH_MAX_LOGITS
    monkeypatch.setattr(bench.kernels, "library_to_train", lambda x: None)
    bench.learning_table(bench.LEARNING_SHAPES)
    assert "no kernels here" in capsys.readouterr().out


@pytest.mark.slow
def test_attention_measures_speed_and_memory(tmp_path: Path, run_script: Callable[..., str]) -> None:
    printed = run_script("attention.py")
    found = json.loads((tmp_path / "attention_memory.json").read_text(encoding="utf-8"))
    assert found.keys() == {"attend", "attend, causal", "plain formula", "whole model"}
    assert found["plain formula"]["512"] > 2 * found["attend"]["512"]
    assert "fused / plain" in printed
    assert (tmp_path / "attention_memory.png").stat().st_size > 10_000


@pytest.mark.slow
def test_memory_of_translating_counts_lines(tmp_path: Path, run_script: Callable[..., str]) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    if sys.platform == "win32":
        pytest.skip("needs ps")
    assert "3,000 lines in, as many out" in run_script("memory.py", "--precision", "float32")
    assert (tmp_path / "memory.png").stat().st_size > 5000

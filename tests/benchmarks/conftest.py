"""The benchmarks' own modules, and their scripts in processes of their own."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A module of the benchmarks, found as their scripts find it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., str]:
    """Run a script of the benchmarks that writes to `tmp_path`; what it printed."""

    def run(name: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", BENCHMARKS / name, "--quick", "--out", tmp_path, *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

"""The benchmark of GMAN, as far as it says what it measures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_groups_have_the_fewest_logits(module: Callable[[str], Any]) -> None:
    groups_of = module("forecasting").groups_of
    assert groups_of("all pairs", 1000) == 0
    for sensors in (207, 1000, 4000):
        logits = {groups: sensors * sensors / groups + groups * groups for groups in range(1, sensors)}
        best = min(logits, key=logits.__getitem__)
        assert logits[groups_of("grouped", sensors)] <= 1.01 * logits[best]


def test_a_refused_point_says_so(module: Callable[[str], Any]) -> None:
    point = {"sensors": 4000, "kind": "all pairs", "groups": 0}
    text = module("forecasting").table([{**point, "refused": "out of memory"}, {**point, "megabytes": 7, "seconds": 2}])
    assert text.splitlines()[1:] == [
        "   4,000  all pairs         out of memory", "   4,000  all pairs                7     2.000"
    ]  # fmt: skip


@pytest.mark.slow
def test_it_runs(run_script: Callable[..., str], tmp_path: Path) -> None:
    printed = run_script("forecasting.py")
    assert printed.count("all pairs") == printed.count("grouped") == 2
    found = json.loads((tmp_path / "forecasting.json").read_text())
    assert all(each["seconds"] > 0 for each in found)

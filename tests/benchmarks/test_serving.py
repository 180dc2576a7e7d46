"""What the benchmark of the server counts, and that it runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import random_run


def answers(module: Callable[[str], Any], *found: tuple[str, float, int]) -> list[Any]:
    make = module("contest.http_clients").Answer
    bodies = [{"translations": [{"text": text, "score": score}]} for text, score, _ in found]
    return [make(0, status, 0.1, 1.0 + i, bodies[i], "3") for i, (_, _, status) in enumerate(found)]


def test_only_the_command_lines_answers_count_as_equal(module: Callable[[str], Any]) -> None:
    serving = module("serving")
    expected = [{"text": "wanted", "score": -1.0}]
    clients = [
        answers(module, ("wanted", -1.0, 200), ("nearly", -1.00001, 200)),
        answers(module, ("other", -1.2, 200), ("", 0.0, 429)),
    ]
    found = serving.summary(clients, expected)
    assert (found["texts"], found["same"], found["near"], found["other"], found["refused"]) == (3, 1, 1, 1, 1)
    good = serving.summary([answers(module, ("wanted", -1.0, 200))], expected)
    fault = {"one": good, "many": found, "too_many": {**good, "statuses": [429, 500]}}
    assert len(serving.wrong(fault)) == 3
    assert serving.wrong({"one": good, "many": good, "too_many": {**good, "statuses": [429]}}) == []


@pytest.mark.slow
def test_it_runs(run_script: Callable[..., str], tmp_path: Path) -> None:
    printed = run_script("serving.py", "--run", random_run(tmp_path / "run").path)
    found = json.loads((tmp_path / "serving.json").read_text(encoding="utf-8"))
    assert found["many"]["other"] == found["one"]["other"] == 0 and found["many"]["texts"] > 0
    assert "clients to one" in printed and (tmp_path / "serving.txt").read_text(encoding="utf-8") in printed

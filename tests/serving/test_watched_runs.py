"""What a page is told of the runs that are watched."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from tests.serving.watched import append_raw, as_line, evaluated, new_run
from tests.tiny import number_pairs, tiny_config, train_tiny, write_pairs

from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder
from zhuyi.serving.watched_runs import Watch, write_watch_page


def known(news: dict[str, Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """What a page knows that was told this."""
    kinds = ("metrics", "samples")
    return {
        run["name"]: {kind: (run[kind]["generation"], run[kind]["count"]) for kind in kinds} for run in news["runs"]
    }


def steps(run: dict[str, Any], kind: str = "metrics") -> list[int]:
    return [row["step"] for row in run[kind]["rows"]]


def test_a_page_is_told_what_it_lacks(tmp_path: Path) -> None:
    folder, watch = new_run(tmp_path / "run"), Watch([tmp_path / "run"])
    first = watch.news({})
    assert first["runs"][0]["name"] == "run" and steps(first["runs"][0]) == []
    evaluated(folder, 10)
    evaluated(folder, 20)
    second = watch.news(known(first))
    assert steps(second["runs"][0]) == steps(second["runs"][0], "samples") == [10, 20]
    evaluated(folder, 30)
    (third,) = watch.news(known(second))["runs"]
    assert steps(third) == [30] and third["metrics"]["first"] == 2 and third["metrics"]["count"] == 3
    assert steps(watch.news({})["runs"][0]) == [10, 20, 30]  # another page
    folder.cut_history(20)
    evaluated(folder, 25)
    (fourth,) = watch.news(known(second))["runs"]
    assert steps(fourth) == [10, 20, 25] and fourth["metrics"]["first"] == 0


def test_numbers_and_texts_are_all_that_is_told(tmp_path: Path) -> None:
    folder, watch = new_run(tmp_path / "run"), Watch([tmp_path / "run"])
    append_raw(
        folder.metrics_path, '{"step": 1, "bleu": NaN, "chrf": Infinity, "text": "x", "flag": true, "mae": null}\n'
    )
    append_raw(folder.metrics_path, '{"bleu": 1}\n{"step": "2"}\n')
    append_raw(
        folder.samples_path, as_line({"step": 1, "samples": [{"source": 3, "more": 4}, 5], "cross_attention": 6})
    )
    append_raw(folder.samples_path, as_line({"step": 2, "samples": 7}))
    news = watch.news({})
    (run,) = news["runs"]
    assert run["metrics"]["rows"] == [{"step": 1, "bleu": None, "chrf": None, "mae": None}]
    assert run["samples"]["rows"] == [
        {"step": 1, "samples": [{"source": "3", "text": "", "reference": ""}]},
        {"step": 2, "samples": []},
    ]
    json.dumps(news, allow_nan=False)
    assert steps(watch.news(known(news))["runs"][0]) == []  # lines that were passed over are not told again


def test_how_far_a_run_has_come(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.tsv", number_pairs(60))
    path = tmp_path / "run"
    train_tiny(tiny_config(pairs, max_steps=8, eval_every_steps=4, max_epochs=400), path)
    (run,) = Watch([path]).news({})["runs"]
    assert (run["task"], run["model"], run["monitor"]) == ("translation", "transformer", "bleu")
    assert run["finished"] and run["done"] == 1 and run["changed"] > 0
    assert run["best"] in (4, 8) and run["minutes"] == RunFolder(path).read_checkpoint(8).progress["minutes"]
    folder = RunFolder(path)
    values = json.loads(folder.config_path.read_text())
    progress = json.loads((folder.checkpoints_path / "8" / "progress.json").read_text())
    for train, wanted in (
        ({"max_steps": 32}, (False, 0.25)),
        ({"max_steps": 32, "max_epochs": max(1, progress["epoch"]) * 2}, (False, 0.5)),
        ({"max_steps": 32, "patience": 1}, (True, 0.25)),
    ):
        values["train"] |= {"max_epochs": 0, "patience": 0} | train
        folder.config_path.write_text(json.dumps(values))
        progress["evaluations"] = [[4, 2.0, 1.0], [8, 1.0, 1.0]]
        (folder.checkpoints_path / "8" / "progress.json").write_text(json.dumps(progress))
        (run,) = Watch([path]).news({})["runs"]
        assert (run["finished"], run["best"]) == (wanted[0], 4)
        assert run["done"] == pytest.approx(wanted[1]) or (train.get("max_epochs", 0) and run["done"] >= 0.25)
    folder.append_metrics({"step": 16, "minutes": 3.0})  # the newest checkpoint is behind
    (run,) = Watch([path]).news({})["runs"]
    assert run["done"] == 0.5 and run["minutes"] == 3.0


@pytest.mark.parametrize("damage", ["missing", "no JSON", "of another version"])
def test_a_run_that_cannot_be_read_is_watched_all_the_same(tmp_path: Path, damage: str) -> None:
    folder, watch = new_run(tmp_path / "run"), Watch([tmp_path / "run"])
    evaluated(folder, 10)
    assert watch.news({})["runs"][0]["done"] == 0.1
    (folder.checkpoints_path / "10").mkdir(parents=True)  # without a progress.json, as one that is being removed
    assert watch.news({})["runs"][0]["done"] == 0.1
    if damage == "missing":
        folder.config_path.unlink()
    else:
        folder.config_path.write_text("{" if damage == "no JSON" else '{"task": "x", "model": {}, "train": {}}')
    (run,) = watch.news({})["runs"]
    assert run["task"] == "" and run["done"] == 0 and not run["finished"] and steps(run) == [10]


def test_a_folder_of_runs_is_all_of_them(tmp_path: Path) -> None:
    watch = Watch([tmp_path])
    assert [run["name"] for run in watch.news({})["runs"]] == [tmp_path.name]  # what is to become a run
    for name in ("b", "a"):
        new_run(tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert [run["name"] for run in watch.news({})["runs"]] == ["a", "b"]
    (tmp_path / "a" / "config.json").unlink()
    assert [run["name"] for run in watch.news({})["runs"]] == ["b"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "run", tmp_path / "two" / "run", tmp_path / "other"]
    for path in paths:
        new_run(path)
    assert [run["name"] for run in Watch([*paths, paths[0]]).news({})["runs"]] == ["one/run", "two/run", "other"]


def test_whatever_a_training_writes_is_news(tmp_path: Path) -> None:
    folder, watch = new_run(tmp_path / "run"), Watch([tmp_path / "run"])
    evaluated(folder, 10)
    folder.checkpoints_path.mkdir()
    for newest in (folder.metrics_path, folder.samples_path, folder.checkpoints_path):
        for path in (folder.metrics_path, folder.samples_path, folder.checkpoints_path):
            os.utime(path, (2000.0, 2000.0) if path == newest else (1000.0, 1000.0))
        assert watch.news({})["runs"][0]["changed"] == 2000.0


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing: no such folder; give the folder of a run"):
        Watch([tmp_path, tmp_path / "nothing"])


def test_no_page_is_written_of_no_run(tmp_path: Path) -> None:
    new_run(tmp_path / "work" / "runs" / "mine")  # further down than is looked
    with pytest.raises(InputError, match=r"work: no run here, nor right below; give the folder of a run"):
        write_watch_page(Watch([tmp_path / "work"]), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    write_watch_page(Watch([tmp_path / "work", tmp_path / "work" / "runs"]), tmp_path / "page.html")


def test_the_exported_page_holds_what_there_is(tmp_path: Path) -> None:
    evaluated(new_run(tmp_path / "run"), 10, text="</script><script>")
    write_watch_page(Watch([tmp_path / "run"]), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["runs"][0]["samples"]["rows"][0]["samples"][0]["text"] == "</script><script>"
    assert data["runs"][0]["metrics"]["rows"][0]["bleu"] == 6 and not math.isnan(data["now"])
    assert str(tmp_path) not in page

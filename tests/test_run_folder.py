"""A run on disk: written whole or not at all, and what is broken is named in one line."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.killing import Killed, kill_everywhere
from tests.tiny import random_run, tiny_config
from torch import Tensor, nn

import zhuyi
from zhuyi import run_folder
from zhuyi.atomic import replacing
from zhuyi.errors import InputError
from zhuyi.run_folder import Checkpoint, RunFolder, find_run, named_weights, set_weights


def weights(value: float) -> dict[str, Tensor]:
    return {"a": torch.full((3, 5), value), "b": torch.full((7,), -value)}


def checkpoint(step: int, **progress: Any) -> Checkpoint:
    return Checkpoint(weights(step), {"a.exp_avg": torch.full((3, 5), 0.5 * step)}, {"step": step, **progress})


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_file_is_old_or_new_whenever_its_writer_dies(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("new")

    def look(through: bool) -> None:
        assert path.read_text() == "new" if through else path.read_text() in ("old", "new")

    assert kill_everywhere(tmp_path, write, look) >= 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not yours")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / ".config.json.unfinished").symlink_to(outside)
    folder.config_path.symlink_to(outside)
    folder.write_config(tiny_config("pairs.tsv"))
    assert folder.read_config() == tiny_config("pairs.tsv") and not folder.config_path.is_symlink()
    folder.metrics_path.symlink_to(outside)
    with pytest.raises(InputError, match=r"metrics.jsonl is a link, and may lead out of the run's folder"):
        folder.append_metrics({"step": 1})
    assert outside.read_text() == "not yours"


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "checkpoints/5", "cache/train.arrow", "nonfinite"])
def test_a_folder_with_a_link_in_it_is_not_trained_in(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    folder = RunFolder(tmp_path / "run")
    link = folder.path / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "outside")
    for resume in (False, True):
        with pytest.raises(InputError, match=rf"{link} is a link, and may lead out of the run's folder; put what"):
            folder.check_trainable(resume=resume)
    link.unlink()
    link.mkdir()
    folder.check_trainable(resume=False)
    (tmp_path / "by another name").symlink_to(folder.path)  # the folder itself is the user's own word
    RunFolder(tmp_path / "by another name").check_trainable(resume=False)


def test_a_folder_that_holds_a_run_is_gone_on_with_or_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check_trainable(resume=False)
    folder.write_config(tiny_config("pairs.tsv"))
    folder.check_trainable(resume=True)
    with pytest.raises(InputError, match=r"run holds a run already; go on with `zhuyi train --resume --out .*run` or"):
        folder.check_trainable(resume=False)


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as unfinished:
        unfinished.write_text("ne")
        raise KeyError
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


def test_config_and_weights_are_old_or_new(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    old, new = tiny_config("old.tsv"), tiny_config("new.tsv", max_steps=99)
    folder.write_config(old)
    folder.write_weights(weights(1.0))
    assert kill_everywhere(
        tmp_path,
        lambda: folder.write_config(new),
        lambda through: _is(folder.read_config() == new, folder.read_config() == old, through),
    )
    assert kill_everywhere(
        tmp_path,
        lambda: folder.write_weights(weights(2.0)),
        lambda through: _is(
            same(folder.read_weights(), weights(2.0)), same(folder.read_weights(), weights(1.0)), through
        ),
    )


def _is(new: bool, old: bool, through: bool) -> None:
    assert new if through else (new or old)


def test_half_a_file_never_takes_the_place_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_weights(weights(1.0))
    folder.write_checkpoint(checkpoint(5))

    def half(tensors: dict[str, Tensor], path: Path) -> None:
        Path(path).write_bytes(b"\x80" * 17)
        raise Killed

    monkeypatch.setattr("zhuyi.run_folder.save_file", half)
    with pytest.raises(Killed):
        folder.write_weights(weights(2.0))
    with pytest.raises(Killed):
        folder.write_checkpoint(checkpoint(10))
    assert same(folder.read_weights(), weights(1.0))
    assert folder.checkpoint_steps() == [5]


def test_a_checkpoint_is_complete_or_invisible(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_checkpoint(checkpoint(5, epoch=1))

    def look(through: bool) -> None:
        assert folder.checkpoint_steps() == [5, 10] if through else folder.checkpoint_steps() in ([5], [5, 10])
        for step in folder.checkpoint_steps():
            found = folder.read_checkpoint(step)
            assert same(found.weights, weights(step))
            assert same(found.optimizer, {"a.exp_avg": torch.full((3, 5), 0.5 * step)})
            assert found.progress == {"step": step, "epoch": step // 5}

    assert kill_everywhere(tmp_path, lambda: folder.write_checkpoint(checkpoint(10, epoch=2)), look) >= 8
    assert sorted(path.name for path in folder.checkpoints_path.iterdir()) == ["10", "5"]


def test_the_progress_of_a_checkpoint_can_be_renewed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_checkpoint(checkpoint(5, evaluations=[]))

    def look(through: bool) -> None:
        found = folder.read_checkpoint(5)
        assert same(found.weights, weights(5))
        assert (
            found.progress["evaluations"] == [[5, 1.5]]
            if through
            else found.progress["evaluations"] in ([], [[5, 1.5]])
        )

    assert kill_everywhere(tmp_path, lambda: folder.write_checkpoint(checkpoint(5, evaluations=[[5, 1.5]])), look)


def test_what_is_thinned_is_whole_thin_or_gone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.thin_checkpoints({1})
    for step in (5, 10, 15, 20):
        folder.write_checkpoint(checkpoint(step))

    def look(through: bool) -> None:
        steps = folder.checkpoint_steps()
        assert steps == [5, 15, 20] if through else {5, 15, 20} <= set(steps) <= {5, 10, 15, 20}
        for step in steps:
            assert same(folder.read_checkpoint_weights(step), weights(step))
        assert same(folder.read_checkpoint(20).optimizer, checkpoint(20).optimizer)

    assert kill_everywhere(tmp_path, lambda: folder.thin_checkpoints({5, 15}), look) >= 5
    left = sorted(
        str(path.relative_to(folder.checkpoints_path)) for path in folder.checkpoints_path.rglob("*.safetensors")
    )
    thin = ["15/model.safetensors", "20/model.safetensors", "20/optimizer.safetensors", "5/model.safetensors"]
    assert left == thin and not list(folder.checkpoints_path.glob("unfinished-*"))
    with pytest.raises(InputError, match=r"15/optimizer.safetensors: no such file"):
        folder.read_checkpoint(15)


def test_steps_are_numbers_not_words(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.checkpoint_steps() == []
    for step in (9, 10, 100):
        folder.write_checkpoint(checkpoint(step))
    (folder.checkpoints_path / "notes").mkdir()
    assert folder.checkpoint_steps() == [9, 10, 100]


def test_weights_may_be_read_by_whoever_may_read_the_config(tmp_path: Path) -> None:
    folder = random_run(tmp_path / "run")
    folder.write_checkpoint(checkpoint(5))
    wanted = stat.S_IMODE(folder.config_path.stat().st_mode)
    files = [folder.weights_path, *(folder.checkpoints_path / "5").iterdir()]
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in files} == {file.name: wanted for file in files}


def test_metrics_are_cut_back_to_a_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() == []
    folder.cut_history(5)
    assert not folder.metrics_path.exists()
    rows = [{"step": step, "valid_loss": 1.0 / step, "note": "好"} for step in (5, 10, 15)]
    for row in rows:
        folder.append_metrics(row)
    with folder.metrics_path.open("a") as file:
        file.write('{"step": 20, "valid_')  # a kill in the middle of a write
    assert folder.read_metrics() == rows

    def look(through: bool) -> None:
        assert folder.read_metrics() == rows[:2] if through else folder.read_metrics() in (rows, rows[:2])

    kill_everywhere(tmp_path, lambda: folder.cut_history(14), look)
    folder.append_metrics(rows[2])  # the half line is gone, or this would be lost with it
    assert folder.read_metrics() == rows
    folder.cut_history(15)
    assert folder.read_metrics() == rows
    folder.cut_history(0)
    assert folder.read_metrics() == []


def test_samples_are_cut_back_with_the_metrics_and_never_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "MOST_SAMPLES", 4)

    def note(folder: RunFolder, *steps: int) -> list[int]:
        for step in steps:
            folder.append_samples({"step": step, "samples": [{"text": "好\u2028"}]})
        assert all(row["samples"] == [{"text": "好\u2028"}] for row in folder.read_samples())
        return [row["step"] for row in folder.read_samples()]

    whole, resumed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "resumed")
    whole.path.mkdir(), resumed.path.mkdir()
    assert note(whole, 5, 10, 15, 20) == [5, 10, 15, 20]
    assert note(whole, 25) == [5, 15, 25]
    assert note(whole, 30, 35) == [5, 25, 35]
    note(resumed, 5, 10, 15, 20, 25)
    with resumed.samples_path.open("ab") as file:
        file.write('{"step": 30, "samples": [{"text": "好'.encode()[:-1])  # a kill in the middle of a character
    resumed.cut_history(20)
    assert note(resumed, 25, 30, 35) == [5, 25, 35]


def one_line(caught: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load_fails(folder: RunFolder) -> str:
    with pytest.raises(InputError) as caught:
        zhuyi.load(folder.path)
    return one_line(caught)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return random_run(tmp_path / "run")


def test_a_shipped_model_mistyped_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhuyi.run_names.shipped_models", lambda: ["en-zh", "zh-en"])
    with pytest.raises(InputError, match=r"zh_en: neither .*; did you mean zh-en\?$"):
        find_run("zh_en")
    with pytest.raises(InputError, match=r"\(en-zh, zh-en\)$"):
        find_run("opus")


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_run(tmp_path / "none")
    assert one_line(caught).startswith(f"{tmp_path / 'none'}: neither a run folder nor a shipped model")
    with pytest.raises(InputError, match=r"en-zh-tw: neither a run folder .*; zh is simplified Chinese: ask for that"):
        find_run("en-zh-tw")
    assert load_fails(RunFolder(tmp_path)).startswith(f"{tmp_path}: no config.json here; give the folder of a run")


def test_weights_that_are_missing(run: RunFolder) -> None:
    run.weights_path.unlink()
    assert load_fails(run) == (
        f"{run.path}: no model.safetensors here yet; train on with `zhuyi train --resume --out {run.path}`"
    )


@pytest.mark.parametrize("kept", [0, 5, 100, -1], ids=["nothing", "5 bytes", "half a header", "all but a byte"])
def test_weights_that_are_cut_short(run: RunFolder, kept: int) -> None:
    os.truncate(run.weights_path, kept if kept >= 0 else run.weights_path.stat().st_size + kept)
    assert load_fails(run).startswith(f"{run.weights_path}: broken or truncated safetensors file (")


def test_weights_of_another_config(run: RunFolder, tmp_path: Path) -> None:
    other = random_run(tmp_path / "wider", d_ff=43)
    run.weights_path.write_bytes(other.weights_path.read_bytes())
    message = load_fails(run)
    assert message.startswith(f"{run.weights_path}: the weight ")
    assert "43" in message and "41" in message and message.endswith("the file belongs to another config")

    deeper = random_run(tmp_path / "deeper", num_encoder_layers=2)
    run.weights_path.write_bytes(deeper.weights_path.read_bytes())
    assert "the weight encoder_layers.1." in load_fails(run) and "unknown to this model" in load_fails(run)

    shallower = random_run(tmp_path / "shallower", num_decoder_layers=1)
    run.weights_path.write_bytes(shallower.weights_path.read_bytes())
    assert "is missing but the config needs" in load_fails(run)


def test_a_config_that_is_broken_or_foreign(run: RunFolder) -> None:
    whole = run.config_path.read_text()
    run.config_path.write_text(whole[:50])
    assert load_fails(run).startswith(f"{run.config_path}: not readable as JSON: ")
    run.config_path.write_text(json.dumps({**json.loads(whole), "modle": {}}))
    assert load_fails(run) == f"{run.config_path}: unknown section 'modle'; did you mean 'model'?"
    run.config_path.write_bytes(b"\xff\xfe")
    assert load_fails(run).startswith(f"{run.config_path}: not readable as JSON: ")


def test_a_tokenizer_that_is_missing_broken_or_does_not_fit(run: RunFolder) -> None:
    path = run.path / "tokenizer.json"
    whole = path.read_text(encoding="utf-8")
    values = json.loads(whole)
    vocab = values["model"]["vocab"]
    del vocab[max(vocab, key=vocab.__getitem__)]
    path.write_text(json.dumps(values))
    assert f"{run.path}: the source tokenizer has {len(vocab)} pieces but the model {len(vocab) + 1};" in load_fails(
        run
    )
    path.write_text(whole[:99], encoding="utf-8")
    assert load_fails(run).startswith(f"{path} is no whole tokenizer file (")
    path.unlink()
    assert load_fails(run).startswith(f"{path} is no whole tokenizer file ([Errno 2] No such file")


def test_setting_weights_changes_nothing_unless_all_fit() -> None:
    module = nn.Linear(3, 5)
    before = {name: weight.clone() for name, weight in named_weights(module).items()}
    with pytest.raises(InputError, match=r"x: the weight bias is \(4,\) but the config needs \(5,\)"):
        set_weights(module, {"weight": torch.zeros(5, 3), "bias": torch.zeros(4)}, Path("x"))
    assert same(named_weights(module), before)
    set_weights(module, {"weight": torch.zeros(5, 3), "bias": torch.ones(5)}, Path("x"))
    assert same(named_weights(module), {"weight": torch.zeros(5, 3), "bias": torch.ones(5)})

"""What a worker checks before its first window, and the lines that it gives."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import number_pairs, random_run

import zhuyi
from zhuyi.engines.work import Job, Worker, file_hashes, one_line
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder

OPTIONS = {"beam": 3, "n_best": 2, "alpha": None, "rule": None, "seed": 1}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = random_run(tmp_path_factory.mktemp("run") / "random")
    hashes = file_hashes(folder.needed_files())
    assert set(hashes) == {"config.json", "model.safetensors", "tokenizer.json"}
    return Job(str(folder.path), hashes, None, OPTIONS, False, threads=torch.get_num_threads())


def test_its_lines_are_those_of_the_translator(job: Job) -> None:
    texts = [source for source, _ in number_pairs(5, seed=3)]
    wanted = zhuyi.load(job.run).translate(texts, beam=3, n_best=2)
    assert Worker(job).translate(texts) == [f"{each.text}\t{each.alternatives[0][0]}" for each in wanted]
    as_json = [json.loads(line) for line in Worker(replace(job, as_json=True)).translate(texts)]
    assert [row["text"] for row in as_json] == [each.text for each in wanted]


def test_it_uses_the_threads_that_it_is_given(job: Job) -> None:
    before = torch.get_num_threads()
    try:
        Worker(replace(job, threads=3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_other_weights_and_another_version_are_refused(job: Job, tmp_path: Path) -> None:
    other = random_run(tmp_path / "other", seed=4).path
    with pytest.raises(InputError, match="its files have changed"):
        Worker(replace(job, run=str(other)))
    with pytest.raises(InputError, match=rf"has zhuyi {zhuyi.__version__}, the command 9\.9\.9"):
        Worker(replace(job, version="9.9.9"))


def test_the_files_of_a_run_without_weights_are_asked_for(job: Job, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json here"):
        RunFolder(tmp_path).needed_files()
    (tmp_path / "config.json").write_bytes((Path(job.run) / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"no model\.safetensors here yet"):
        RunFolder(tmp_path).needed_files()


def test_an_error_is_one_line() -> None:
    assert one_line(RuntimeError("what\n  nobody\nforesaw")) == "RuntimeError: what nobody foresaw"

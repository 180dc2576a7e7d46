"""`zhuyi attention`: what it prints and what it refuses, in this process."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import random_run

from zhuyi.cli import main
from zhuyi.predict import load
from zhuyi.predict.alignment import align
from zhuyi.visualize.head_figures import as_table, head_figures

Said = Callable[..., tuple[int, str, str]]
TEXT = "三五一。"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run")).path


@pytest.fixture(scope="module")
def one_stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(
        tmp_path_factory.mktemp("recurrent"), model="seq2seq", d_model=14, d_embedding=10, d_encoder=9
    ).path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """The status of a command, its standard output and its standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zhuyi", "attention", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_an_alignment_is_printed(run: Path, said: Said) -> None:
    maps = load(run).attention(TEXT, "three five one.")
    expected = align(maps, mutual=True)
    status, out, err = said(run, TEXT, "--target", "three five one.", "--alignment", "--mutual")
    assert (status, out) == (0, f"{expected}\n")
    assert err.splitlines()[0] == "source: 0:三 1:五 2:一 3:。"
    status, out, err = said(
        run, TEXT, "--target", "three five one.", "--alignment", "--tokens", "--layer", "1", "--json"
    )
    found, tokens = json.loads(out), align(maps, layer=1, words=False)
    assert (found["target"], found["pairs"]) == (list(tokens.target), [list(pair) for pair in tokens.pairs])
    assert err == ""


def test_what_the_heads_do_is_printed(run: Path, said: Said) -> None:
    figures = head_figures(load(run).attention(TEXT, "three."))
    assert said(run, TEXT, "--target", "three.", "--heads")[1] == as_table(figures) + "\n"
    status, out, _ = said(run, TEXT, "--target", "three.", "--heads", "--json", "--place", "decoder", "--layer", "2")
    assert status == 0
    assert [(each["place"], each["layer"], each["head"]) for each in json.loads(out)] == [
        ("decoder", 2, 1),
        ("decoder", 2, 2),
    ]


def test_a_recurrent_model_aligns_and_has_a_page(one_stack: Path, tmp_path: Path, said: Said) -> None:
    assert said(one_stack, TEXT, "--target", "three.", "--alignment")[0] == 0
    status, out, err = said(one_stack, TEXT, "--target", "three.", "--out", tmp_path / "map.html")
    assert (status, out) == (0, f"{tmp_path / 'map.html'}\n"), err
    status, _, err = said(one_stack, TEXT, "--target", "three.", "--rollout", "--out", tmp_path / "map.png")
    assert status == 2 and "a rollout is of self-attention" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alignment", "--heads"], "choose one of --alignment, --heads"),
        (["--heads", "--rollout"], "choose one of --heads, --rollout"),
        (["--mutual"], "add --alignment"),
        (["--json"], "--json prints numbers: add --alignment or --heads"),
        (["--alignment", "--out", "map.png"], "--alignment prints its answer; leave --out out"),
        (["--alignment", "--place", "encoder"], "leave --place encoder out"),
        (["--alignment", "--layer", "9"], "there is no layer 9"),
        (["--heads", "--layer", "9"], "there is no such place, layer or head"),
        (["--sensor", "3"], "--sensor does not apply to a run of translation; leave it out"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(
    options: list[str], message: str, run: Path, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = said(run, TEXT, "--target", "three.", *options)
    assert (status, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

"""Couplets from training to the command line: whatever a run writes is a lower line."""

import json
import random
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.tiny import random_run, tiny_values, train_tiny, write_pairs, write_recipe, zhuyi

import zhuyi as package
from zhuyi.cli import main
from zhuyi.config import parse_config, read_recipe
from zhuyi.decoding import Sampling
from zhuyi.errors import InputError
from zhuyi.evaluation import evaluate_pairs
from zhuyi.predict import Translator

ROOT = Path(__file__).parents[1]
CHARACTERS = "".join(chr(0x4E00 + 7 * i) for i in range(120)) + "春风得意马蹄疾路"
UPPER_LINES = ["春风得意马蹄疾", "马马春春，风得风意。", "春 Abc 3 风！", "龘春", "?!", ""]


def couplets(count: int) -> list[tuple[str, str]]:
    """Each character answered by the next one."""
    rng = random.Random(3)
    lines = ["".join(rng.sample(CHARACTERS[::2], rng.randrange(3, 8))) for _ in range(count)]
    return [("".join(line), "".join(CHARACTERS[CHARACTERS.index(each) + 1] for each in line)) for line in lines]


def values(train: Path) -> dict[str, Any]:
    """A recipe for a training of seconds."""
    recipe = tiny_values(train, max_steps=4, eval_every_steps=2)
    recipe["data"] |= {"target": "zh", "test": [str(train)]}
    recipe["data"]["tokenizer"]["vocab_size"] = 400
    recipe["decode"]["constraint"] = "couplet"
    return recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("couplets")
    scores, _ = train_tiny(
        parse_config(values(write_pairs(folder / "pairs.tsv", couplets(70))), "tiny"), folder / "run"
    )
    assert scores["valid_loss"] > 0
    return folder / "run"


@pytest.fixture(scope="module")
def translator(run: Path) -> Translator:
    return package.load(run)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: its status, standard output and standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zhuyi", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        return (int(exit.value.code or 0), *capsys.readouterr())

    return call


def is_lower_line(upper: str, lower: str) -> bool:
    """Chinese by Chinese that is not in the upper line, alike where that is alike; all else the same."""
    if len(lower) != len(upper):
        return False
    for above, below in zip(upper, lower, strict=True):
        if above not in CHARACTERS + "龘":
            if below != above:
                return False
        elif below not in CHARACTERS or below in upper or positions(lower, below) != positions(upper, above):
            return False
    return True


def positions(line: str, character: str) -> list[int]:
    return [i for i, each in enumerate(line) if each == character]


def test_what_a_lower_line_is() -> None:
    assert is_lower_line("春风春，3", "得意得，3")
    for wrong in ("得意得，", "得意得。3", "得得得，3", "得意马，3", "得风得，3", "得意得，4", "得a得，3"):
        assert not is_lower_line("春风春，3", wrong)


def test_lower_lines_by_default_under_every_rule(translator: Translator) -> None:
    for options in (
        {"beam": 1},
        {"beam": 4},
        {"n_best": 3},
        {"rule": Sampling(temperature=3.0, samples=3), "n_best": 3},
    ):
        found = translator.translate(UPPER_LINES, **options)  # type: ignore[arg-type]
        for upper, translation in zip(UPPER_LINES, found, strict=True):
            for lower in (translation.text, *(text for text, _ in translation.alternatives)):
                assert is_lower_line(upper, lower), (upper, lower, options)
        assert len(found[0].alternatives) == options.get("n_best", 1) - 1


def test_a_constraint_for_one_call(translator: Translator) -> None:
    """The run has learned little: it writes the same character again and again."""
    upper = "春风得意马蹄疾路"
    (free,) = translator.translate([upper], constraint="none", beam=1)
    assert len(free.text) != len(upper)
    (equal,) = translator.translate([upper], constraint="same-length", beam=1)
    assert len(equal.text) == len(upper)
    assert not is_lower_line(upper, equal.text)
    (strict,) = translator.translate([upper], same_length=True, beam=1)
    assert is_lower_line(upper, strict.text)
    with pytest.raises(InputError, match="constraint is rhyme; choose one of none, same-length, couplet"):
        translator.translate(["春"], constraint="rhyme")  # type: ignore[arg-type]


def test_same_length_for_a_run_that_has_no_constraint(tmp_path: Path) -> None:
    translator = package.load(random_run(tmp_path / "random").path)
    texts = ["三五。", "九八七六五四三二一", "abc", "😀 3", ""]
    assert [len(each.text) for each in translator.translate(texts, same_length=True)] == [len(text) for text in texts]
    assert [len(each.text) for each in translator.translate(texts)] != [len(text) for text in texts]


def test_the_scores_of_training_and_of_evaluate_keep_the_form(
    run: Path, translator: Translator, tmp_path: Path
) -> None:
    scores = evaluate_pairs(translator, None, output=tmp_path / "lower.txt")
    lower_lines = (tmp_path / "lower.txt").read_text(encoding="utf-8").splitlines()
    assert scores["sentences"] == len(lower_lines) == 70
    assert all(is_lower_line(upper, lower) for (upper, _), lower in zip(couplets(70), lower_lines, strict=True))
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["decode"]["constraint"] == "couplet"


def test_the_command(run: Path) -> None:
    result = zhuyi("translate", run, "春风得意马蹄疾", "--same-length")
    assert (result.returncode, result.stderr) == (0, "")
    assert is_lower_line("春风得意马蹄疾", result.stdout.removesuffix("\n"))


def test_the_command_with_options(run: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    for options in (["--n-best", "3"], ["--sample", "--n-best", "2", "--seed", "4", "--same-length"], ["--beam", "1"]):
        status, out, _ = command("translate", run, "马马春春，风得风意。", "--precision", "float32", *options)
        assert status == 0
        assert all(is_lower_line("马马春春，风得风意。", lower) for lower in out.removesuffix("\n").split("\t"))
    status, out, _ = command("translate", run, "龘春", "--jsonl", "--precision", "float32")
    assert json.loads(out)["flags"] == ["unknown"]
    status, _, err = command("translate", run, "春", "--constraint", "rhyme")
    assert (status, err.count("\n")) == (2, 1)
    assert "choose one of none, same-length, couplet" in err


def test_tokens_that_are_no_characters_are_refused_before_training(tmp_path: Path) -> None:
    recipe = values(write_pairs(tmp_path / "pairs.tsv", couplets(70)))
    recipe["data"]["tokenizer"] = {"kind": "byte-bpe", "vocab_size": 300}
    with pytest.raises(InputError, match='"couplet" counts characters'):
        train_tiny(parse_config(recipe, "tiny"), tmp_path / "run")


def test_the_recipe() -> None:
    config = read_recipe(ROOT / "recipes" / "translation_couplets_transformer-small.toml")
    assert config.decode.constraint == "couplet"
    assert config.data.tokenizer.kind == "character"
    assert config.data.disjoint


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("couplets_example", ROOT / "examples" / "couplets.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_script_scores_the_baseline_and_runs(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = values(write_pairs(tmp_path / "pairs.tsv", couplets(70)))
    recipe["data"]["test"] = [
        str(write_pairs(tmp_path / "test.tsv", [*couplets(20), ("春风", "得意"), ("春风", "马蹄")]))
    ]
    script.main([str(run), "--recipe", str(write_recipe(tmp_path / "r.toml", recipe)), "--examples", "2"])
    said, _ = capsys.readouterr()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    scores = {row[0]: row[1:] for row in cells[2:5]}
    assert "21 upper lines, 22 lower lines" in said
    assert scores["baseline"][:2] == scores[f"{run}, constraint couplet"][:2] == ["100.0 %", "100.0 %"]
    assert float(scores["baseline"][2]) > 99  # of all but one line it has seen the only answer there is
    assert float(scores["baseline"][4]) < float(scores[f"{run}, constraint couplet"][4])
    assert scores[f"{run}, constraint none"][0] != "100.0 %"
    assert [row[0] for row in cells[7:]] == [upper for upper, _ in couplets(2)]


def test_the_script_stops_where_a_length_is_wrong(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="得意马 is not as long as 春风"):
        script.score("a run", {"春": ["得"], "春风": ["得意"]}, ["得", "得意马"], -1.0)
    assert (
        script.score("a run", {"春": ["得"], "春风": ["得意"]}, ["得", "得意马"], -1.0, strict=False).same_length == 50
    )


@pytest.mark.parametrize("line", [*UPPER_LINES, "春风得意马蹄疾路" * 3])
def test_the_script_agrees_on_what_a_lower_line_is(script: ModuleType, translator: Translator, line: str) -> None:
    (found,) = translator.translate([line])
    assert script.is_lower_line(line, found.text)
    for place, character in enumerate(line):
        assert character not in CHARACTERS or not script.is_lower_line(line, found.text[:place] + character)

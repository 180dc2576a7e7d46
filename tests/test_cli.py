"""The command: what it prints where, its exit status, and what it says of wrong input.

Each verb runs once in a process of its own; what only varies its options runs in this one, which is far faster.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import command, number_pairs, random_run, tiny_values, write_pairs, write_recipe, zhuyi

import zhuyi as package
from zhuyi.cli import main

Here = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run") / "random").path


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "broken"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "r.toml", tiny_values(write_pairs(tmp_path / "p.tsv", number_pairs(60))))


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: its status, standard output and standard error."""

    def call(*arguments: str | Path, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zhuyi", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        return int(exit.value.code or 0), out, err

    return call


@pytest.fixture
def printed(ended: Callable[..., tuple[int, str, str]]) -> Here:
    """What a command that succeeds prints."""

    def call(*arguments: str | Path, stdin: str = "") -> str:
        status, out, err = ended(*arguments, stdin=stdin)
        assert status == 0, err
        return out

    return call


@pytest.fixture
def refused(ended: Callable[..., tuple[int, str, str]]) -> Here:
    """The one line that a wrong input gets."""

    def call(*arguments: str | Path, stdin: str = "") -> str:
        status, out, err = ended(*arguments, stdin=stdin)
        assert status == 2, err
        assert out == ""
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        return lines[0]

    return call


# A true process for each verb: results on standard output, and nothing else there


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train(recipe: Path, tmp_path: Path) -> None:
    done = zhuyi("train", recipe, "--out", tmp_path / "run", "--set", "train.max_steps=5", "--seed", "4")
    scores = json.loads(succeeded(done))
    assert {"run", "valid_loss", "bleu", "chrf"} == set(scores) and scores["run"] == str(tmp_path / "run")
    assert "Final weights" in done.stderr and "fits" in done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert (config["train"]["seed"], config["train"]["max_steps"]) == (4, 5)


def test_train_stops_at_a_signal(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command("train", recipe, "--out", out, "--set", "train.max_steps=100000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and not (out / "checkpoints" / "5").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, said = process.communicate()
    assert process.returncode == 130, said
    assert printed == ""
    assert re.search(rf"Stopped at step [\d,]+; go on with: zhuyi train --resume --out {out}\n", said)


def test_translate(run: Path) -> None:
    lines = succeeded(zhuyi("translate", run, "一二。", "", "。。。")).split("\n")
    assert lines == [package.load(run).translate(["一二。"])[0].text, "", "。。。", ""]


def test_evaluate_prints_what_sacrebleu_finds_in_its_file(run: Path, broken: Path, tmp_path: Path) -> None:
    """Into Chinese, whose words sacreBLEU has to be told to cut."""
    config = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    config["data"] |= {"source": "en", "target": "zh"}
    (broken / "config.json").write_text(json.dumps(config), encoding="utf-8")
    pairs = [(english, chinese) for chinese, english in number_pairs(12, seed=6)]
    pairs[:3] = [("？！。，？！", "？！。，？！")] * 3  # copied as they are: all that a random model gets right
    file = write_pairs(tmp_path / "test.tsv", pairs)
    (tmp_path / "references.txt").write_text("".join(f"{target}\n" for _, target in pairs), encoding="utf-8")
    options = ("--pairs", file, "--beam", "1", "--json", "--output", tmp_path / "found.txt")
    scores = json.loads(succeeded(zhuyi("evaluate", broken, *options)))
    assert scores["sentences"] == 12 and scores["beam"] == 1 and scores["tokens_per_second"] > 0
    assert len((tmp_path / "found.txt").read_text(encoding="utf-8").split("\n")) == 12 + 1
    signature = dict(part.split(":") for part in scores["signature"].split("|"))
    assert signature["tok"] == "zh"
    sacrebleu = [sys.executable, "-m", "sacrebleu", tmp_path / "references.txt", "-i", tmp_path / "found.txt"]
    options = ("-tok", signature["tok"], "-m", "bleu", "chrf", "-w", "2", *(["-lc"] * (signature["case"] == "lc")))
    theirs = json.loads(subprocess.run([*sacrebleu, *options], check=True, capture_output=True).stdout)
    assert [scores["bleu"], scores["chrf"]] == [row["score"] for row in theirs]
    assert 0 < scores["bleu"] < 100
    assert scores["signature"] == theirs[0]["signature"]


def test_score(run: Path) -> None:
    pairs = number_pairs(3, seed=2)
    lines = ["\t".join(pairs[0]), "no tab here", "", "\t".join(pairs[1]), "一" * 90 + "\tone.", "\t".join(pairs[2])]
    done = zhuyi("score", run, "--pairs", "-", stdin="\n".join(lines) + "\n")
    found = succeeded(done).split("\n")[:-1]
    assert [bool(line) for line in found] == [True, False, False, True, False, True]
    assert "-:5: longer than the model's 48 tokens; not scored" in done.stderr
    assert "2 left out: missing column (-:2, -:3)" in done.stderr
    for line, wanted in zip([found[0], found[3], found[5]], package.load(run).score(pairs), strict=True):
        assert float(line.split("\t")[0]) == pytest.approx(wanted.log_prob, abs=1e-4)
        assert float(line.split("\t")[1]) == pytest.approx(wanted.perplexity, rel=1e-4)


def test_attention(run: Path, tmp_path: Path) -> None:
    done = zhuyi("attention", run, "一二三。", "--out", tmp_path / "map.png")
    assert succeeded(done) == f"{tmp_path / 'map.png'}\n"
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_export(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "theirs"
    assert succeeded(zhuyi("export", run, "--to", "hf", "--out", out)) == f"{out}\n"
    assert json.loads((out / "config.json").read_text())["model_type"] == "marian"


def test_info(run: Path) -> None:
    assert "transformer" in succeeded(zhuyi("info", run))


def test_doctor() -> None:
    facts = json.loads(succeeded(zhuyi("doctor", "--json")))
    assert {"torch", "cores", "memory_gib", "training_precision"} <= set(facts)


def test_a_wrong_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = zhuyi("translate", tmp_path / "none", "x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}: neither a run folder nor a shipped model")
    assert done.stderr.count("\n") == 1


# Pipes


def test_a_pipe_is_answered_line_by_line(run: Path) -> None:
    """The first line's translation comes before the second line is sent; a reader that leaves is no accident."""
    wanted = package.load(run).translate(["一二。", "", "三。"], beam=1)
    with subprocess.Popen(
        command("translate", run, "--beam", "1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        for text, translation in zip(("一二。", "", "三。"), wanted, strict=True):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == translation.text + "\n"
        process.stdout.close()
        process.stdin.write("一二。\n")
        process.stdin.flush()  # and stays open: the command must not wait for it
        assert process.wait() == 1
        assert process.stderr.read() == ""


def test_utf_8_whatever_the_locale(run: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = zhuyi("translate", run, "--beam", "1", stdin="一二！\n。？\nsix\n", **ascii_only)
    wanted = package.load(run).translate(["一二！", "。？", "six"], beam=1)
    assert succeeded(done).split("\n") == [*(each.text for each in wanted), ""]


# Options


def test_translate_a_file_to_a_file(run: Path, printed: Here, tmp_path: Path) -> None:
    texts = [source for source, _ in number_pairs(9, seed=8)]
    (tmp_path / "in.txt").write_text("\n".join([*texts, "", "x\u2028y"]) + "\n", encoding="utf-8")
    files = ("--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt")
    assert printed("translate", run, *files, "--beam", "1") == ""
    written = (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")
    assert len(written) == 9 + 2 + 1
    assert written[:9] == [each.text for each in package.load(run, "auto").translate(texts, beam=1)]
    assert written[9] == ""


def test_a_broken_input_leaves_the_output_file_alone(run: Path, refused: Here, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("precious")
    refused("translate", run, "--input", tmp_path / "none.txt", "--output", tmp_path / "out.txt")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.txt": "precious"}


def test_what_cannot_be_encoded_is_still_written(run: Path, printed: Here, tmp_path: Path) -> None:
    """An argument that was not UTF-8 comes as unpaired surrogates."""
    assert printed("translate", run, "\udcff!", "一。", "--output", tmp_path / "out.txt") == ""
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")[0] == "?!"


def test_translate_with_a_glossary(run: Path, printed: Here, refused: Here, tmp_path: Path) -> None:
    terms = tmp_path / "terms.tsv"
    terms.write_text("一\tnine six\n", encoding="utf-8")
    assert "nine six" in printed("translate", run, "一二。", "--glossary", terms)
    assert "{x}" in printed("translate", run, "一{x}。", "--placeholders", "--beam", "1")
    assert "{x}" not in printed("translate", run, "一{x}。", "--no-placeholders")
    assert "leave --sample out" in refused("translate", run, "一", "--glossary", terms, "--sample")
    terms.write_text("一\tone\n\ttwo\n", encoding="utf-8")
    assert "terms.tsv, line 2: no source" in refused("translate", run, "一", "--glossary", terms)
    assert "nowhere.tsv" in refused("translate", run, "一", "--glossary", tmp_path / "nowhere.tsv")


def test_translate_jsonl_and_n_best(run: Path, printed: Here) -> None:
    row = json.loads(printed("translate", run, "一二。", "--jsonl", "--n-best", "3"))
    assert {"text", "score", "tokens", "alternatives", "flags"} == set(row)
    assert len(row["alternatives"]) == 2
    plain = printed("translate", run, "一二。", "--n-best", "3")
    assert plain.rstrip("\n").split("\t") == [row["text"], *(each["text"] for each in row["alternatives"])]


def test_samples_repeat_by_their_seed(run: Path, printed: Here) -> None:
    options = ("translate", run, "一二三四五六。", "--sample", "--temperature", "3", "--top-k", "20")
    one, two, three = (printed(*options, "--seed", seed) for seed in ("5", "5", "6"))
    assert one == two != three


def test_evaluate_uses_the_runs_own_pairs_and_other_columns(run: Path, printed: Here, tmp_path: Path) -> None:
    own = json.loads(printed("evaluate", run, "--beam", "1", "--json"))
    swapped = write_pairs(tmp_path / "swapped.tsv", [(b, a) for a, b in number_pairs(60)])
    other = json.loads(printed("evaluate", run, "--pairs", swapped, "--columns", "2,1", "--beam", "1", "--json"))
    assert own["sentences"] == 60
    assert (own["bleu"], own["chrf"]) == (other["bleu"], other["chrf"])
    plain = dict(line.split(maxsplit=1) for line in printed("evaluate", run, "--beam", "1").splitlines())
    assert float(plain["chrf"]) == own["chrf"] and plain["signature"] == own["signature"]


def test_score_jsonl(run: Path, printed: Here) -> None:
    row = json.loads(printed("score", run, "--pairs", "-", "--jsonl", stdin="一。\tone.\n"))
    assert row.keys() == {"log_prob", "perplexity", "tokens"} and row["tokens"] == len("one.") + 1


def test_attention_page_and_positions(run: Path, printed: Here, refused: Here, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    assert printed("attention", run, "一二三。", "--out", page) == f"{page}\n"
    assert "<html" in page.read_text(encoding="utf-8")
    printed("attention", run, "--positions", "--out", tmp_path / "pos.png")
    assert (tmp_path / "pos.png").read_bytes()[:4] == b"\x89PNG"
    assert "layer" in refused("attention", run, "一二三。", "--layer", "9", "--out", tmp_path / "x.png")


def test_train_without_a_recipe_writes_one(
    tmp_path: Path, ended: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zhuyi.training.start.train", lambda config, folder, resume: {"interrupted": False, "bleu": 1})
    pairs = write_pairs(tmp_path / "p.tsv", number_pairs(300))
    options = ["--source", "zh", "--target", "en", "--train", pairs, "--set", "train.max_steps=2"]
    status, out, err = ended("train", "--task", "translation", *options, "--out", tmp_path / "run")
    assert status == 0, err
    assert json.loads(out) == {"run": str(tmp_path / "run"), "bleu": 1}
    assert "300 of 300 pairs kept" in err and f"The recipe is in {tmp_path / 'run' / 'recipe.toml'}" in err
    assert (tmp_path / "run" / "recipe.toml").exists()


def test_info_without_a_run_lists_the_shipped_models(printed: Here) -> None:
    from zhuyi.run_names import shipped_models

    lines = printed("info").splitlines()
    assert [line.split()[0] for line in lines] == (shipped_models() or ["no"])


def test_doctor_in_words(printed: Here) -> None:
    assert re.search(r"^cores +\d+$", printed("doctor"), re.MULTILINE)


def test_help_and_version(printed: Here) -> None:
    text = printed("--help")
    for verb in ("train", "evaluate", "translate", "score", "attention", "info", "doctor"):
        assert re.search(rf"^\W*{verb} ", text, re.MULTILINE)
    assert printed("--version") == package.__version__ + "\n"
    assert printed() == text and "Usage: zhuyi " in text
    assert "..." not in text.partition("Commands:")[2]  # what each verb does is said whole


# Wrong input: one line, status 2


def test_wrong_runs(run: Path, broken: Path, refused: Here, tmp_path: Path) -> None:
    assert "neither a run folder nor a shipped model" in refused("translate", "nowhere", "x")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused("translate", tmp_path / "empty", "x")
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    for verb in (["translate", broken, "x"], ["info", broken], ["evaluate", broken], ["score", broken, "--pairs", "-"]):
        assert "truncated" in refused(*verb)
    (broken / "model.safetensors").unlink()
    assert "model.safetensors" in refused("translate", broken, "x")


def test_a_tokenizer_that_does_not_fit(broken: Path, refused: Here) -> None:
    from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer

    train_tokenizer(["abc def"], TokenizerConfig(kind="character", vocab_size=20)).save(broken / "tokenizer.json")
    assert "pieces" in refused("translate", broken, "x")
    (broken / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refused("translate", broken, "x")


def test_wrong_config(broken: Path, refused: Here) -> None:
    values = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    values["model"]["d_modle"] = values["model"].pop("d_model")
    (broken / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert "did you mean 'd_model'" in refused("translate", broken, "x")
    (broken / "config.json").write_text("{")
    assert "JSON" in refused("translate", broken, "x")


def test_wrong_training_input(recipe: Path, refused: Here, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    assert "nothing.toml" in refused("train", tmp_path / "nothing.toml", *out)
    assert "did you mean 'max_steps'" in refused("train", recipe, *out, "--set", "train.max_stpes=3")
    assert "train.max_steps" in refused("train", recipe, *out, "--set", "train.max_steps=many")
    assert "SECTION.KEY=VALUE" in refused("train", recipe, *out, "--set", "train.max_steps")
    assert "gone.tsv" in refused("train", recipe, *out, "--train", tmp_path / "gone.tsv")
    (tmp_path / "empty.tsv").write_text("")
    assert "empty.tsv" in refused("train", recipe, *out, "--train", tmp_path / "empty.tsv")
    assert "languages" in refused("train", "--train", tmp_path / "p.tsv", *out)
    assert "nothing to train on" in refused("train", *out)
    assert "run: no run here to go on with (no config.json)" in refused("train", "--resume", *out)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_used_folder(run: Path, recipe: Path, refused: Here) -> None:
    line = refused("train", recipe, "--out", run)
    assert line == (
        f"error: {run} holds a run already; go on with `zhuyi train --resume --out {run}` or choose another --out"
    )


def test_wrong_usage(run: Path, refused: Here, tmp_path: Path) -> None:
    assert "--columns" in refused("evaluate", run, "--columns", "one,two", "--pairs", "x.tsv")
    assert "--columns" in refused("evaluate", run, "--columns", "²,1", "--pairs", "x.tsv")
    assert "x.tsv" in refused("evaluate", run, "--pairs", tmp_path / "x.tsv")
    (tmp_path / "empty.tsv").write_text("")
    assert "empty.tsv: no pair to score" in refused("evaluate", run, "--pairs", tmp_path / "empty.tsv")
    (tmp_path / "gbk.tsv").write_bytes("你好\t今天\n".encode("gb18030"))
    for verb in ("evaluate", "score"):
        assert "gbk.tsv: line 1 is not UTF-8" in refused(verb, run, "--pairs", tmp_path / "gbk.tsv")
    assert "--beem" in (line := refused("translate", run, "x", "--beem", "3"))
    assert line.endswith("(see `zhuyi translate --help`)")
    assert refused("trainslate", run).endswith("(see `zhuyi --help`)")
    assert "beam must be at least 1" in refused("translate", run, "x", "--beam", "0")
    assert "precision" in refused("translate", run, "x", "--precision", "float8")
    assert "not both" in refused("translate", run, "x", "--input", tmp_path / "y.txt")
    assert "y.txt" in refused("translate", run, "--input", tmp_path / "y.txt")
    assert "there is no folder" in refused("translate", run, "x", "--output", tmp_path / "no" / "z.txt")
    assert "temperature" in refused("translate", run, "x", "--sample", "--temperature", "-1")
    assert "translat" in refused("translat", run, "x")


def test_other_failures_are_one_line_and_status_1(
    run: Path, ended: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("what\nnobody\nforesaw")

    monkeypatch.setattr("zhuyi.predict.load", fail)
    status, out, err = ended("translate", run, "x")
    assert (status, out) == (1, "")
    assert err == "error: RuntimeError: what nobody foresaw (run `zhuyi --debug ...` for where)\n"
    monkeypatch.setattr(sys, "argv", ["zhuyi", "--debug", "translate", str(run), "x"])
    with pytest.raises(RuntimeError):
        main()

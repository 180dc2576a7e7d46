"""The command in processes of its own: what it prints where, its exit status, and what it says of wrong input."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import sacrebleu
from tests.tiny import command, number_pairs, random_run, tiny_values, write_pairs, write_recipe, zhuyi

import zhuyi as package


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run") / "random").path


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "broken"))


def refused(*arguments: str | Path, stdin: str | None = None) -> str:
    """The one line that a wrong input gets."""
    done = zhuyi(*arguments, stdin=stdin)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_train_then_go_on(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.toml", tiny_values(write_pairs(tmp_path / "p.tsv", number_pairs(60))))
    done = zhuyi("train", recipe, "--out", tmp_path / "run", "--set", "train.max_steps=5")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert {"run", "valid_loss", "bleu", "chrf"} <= set(scores)
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert "holds a run" in refused("train", recipe, "--out", tmp_path / "run")
    assert zhuyi("train", "--resume", "--out", tmp_path / "run").returncode == 0


def test_train_without_a_recipe_writes_one(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv", number_pairs(300))
    options = ["--source", "zh", "--target", "en", "--train", pairs, "--set", "train.max_steps=2"]
    done = zhuyi("train", "--task", "translation", *options, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "300" in done.stderr  # it says what it counted
    assert (tmp_path / "run" / "recipe.toml").exists()


def test_translate_arguments(run: Path) -> None:
    done = zhuyi("translate", run, "一二。", "", "。。。")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[1:] == ["", "。。。", ""]
    assert lines[0] == package.load(run).translate(["一二。"])[0].text


def test_translate_a_file_to_a_file(run: Path, tmp_path: Path) -> None:
    texts = [source for source, _ in number_pairs(9, seed=8)]
    (tmp_path / "in.txt").write_text("\n".join([*texts, "", "x\u2028y"]) + "\n", encoding="utf-8")
    done = zhuyi("translate", run, "--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt", "--beam", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    written = (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")
    assert len(written) == 9 + 2 + 1
    assert written[:9] == [t.text for t in package.load(run).translate(texts, beam=1)]
    assert written[9] == ""


def test_translate_jsonl_and_n_best(run: Path) -> None:
    done = zhuyi("translate", run, "一二。", "--jsonl", "--n-best", "3")
    row = json.loads(done.stdout)
    assert {"text", "score", "tokens", "alternatives", "flags"} == set(row)
    assert len(row["alternatives"]) == 2
    plain = zhuyi("translate", run, "一二。", "--n-best", "3").stdout
    assert plain.rstrip("\n").split("\t") == [row["text"], *(each["text"] for each in row["alternatives"])]


def test_a_pipe_is_answered_line_by_line(run: Path) -> None:
    """The first line's translation comes before the second line is sent."""
    with subprocess.Popen(
        command("translate", run), stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdin and process.stdout
        for text in ("一二。", "三。"):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith("\n")
        process.stdin.close()
        assert process.wait() == 0


def test_a_reader_that_leaves_is_no_accident(run: Path) -> None:
    texts = "一二。\n" * 4000
    process = subprocess.Popen(
        command("translate", run, "--beam", "1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout and process.stdin and process.stderr
    process.stdout.close()
    try:
        process.stdin.write(texts)
        process.stdin.close()
    except BrokenPipeError:
        pass
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


def test_utf_8_whatever_the_locale(run: Path, tmp_path: Path) -> None:
    wanted = zhuyi("translate", run, "一二！", "。？").stdout
    done = zhuyi("translate", run, stdin="一二！\n。？\n", LC_ALL="C", PYTHONIOENCODING="", PYTHONUTF8="0")
    assert done.stdout == wanted


def test_evaluate_prints_what_sacrebleu_finds_in_its_file(run: Path, tmp_path: Path) -> None:
    pairs = number_pairs(12, seed=6)
    file = write_pairs(tmp_path / "test.tsv", pairs)
    done = zhuyi("evaluate", run, "--pairs", file, "--beam", "1", "--json", "--output", tmp_path / "found.txt")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    found = (tmp_path / "found.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert scores["sentences"] == len(found) == 12
    assert scores["bleu"] == round(sacrebleu.corpus_bleu(found, [[target for _, target in pairs]]).score, 2)
    assert {"chrf", "signature", "tokens_per_second", "beam"} <= set(scores)


def test_evaluate_uses_the_runs_own_pairs_and_other_columns(run: Path, tmp_path: Path) -> None:
    own = json.loads(zhuyi("evaluate", run, "--beam", "1", "--json").stdout)
    swapped = write_pairs(tmp_path / "swapped.tsv", [(b, a) for a, b in number_pairs(60)])
    other = json.loads(zhuyi("evaluate", run, "--pairs", swapped, "--columns", "2,1", "--beam", "1", "--json").stdout)
    assert own["sentences"] == 60
    assert (own["bleu"], own["chrf"]) == (other["bleu"], other["chrf"])


def test_score_gives_a_line_for_each_line(run: Path) -> None:
    pairs = number_pairs(3, seed=2)
    lines = ["\t".join(pairs[0]), "no tab here", "", "\t".join(pairs[1]), "一" * 90 + "\tone.", "\t".join(pairs[2])]
    done = zhuyi("score", run, "--pairs", "-", stdin="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    found = done.stdout.split("\n")[:-1]
    assert [bool(line) for line in found] == [True, False, False, True, False, True]
    for line, wanted in zip([found[0], found[3], found[5]], package.load(run).score(pairs), strict=True):
        assert float(line.split("\t")[0]) == pytest.approx(wanted.log_prob, abs=1e-4)
        assert float(line.split("\t")[1]) == pytest.approx(wanted.perplexity, rel=1e-4)


def test_attention_draws_png_and_html(run: Path, tmp_path: Path) -> None:
    for name in ("map.png", "map.html"):
        done = zhuyi("attention", run, "一二三。", "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(tmp_path / name)
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    assert zhuyi("attention", run, "--positions", "--out", tmp_path / "pos.png").returncode == 0
    assert "layer" in refused("attention", run, "一二三。", "--layer", "9", "--out", tmp_path / "x.png")


def test_info_and_doctor(run: Path) -> None:
    assert "transformer" in zhuyi("info", run).stdout
    assert zhuyi("info").returncode == 0
    facts = json.loads(zhuyi("doctor", "--json").stdout)
    assert {"torch", "cores", "memory_gib", "training_precision"} <= set(facts)


def test_help_needs_nothing_heavy() -> None:
    done = zhuyi("--help")
    assert done.returncode == 0
    for verb in ("train", "evaluate", "translate", "score", "attention", "info", "doctor"):
        assert verb in done.stdout


def test_wrong_runs(run: Path, broken: Path, tmp_path: Path) -> None:
    assert "neither a run folder nor a shipped model" in refused("translate", "nowhere", "x")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused("translate", tmp_path / "empty", "x")
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "truncated" in refused("translate", broken, "x")
    (broken / "model.safetensors").unlink()
    assert "model.safetensors" in refused("translate", broken, "x")


def test_a_tokenizer_that_does_not_fit(broken: Path, tmp_path: Path) -> None:
    from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer

    train_tokenizer(["abc def"], TokenizerConfig(kind="character", vocab_size=20)).save(broken / "tokenizer.json")
    assert "pieces" in refused("translate", broken, "x")
    (broken / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refused("translate", broken, "x")


def test_wrong_config(broken: Path) -> None:
    values = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    values["model"]["d_modle"] = values["model"].pop("d_model")
    (broken / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert "did you mean 'd_model'" in refused("translate", broken, "x")
    (broken / "config.json").write_text("{")
    assert "JSON" in refused("translate", broken, "x")


def test_wrong_training_input(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.toml", tiny_values(write_pairs(tmp_path / "p.tsv", number_pairs(60))))
    out = ("--out", tmp_path / "run")
    assert "nothing.toml" in refused("train", tmp_path / "nothing.toml", *out)
    assert "max_steps" in refused("train", recipe, *out, "--set", "train.max_stpes=3")
    assert "train.max_steps" in refused("train", recipe, *out, "--set", "train.max_steps=many")
    assert "gone.tsv" in refused("train", recipe, *out, "--train", tmp_path / "gone.tsv")
    (tmp_path / "empty.tsv").write_text("")
    assert "empty.tsv" in refused("train", recipe, *out, "--train", tmp_path / "empty.tsv")
    assert "languages" in refused("train", "--train", tmp_path / "p.tsv", *out)


def test_wrong_usage(run: Path, tmp_path: Path) -> None:
    assert "--columns" in refused("evaluate", run, "--columns", "one,two", "--pairs", "x.tsv")
    assert "x.tsv" in refused("evaluate", run, "--pairs", tmp_path / "x.tsv")
    assert "--beem" in refused("translate", run, "x", "--beem", "3")
    assert "not both" in refused("translate", run, "x", "--input", tmp_path / "y.txt")
    assert "y.txt" in refused("translate", run, "--input", tmp_path / "y.txt")
    assert "its folder" in refused("translate", run, "x", "--output", tmp_path / "no" / "z.txt")
    assert "temperature" in refused("translate", run, "x", "--sample", "--temperature", "-1")


def test_debug_shows_where(tmp_path: Path) -> None:
    done = zhuyi("--debug", "translate", "nowhere", "x")
    assert done.returncode != 0
    assert "Traceback" in done.stderr

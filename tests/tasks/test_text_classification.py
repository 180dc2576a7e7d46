"""Labelled texts: data, loss, scores, a run that labels, and one that begins with another's body."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tasks.test_masked_language_modelling import values as masked_values
from tests.tiny import number_pairs, train_tiny, write_recipe, zhuyi

from zhuyi import load
from zhuyi.config import parse_config
from zhuyi.data.corpus import Corpus
from zhuyi.data.splitting import hash_key, split_off
from zhuyi.errors import InputError
from zhuyi.evaluation import Wanted, evaluate_run
from zhuyi.nn import kernels
from zhuyi.predict import Classifier
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.text_classification import LabelledDataConfig, TextClassificationTask, find_labels
from zhuyi.training import start

TEXTS = [side for pair in number_pairs(40) for side in pair]
LABELLED = [("zh" if not text.isascii() else "en", text) for text in TEXTS]


def values(path: Path, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    shared = masked_values(path, data, **settings)
    return {**shared, "task": "text-classification"}


@pytest.fixture(scope="module")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labelled") / "labelled.tsv"
    path.write_text("".join(f"{label}\t{text}\n" for label, text in LABELLED), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(labelled_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classified") / "run"
    changed = values(labelled_file, {"test": [str(labelled_file)]}, max_steps=60, eval_every_steps=15)
    train_tiny(parse_config(changed, "test"), path)
    return path


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return load(run)


def test_languages_are_told_apart(run: Path, classifier: Classifier) -> None:
    """What a mean of embeddings can tell, sixty steps learn."""
    assert classifier.labels == ("en", "zh")
    scores = evaluate_run(classifier, Wanted())
    assert scores["accuracy"] == scores["macro_f1"] == 1.0
    found = classifier.classify([text for _, text in LABELLED])
    losses = [-math.log(each.probabilities[label]) for each, (label, _) in zip(found, LABELLED, strict=True)]
    assert scores["valid_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert scores["texts"] == len(TEXTS)
    assert [each.label for each in classifier.classify(["七八九。", "one nine."])] == ["zh", "en"]


def test_probabilities_are_the_heads(classifier: Classifier) -> None:
    found = classifier.classify(TEXTS[:9])
    model = classifier.model
    with torch.inference_mode():
        for text, each in zip(TEXTS, found, strict=False):
            x = model(torch.tensor([[1, *classifier.tokenizer.encode(text)]]))
            probs = model.classifier(model.pooler(x))[0].softmax(-1).tolist()
            assert each.probabilities == pytest.approx(dict(zip(("en", "zh"), probs, strict=True)), abs=1e-5)
            assert each.probability == max(each.probabilities.values()) == each.probabilities[each.label]
            assert each.flags == ()


def test_long_texts_are_cut_and_flagged_and_empty_ones_answered(classifier: Classifier) -> None:
    long, empty = classifier.classify(["三" * 50, ""])
    assert long.flags == ("cut",) and empty.flags == ("empty",)
    assert classifier.classify([]) == []
    assert long.probability == pytest.approx(classifier.classify(["三" * 30])[0].probability, abs=1e-6)


def test_a_stream_is_answered_in_order(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 3)
    together = classifier.classify(TEXTS[:10])
    for one, other in zip(classifier.stream(iter(TEXTS[:10])), together, strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-6)


def test_one_text_and_unequal_pairs_are_refused(classifier: Classifier) -> None:
    with pytest.raises(InputError, match=r"write \[text\]"):
        classifier.classify("三五")
    with pytest.raises(InputError, match="2 texts but 1 second texts"):
        classifier.classify(["三", "五"], ["七"])


def test_lower_precisions_agree(run: Path, classifier: Classifier) -> None:
    exact = classifier.classify(TEXTS[:12])
    names = ["bfloat16", *(["int8"] if kernels.status()[:8] == "compiled" else [])]
    for name in names:
        for near, each in zip(load(run, name).classify(TEXTS[:12]), exact, strict=True):
            assert near.probability == pytest.approx(each.probability, abs=0.05)


def test_the_loss_is_torchs(run: Path, classifier: Classifier) -> None:
    config = RunFolder(run).read_config()
    task = TextClassificationTask.prepare(config.data, None, run, 256, 1, lambda message: None, begun=True)
    batch = task.batches("train").load(task.batches("train").order(0)[0])
    model = classifier.model
    logits = model.classifier(model.pooler(model(batch.ids, batch.mask, batch.segments), batch.mask))
    for smoothing in (0.0, 0.2):
        loss, nll, count = task.loss(model, batch, smoothing=smoothing)
        expected = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        assert float(loss) == pytest.approx(count * float(expected), rel=1e-5)
        assert float(nll) == pytest.approx(-float(logits.log_softmax(-1)[range(count), batch.labels].sum()), rel=1e-5)
    texts = [task.batches("train").lines(np.array([row]))[0] for row in task.batches("train").order(0)[0]]
    assert ["zh" if not text.isascii() else "en" for text in texts] == [
        config.data.labels[label] for label in batch.labels
    ]


def test_labels_and_sizes_are_found_in_the_data(run: Path) -> None:
    config = RunFolder(run).read_config()
    assert config.data.labels == ("en", "zh")
    assert config.model.num_labels == 2 and config.model.pooler and not config.model.masked_word_head


def test_labels_are_ordered_as_people_do() -> None:
    assert find_labels(iter(["10", "9", "-1", "9", "good"])) == ("-1", "9", "10", "good")
    with pytest.raises(InputError, match="all texts have the label 'x'"):
        find_labels(iter(["x", "x"]))
    with pytest.raises(InputError, match=r"1,001 different ones.*--columns 2,1"):
        find_labels(map(str, range(1001)))


def test_a_label_that_training_has_not_is_refused(labelled_file: Path, tmp_path: Path, classifier: Classifier) -> None:
    (tmp_path / "valid.tsv").write_text("en\tone.\nde\teins zwei\n", encoding="utf-8")
    config = parse_config(values(labelled_file, {"valid": [str(tmp_path / "valid.tsv")]}), "test")
    with pytest.raises(InputError, match=r"valid\.tsv, line 2: the label 'de' is none of the model's \(en, zh\)"):
        train_tiny(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(InputError, match=r"valid\.tsv, line 2: the label 'de'"):
        evaluate_run(classifier, Wanted([str(tmp_path / "valid.tsv")]))


def test_the_only_text_of_a_label_may_be_held_out(tmp_path: Path) -> None:
    def held_out(rare: str) -> bool:
        keys = np.array([hash_key(f"{text} ") for text in [*TEXTS, rare]], np.uint64)
        return bool(split_off(keys, keys, 8, 1)[-1])

    rare = next(text for _, text in number_pairs(60, digits=(7,), seed=9) if held_out(text))
    path = tmp_path / "labelled.tsv"
    path.write_text("".join(f"{label}\t{text}\n" for label, text in [*LABELLED, ("rare", rare)]), encoding="utf-8")
    config = parse_config(values(path, {}, max_steps=1, seed=1), "test")
    train_tiny(config, tmp_path / "run")
    assert "rare" not in set(Corpus.open(tmp_path / "run" / "cache" / "train-text.arrow").texts("label"))
    assert load(tmp_path / "run").labels == ("en", "rare", "zh")


def test_pairs_of_texts_are_told_apart_by_their_segments(tmp_path: Path) -> None:
    rows = "".join(f"{i % 2}\t{a}\t{b}\n" for i, (a, b) in enumerate(number_pairs(40)))
    (tmp_path / "pairs.tsv").write_text(rows, encoding="utf-8")
    path = tmp_path / "pairs.tsv"
    config = parse_config(values(path, {"columns": [1, 2, 3], "max_len": 32, "test": [str(path)]}, max_steps=2), "test")
    train_tiny(config, tmp_path / "run")
    found = load(tmp_path / "run")
    assert evaluate_run(found, Wanted())["texts"] == 40
    one, other = found.classify(["三五。", "three."], ["three.", "三五。"])
    assert one.probability != other.probability
    task = TextClassificationTask.prepare(found.config.data, None, tmp_path / "run", 256, 1, print, begun=True)
    batch = task.batches("train").load(np.array([0]))
    assert 0 < int(batch.segments.sum()) < int(batch.mask.sum())
    lines = ["三五。\tthree.", "three.\t三五。", "三五。"]
    found_of_lines = found.classify_lines(lines)
    assert found_of_lines[:2] == [one, other] == list(found.stream(lines))[:2]
    assert found_of_lines[2].flags == ("single",)
    flags = [each.flags for each in found.classify_lines(["", " \t", "\t三五。"])]
    assert flags == [("empty", "single"), ("empty",), ()]
    with pytest.raises(InputError, match="give the second ones too"):
        found.classify(["三五。"])
    with pytest.raises(InputError, match="expected those of label, text and second text, such as 1,2,3"):
        evaluate_run(found, Wanted(columns=(1, 2)))
    swapped = evaluate_run(found, Wanted(columns=(1, 3, 2)))
    assert swapped["texts"] == 40 and swapped["valid_loss"] != evaluate_run(found, Wanted())["valid_loss"]
    answered = zhuyi("classify", tmp_path / "run", *lines[:2])
    assert answered.stdout.splitlines() == [f"{each.label}\t{each.probability:.4f}" for each in (one, other)]


def test_six_steps_are_three_a_resume_and_three(labelled_file: Path, tmp_path: Path) -> None:
    whole = parse_config(values(labelled_file), "test")
    train_tiny(whole, tmp_path / "whole")
    train_tiny(replace(whole, train=replace(whole.train, max_steps=3)), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    longer = folder.read_config()
    folder.write_config(replace(longer, train=replace(longer.train, max_steps=6)))
    _, log = train_tiny(longer, tmp_path / "run", resume=True)
    assert not any("tokenizer" in line or "kept" in line for line in log.said)  # nothing was made anew
    assert folder.weights_path.read_bytes() == RunFolder(tmp_path / "whole").weights_path.read_bytes()


def test_the_mean_of_the_states_can_stand_for_the_text(labelled_file: Path, tmp_path: Path) -> None:
    changed = values(labelled_file, max_steps=1)
    changed["model"] |= {"pooling": "mean"}
    train_tiny(parse_config(changed, "test"), tmp_path / "run")
    found = load(tmp_path / "run")
    alone = found.classify([TEXTS[0]])[0].probability
    assert alone == pytest.approx(found.classify([TEXTS[0], "三" * 25])[0].probability, abs=1e-6)


# Beginning with another run


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    train_tiny(parse_config(masked_values(folder / "texts.txt", max_steps=3), "test"), folder / "run")
    return folder / "run"


def choose(
    recipe: Path | None,
    out: Path,
    init: str,
    *changes: str,
    task: str | None = "text-classification",
    columns: tuple[int, ...] | None = None,
    **files: list[str],
) -> Any:
    return start.choose_config(
        recipe,
        RunFolder(out),
        False,
        changes,
        task,
        ("", ""),
        {"train": [], "valid": [], "test": [], **files},
        columns,
        print,
        init=init,
    )


def test_a_body_is_taken_and_heads_begin_anew(pretrained: Path, labelled_file: Path, tmp_path: Path) -> None:
    recipe = values(labelled_file, {"tokenizer": {"kind": "bpe", "vocab_size": 90}}, max_steps=1, learning_rate=1e-9)
    recipe["train"] |= {"init": str(pretrained)}
    del recipe["model"]
    config = choose(write_recipe(tmp_path / "r.toml", recipe), tmp_path / "run", "")
    assert (config.model.d_model, config.model.masked_word_head, config.model.max_len) == (26, False, 32)
    _, log = train_tiny(config, tmp_path / "run")
    assert any(f"the weights of {pretrained}, and a new pooler and classifier." in line for line in log.said)
    assert not any("trained a" in line for line in log.said)
    before, after = RunFolder(pretrained).read_weights(), RunFolder(tmp_path / "run").read_weights()
    heads = ("masked_word_head", "pooler", "classifier")
    assert {name for name in before if not name.startswith(heads)} == {n for n in after if not n.startswith(heads)}
    for name, weight in before.items():
        if not name.startswith(heads):
            torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-6)
    assert (pretrained / "tokenizer.json").read_bytes() == (tmp_path / "run" / "tokenizer.json").read_bytes()


def test_the_same_task_goes_on_with_its_heads(run: Path, labelled_file: Path, tmp_path: Path) -> None:
    recipe = values(labelled_file, {}, max_steps=1, learning_rate=1e-9)
    del recipe["model"]
    config = choose(write_recipe(tmp_path / "r.toml", recipe), tmp_path / "run", str(run))
    scores, log = train_tiny(config, tmp_path / "run")
    assert any(line == f"Beginning with the weights of {run}." for line in log.said)
    assert scores["accuracy"] == 1.0


def test_labels_are_taken_over_by_their_names(run: Path, labelled_file: Path, tmp_path: Path) -> None:
    """The other run's order is its own: an imported model's is as it was published."""
    before = RunFolder(run)
    config, weights = before.read_config(), before.read_weights()
    (tmp_path / "other").mkdir()
    other = RunFolder(tmp_path / "other")
    other.write_config(replace(config, data=replace(config.data, labels=("zh", "en"))))
    turned = {name: x.flip(0) if name.startswith("classifier.") else x for name, x in weights.items()}
    other.write_weights(turned)
    (other.path / "tokenizer.json").write_bytes((run / "tokenizer.json").read_bytes())
    assert [each.label for each in load(other.path).classify(["七八九。", "one nine."])] == ["zh", "en"]
    changed = values(labelled_file, {}, max_steps=1, learning_rate=1e-9, init=str(other.path))
    scores, log = train_tiny(parse_config(changed, "test"), tmp_path / "again")
    assert scores["accuracy"] == 1.0
    assert f"Beginning with the weights of {other.path}." in log.said
    changed["data"]["labels"] = ["zh", "en"]
    assert train_tiny(parse_config(changed, "test"), tmp_path / "turned")[0]["accuracy"] == 1.0


def test_other_labels_begin_anew(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "labelled.tsv"
    path.write_text("".join(f"{'zh' if '。' in text else 'fr'}\t{text}\n" for text in TEXTS), encoding="utf-8")
    changed = values(path, {}, max_steps=1, learning_rate=1e-9, init=str(run))
    _, log = train_tiny(parse_config(changed, "test"), tmp_path / "run")
    assert f"Beginning with the weights of {run}, and a new classifier." in log.said
    before, after = RunFolder(run).read_weights(), RunFolder(tmp_path / "run").read_weights()
    torch.testing.assert_close(before["pooler.linear.weight"], after["pooler.linear.weight"], rtol=0, atol=1e-6)
    assert not torch.allclose(before["classifier.linear.weight"], after["classifier.linear.weight"], atol=1e-3)


def test_a_body_of_other_sizes_is_refused(pretrained: Path, labelled_file: Path, tmp_path: Path) -> None:
    recipe = values(labelled_file, {}, max_steps=1, init=str(pretrained))
    recipe["model"] |= {"d_ff": 40}
    with pytest.raises(InputError, match=r"encoder_layers.0.feed_forward.* but the config needs"):
        train_tiny(parse_config(recipe, "test"), tmp_path / "run")


def test_without_a_recipe_one_is_made(labelled_file: Path, tmp_path: Path, pretrained: Path) -> None:
    config = choose(None, tmp_path / "new", "", train=[str(labelled_file)])
    assert config.task == "text-classification" and config.model.name == "bert" and config.model.d_model == 128
    assert config.data.train == (str(labelled_file),)
    assert (tmp_path / "new" / "recipe.toml").exists()
    begun = choose(None, tmp_path / "begun", str(pretrained), train=[str(labelled_file)])
    assert begun.model.d_model == 26 and begun.train.init == str(pretrained)
    assert begun.data.max_len <= begun.model.max_len
    assert begun.train.learning_rate == pytest.approx(0.02 / 26)


def test_a_classifier_learns_on_without_a_word_of_its_task(run: Path, labelled_file: Path, tmp_path: Path) -> None:
    config = choose(None, tmp_path / "on", str(run), task=None, train=[str(labelled_file)])
    assert (config.task, config.train.init) == ("text-classification", str(run))


def test_without_a_recipe_the_files_are_read_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its sizes are found by what the options say of encoding, form, header and columns."""
    rows = "".join(f"{label}\t{text}\n" for label, text in LABELLED)
    (tmp_path / "a.data").write_text(f"语言\t句\n{rows}", encoding="gb18030")
    changes = ("data.encoding=gb18030", "data.header=yes", "data.form=tsv", "train.max_steps=7")
    config = choose(None, tmp_path / "new", "", *changes, train=[str(tmp_path / "a.data")])
    assert (config.data.encoding, config.data.header, config.train.max_steps) == ("gb18030", "yes", 7)
    assert f"{len(LABELLED)} of {len(LABELLED)} texts kept" in capsys.readouterr().out
    (tmp_path / "pairs.tsv").write_text("".join(f"{i % 2}\t{a}\t{b}\n" for i, (a, b) in enumerate(number_pairs(60))))
    alone, pairs = (
        choose(None, tmp_path / str(len(columns)), "", train=[str(tmp_path / "pairs.tsv")], columns=columns)
        for columns in ((1, 2), (1, 2, 3))
    )
    assert pairs.data.columns == (1, 2, 3) and pairs.data.max_len > alone.data.max_len
    with pytest.raises(InputError, match="encoding = x is none that Python knows"):
        choose(None, tmp_path / "bad", "", "data.encoding=x", train=[str(tmp_path / "pairs.tsv")])


def test_the_commands(run: Path, labelled_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("三五。\n\none two.\n", encoding="utf-8")
    found = zhuyi("classify", run, "--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt")
    assert found.returncode == 0 and found.stdout == "", found.stderr
    lines = (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines][::2] == ["zh", "en"] and len(lines) == 3
    found = zhuyi("classify", run, "三五。", "--jsonl")
    (answer,) = map(json.loads, found.stdout.splitlines())
    assert answer["label"] == "zh" and set(answer["probabilities"]) == {"en", "zh"} and answer["flags"] == []
    found = zhuyi("evaluate", run, "--test", labelled_file, "--output", tmp_path / "labels.txt", "--json")
    assert json.loads(found.stdout)["accuracy"] == 1.0
    written = (tmp_path / "labels.txt").read_text(encoding="utf-8").split()
    assert written == [label for label, _ in LABELLED]


def test_the_config_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="a name twice"):
        LabelledDataConfig(labels=("a", "b", "a"))
    with pytest.raises(ValueError, match="got 1"):
        LabelledDataConfig(columns=(1,))

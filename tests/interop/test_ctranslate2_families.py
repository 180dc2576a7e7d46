"""GPT, BERT and T5 in CTranslate2: what it computes is what the run does, and export makes sure of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.interop.test_ctranslate2_folder import run_example
from tests.interop.test_export_families import checked, own_run
from tests.interop.test_families import VARIANTS, sentences

import zhuyi
from zhuyi.decoding import Beam
from zhuyi.errors import InputError
from zhuyi.interop import ctranslate2_specs, export, import_run
from zhuyi.interop.probe import continue_freely, write_freely
from zhuyi.tasks.sentence_search import never_written

pytestmark = pytest.mark.peers

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt": ("gpt", {}),
    "gpt-without-biases": ("gpt", {"bias": False, "tie_embeddings": False, "activation": "relu"}),
    "words": ("bert", {"activation": "gelu-tanh", "norm_epsilon": 1e-3}),
    "labels": ("labels", {}),
    "labels-without-segments": ("labels", {"num_segments": 0, "pooler_activation": "relu", "activation": "silu"}),
    "t5": ("t5", {"num_decoder_layers": 1}),
    "t5-gated": (
        "t5",
        {"gated": True, "tie_embeddings": False, "activation": "gelu-tanh", "num_buckets": 7, "max_distance": 9},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def library() -> Any:
    return pytest.importorskip("ctranslate2", reason="needs the extra peers")


def written_pieces(folder: Path) -> list[str]:
    (path,) = folder.glob("*vocabulary.json")
    pieces: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return pieces


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_our_own(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, model = RUNS[name]
    checked(export(own_run(tmp_path / "run", kind, **model), "ctranslate2", tmp_path / "out"))
    run_example(tmp_path / "out", "three five")
    assert capsys.readouterr().out


@pytest.mark.parametrize("variant", ["gpt2-odd", "bert", "bert-labels", "distilbert-words", "t5", "t5-silu"])
def test_an_imported_run(variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    VARIANTS[variant](tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "run")
    checked(export(tmp_path / "run", "ctranslate2", tmp_path / "out"))
    run_example(tmp_path / "out", "the cat")
    assert capsys.readouterr().out


def test_the_readmes_answers_are_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("labels", "bert"):
        run = zhuyi.load(own_run(tmp_path / kind, kind))
        export(tmp_path / kind, "ctranslate2", tmp_path / f"{kind}-out")
        run_example(tmp_path / f"{kind}-out", "three five")
        printed = capsys.readouterr().out
        if kind == "labels":
            assert printed.strip() == f"['{run.classify(['three five'])[0].label}']"
        else:
            found = np.fromstring(printed.strip("[]\n"), sep=" ")
            np.testing.assert_allclose(found, run.embed(["three five"])[0], atol=1e-5)


@pytest.mark.parametrize("variant", ["t5-gated", "gpt2"])
def test_beams_write_the_same(variant: str, library: Any, tmp_path: Path) -> None:
    VARIANTS[variant](tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "run")
    export(tmp_path / "run", "ctranslate2", tmp_path / "out")
    run, texts = zhuyi.load(tmp_path / "run"), sentences(30)
    options: dict[str, Any] = {"beam_size": 4, "length_penalty": 0.0}
    rule = Beam(4, length_rule="none", stop="exact")
    pieces = written_pieces(tmp_path / "out")
    if variant == "gpt2":
        rows = [run.tokenizer.encode(text)[:-1] for text in texts]
        opened = library.Generator(str(tmp_path / "out"), inter_threads=1, intra_threads=1)
        prompts = [[pieces[i] for i in row] for row in rows]
        # Of prompts of unequal lengths side by side, a beam's results would hold the ends of the longer ones.
        found = opened.generate_batch(
            prompts, max_length=9, include_prompt_in_result=False, max_batch_size=1, **options
        )
        written = [run.tokenizer.decode(result.sequences_ids[0]) for result in found]
        expected = continue_freely(run, rows, rule, 9)
    else:
        rows = [run.source_tokenizer.encode(text) for text in texts]
        opened = library.Translator(str(tmp_path / "out"), inter_threads=1, intra_threads=1)
        signs = run.target_tokenizer.signs
        never = [[pieces[i]] for i in sorted(never_written(signs, run.decode_config().forbidden))]
        found = opened.translate_batch(
            [[pieces[i] for i in row] for row in rows],
            max_decoding_length=9,
            min_decoding_length=0,
            suppress_sequences=never or None,
            **options,
        )
        ids = {piece: i for i, piece in enumerate(pieces)}
        known = [
            [i for token in result.hypotheses[0] if (i := ids[token]) < run.tokenizer.vocab_size] for result in found
        ]
        written = [run.tokenizer.decode(row) for row in known]
        expected = write_freely(run, rows, rule, 9)
    differing = [pair for pair in zip(written, expected, strict=True) if pair[0] != pair[1]]
    assert len(differing) <= 1, differing  # scores nearer than 1e-4
    assert len(set(written)) > 5


def test_signs_for_spans_are_counted_down(tmp_path: Path) -> None:
    run = zhuyi.load(own_run(tmp_path / "run", "t5"))
    export(tmp_path / "run", "ctranslate2", tmp_path / "out")
    pieces = written_pieces(tmp_path / "out")
    assert pieces[: run.tokenizer.vocab_size] == run.tokenizer.pieces
    assert pieces[-1] == "<extra_id_0>" and pieces[run.tokenizer.vocab_size] == "<extra_id_99>"


@pytest.mark.parametrize("kind", ["gpt", "labels", "t5"])
def test_what_computes_something_else_is_not_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ctranslate2_specs.set_norm

    def wrong(spec: Any, arrays: Any, name: str) -> None:
        right(spec, arrays, name)
        spec.gamma = spec.gamma.copy()
        spec.gamma[3] += 1.0

    monkeypatch.setattr(ctranslate2_specs, "set_norm", wrong)
    with pytest.raises(ArithmeticError, match="differ from those of CTranslate2"):
        export(own_run(tmp_path / "run", kind), "ctranslate2", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_it_has_no_place_for(tmp_path: Path) -> None:
    VARIANTS["bert-both"](tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "both")
    own_run(tmp_path / "mean", "labels", pooling="mean")
    for name, message in (("both", "tells if one sentence follows"), ("mean", "pooling = mean")):
        with pytest.raises(InputError, match=message):
            export(tmp_path / name, "ctranslate2", tmp_path / "out")

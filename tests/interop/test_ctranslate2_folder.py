"""CTranslate2 on an exported model gives zhuyi's probabilities and texts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.conftest import TEXTS

from zhuyi import load
from zhuyi.data.special_tokens import BOS_ID
from zhuyi.decoding import Beam, Greedy, Rule
from zhuyi.errors import InputError
from zhuyi.interop import export
from zhuyi.interop.ctranslate2_folder import write_ctranslate2
from zhuyi.predict import Translator

MODELS: dict[str, dict[str, Any]] = {
    "paper": {},
    "norm-first": {"norm_first": True, "activation": "gelu"},
    "two-vocabularies": {"tie_embeddings": "decoder", "activation": "silu", "d_model": 27, "num_heads": 3},
    "untied": {"tie_embeddings": "none", "positions": "learned", "norm_first": True},
    "wide-heads": {"head_dim": 7, "positions": "learned", "tie_embeddings": "decoder"},
}
SENTENCES = [
    "你好。",
    "我昨天买了一本新书。",
    "他每天早上七点起床。",
    "你能告诉我火车站在哪里吗？",
    "如果明天下雨，我们就待在家里。",
    "这个问题比我想象的要难得多。",
    "她会说三种语言。",
    "汤姆不知道玛丽为什么哭。",
]


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest, translator: Callable[..., Translator]) -> Translator:
    return translator(**MODELS[request.param])


def theirs(translator: Translator, folder: Path) -> Any:
    pytest.importorskip("ctranslate2", reason="needs the extra peers")
    import ctranslate2

    write_ctranslate2(translator, folder)
    return ctranslate2.Translator(str(folder), compute_type="float32", inter_threads=1, intra_threads=1)


def run_example(folder: Path, text: str) -> None:
    """The code in the folder's own README."""
    code = (folder / "README.md").read_text(encoding="utf-8").split("```")[1].removeprefix("python\n")
    exec(code.replace('"..."', repr(text)), {"FOLDER": str(folder)})


def source_pieces(translator: Translator, texts: list[str]) -> list[list[str]]:
    tokenizer = translator.source_tokenizer
    return [[tokenizer.pieces[i] for i in tokenizer.encode(text)] for text in texts]


@pytest.mark.peers
@torch.no_grad()
@pytest.mark.parametrize("variant", MODELS)
def test_each_targets_probability_is_ours(variant: str, translator: Callable[..., Translator], tmp_path: Path) -> None:
    case = translator(gain=1.0, **MODELS[variant])
    generator = torch.Generator().manual_seed(5)
    tokenizer = case.target_tokenizer
    drawn = torch.randint(3, tokenizer.vocab_size, (len(TEXTS), 13), generator=generator)
    targets = [row[: 3 + 2 * i].tolist() for i, row in enumerate(drawn)]
    found = theirs(case, tmp_path).score_batch(
        source_pieces(case, TEXTS), [[tokenizer.pieces[i] for i in target] for target in targets]
    )
    for text, target, result in zip(TEXTS, targets, found, strict=True):
        src = torch.tensor([case.source_tokenizer.encode(text)])
        log_probs = case.model(src, torch.tensor([[BOS_ID, *target]])).log_softmax(-1)[0]
        expected = [float(row[i]) for row, i in zip(log_probs, [*target, 2], strict=True)]
        np.testing.assert_allclose(result.log_probs, expected, atol=1e-4, rtol=1e-5)


# With no length penalty it stops as soon as nothing can be better; with one, when as many as the beam have ended.
@pytest.mark.peers
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Greedy(), {"beam_size": 1}),
        (Beam(4, length_rule="none", stop="exact"), {"beam_size": 4, "length_penalty": 0.0}),
        (Beam(3, length_rule="power", alpha=1.0, stop="first"), {"beam_size": 3, "length_penalty": 1.0}),
    ],
    ids=["greedy", "beam", "beam-power"],
)
def test_searches_write_the_same(
    case: Translator, rule: Rule, options: dict[str, Any], write: Callable[..., Any], tmp_path: Path
) -> None:
    found = theirs(case, tmp_path).translate_batch(
        source_pieces(case, TEXTS), max_decoding_length=17, min_decoding_length=0, return_scores=True, **options
    )
    ours = write(case, TEXTS, rule, 17)
    pieces = case.target_tokenizer.pieces
    assert [result.hypotheses[0] for result in found] == [[pieces[i] for i in tokens] for tokens, _ in ours]
    assert len({tuple(result.hypotheses[0]) for result in found}) > 1
    if options["beam_size"] > 1:
        np.testing.assert_allclose([result.scores[0] for result in found], [score for _, score in ours], rtol=1e-3)


@pytest.mark.peers
@pytest.mark.parametrize("beam", [1, 5])
def test_the_shipped_model_translates_alike(beam: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2", reason="needs the extra peers")
    translator = load("zh-en")
    export("zh-en", "ctranslate2", tmp_path / "zh-en")
    found = ctranslate2.Translator(str(tmp_path / "zh-en"), inter_threads=1, intra_threads=1).translate_batch(
        source_pieces(translator, SENTENCES),
        beam_size=beam,
        length_penalty=1.0,
        disable_unk=True,
        suppress_sequences=[["<pad>"], ["<s>"]],
    )
    rule = Greedy() if beam == 1 else Beam(beam, length_rule="power", alpha=1.0, stop="first")
    ours = translator.translate(SENTENCES, rule=rule)
    assert [tuple(result.hypotheses[0]) for result in found] == [translation.tokens for translation in ours]
    run_example(tmp_path / "zh-en", "你好。")
    assert capsys.readouterr().out.strip()


@pytest.mark.peers
def test_the_readmes_example_runs_with_two_tokenizers(
    translator: Callable[..., Translator], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(translator(tie_embeddings="decoder"), tmp_path)
    run_example(tmp_path, "三五。")
    assert capsys.readouterr().out.endswith("\n")


def test_what_it_cannot_express(translator: Callable[..., Translator], tmp_path: Path) -> None:
    deep = translator(memory="layerwise", num_encoder_layers=2)
    with pytest.raises(InputError, match="memory = layerwise"):
        write_ctranslate2(deep, tmp_path)


def test_without_the_package(
    translator: Callable[..., Translator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ctranslate2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(InputError, match=r'needs the package ctranslate2.*: pip install "zhuyi\[export\]"'):
        write_ctranslate2(translator(), tmp_path)

"""Marian and Pegasus of Hugging Face transformers, opened from an exported folder, compute what zhuyi does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.conftest import TEXTS

from zhuyi import load
from zhuyi.data.batches import pad
from zhuyi.data.special_tokens import BOS_ID
from zhuyi.data.tokenizers import Signs
from zhuyi.decoding import Beam, Greedy, Rule
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.interop import export
from zhuyi.interop.hugging_face import generation_config, write_hugging_face
from zhuyi.predict import Translator

MODELS: dict[str, dict[str, Any]] = {
    "paper": {"num_encoder_layers": 3},
    "odd-width": {"d_model": 27, "num_heads": 3, "activation": "gelu"},
    "two-vocabularies": {"tie_embeddings": "decoder", "activation": "silu"},
    "untied": {"tie_embeddings": "none"},
    "norm-first": {"norm_first": True, "activation": "gelu", "d_model": 27, "num_heads": 3},
    "learned": {"norm_first": True, "positions": "learned"},
}


def theirs(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    model, notes = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    # Marian makes its positions itself.
    assert all("embed_positions" in key for key in notes.pop("missing_keys"))
    assert not any(notes.values()), notes
    return model.eval()


def batch(translator: Translator, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = pad([np.array(translator.source_tokenizer.encode(text)) for text in texts])
    return torch.from_numpy(ids), torch.from_numpy(mask)


@torch.no_grad()
def logits_of_both(ours: Translator, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    src, mask = batch(ours, TEXTS)
    tgt = torch.randint(ours.target_tokenizer.vocab_size, (len(TEXTS), 11), generator=torch.Generator().manual_seed(1))
    tgt[:, 0] = BOS_ID
    expected = ours.model(src, tgt, mask)
    return model(input_ids=src, attention_mask=mask.long(), decoder_input_ids=tgt).logits, expected


@pytest.mark.peers
@pytest.mark.parametrize("variant", MODELS)
def test_logits_are_ours(variant: str, translator: Callable[..., Translator], tmp_path: Path) -> None:
    ours = translator(gain=1.0, **MODELS[variant])
    write_hugging_face(ours, tmp_path)
    found, expected = logits_of_both(ours, theirs(tmp_path))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.5


@pytest.mark.peers
@pytest.mark.parametrize("variant", MODELS)
def test_logits_survive_their_own_saving(variant: str, translator: Callable[..., Translator], tmp_path: Path) -> None:
    """What they do not save, such as Marian's position table, they must make as it was; in float64, to the last bit."""
    ours = translator(**MODELS[variant])
    (tmp_path / "ours").mkdir()
    write_hugging_face(ours, tmp_path / "ours")
    theirs(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    ours.model.double()
    found, expected = logits_of_both(ours, theirs(tmp_path / "theirs").double())
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.peers
@pytest.mark.parametrize("variant", ["two-vocabularies", "norm-first"])
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Greedy(), {"num_beams": 1}),
        (Beam(4, length_rule="power", alpha=0.7), {"num_beams": 4, "length_penalty": 0.7, "early_stopping": "never"}),
        (
            Beam(3, length_rule="none", stop="first"),
            {"num_beams": 3, "length_penalty": 0.0, "early_stopping": True},
        ),
    ],
    ids=["greedy", "beam", "beam-first"],
)
def test_generate_writes_the_same(
    variant: str,
    rule: Rule,
    options: dict[str, Any],
    translator: Callable[..., Translator],
    write: Callable[..., Any],
    tmp_path: Path,
) -> None:
    ours = translator(**MODELS[variant])
    write_hugging_face(ours, tmp_path)
    model = theirs(tmp_path)
    model.generation_config.early_stopping = False
    model.generation_config.length_penalty = 1.0
    src, mask = batch(ours, TEXTS)
    found = model.generate(
        input_ids=src, attention_mask=mask.long(), max_new_tokens=12, max_length=None, suppress_tokens=None, **options
    )
    rows = [row[1:].tolist() for row in found]
    cut = [row[: row.index(2)] if 2 in row else row for row in rows]
    assert cut == [list(tokens) for tokens, _ in write(ours, TEXTS, rule, 12)]


@pytest.mark.peers
def test_the_shipped_model_translates_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    export("zh-en", "hf", tmp_path / "zh-en")
    translator, model = load("zh-en"), theirs(tmp_path / "zh-en")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "zh-en")
    texts = ["我昨天买了一本新书。", "他每天早上七点起床。", "这本书真贵！"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    assert [row[row != 0].tolist() for row in tokens.input_ids] == [
        translator.source_tokenizer.encode(text) for text in texts
    ]
    found = tokenizer.batch_decode(model.generate(**tokens), skip_special_tokens=True)
    decode = translator.config.decode
    ours = translator.translate(texts, rule=Beam(decode.beam, length_rule="power", alpha=decode.alpha))
    assert found == [translation.text for translation in ours]
    code = (tmp_path / "zh-en" / "README.md").read_text(encoding="utf-8").split("```")[1].removeprefix("python\n")
    exec(code.replace('"..."', json.dumps(texts[0])), {"FOLDER": str(tmp_path / "zh-en")})
    assert found[0] in capsys.readouterr().out


@pytest.mark.peers
def test_two_tokenizers(translator: Callable[..., Translator], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    ours = translator(tie_embeddings="decoder")
    write_hugging_face(ours, tmp_path)
    source = transformers.AutoTokenizer.from_pretrained(tmp_path)
    target = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.target.json"))
    assert source("三五。").input_ids == ours.source_tokenizer.encode("三五。")
    assert target.decode(ours.target_tokenizer.encode("three five.")[:-1]) == "three five."
    assert "tokenizer.target.json" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"memory": "layerwise", "num_encoder_layers": 2}, "memory = layerwise"),
        ({"head_dim": 7}, "head_dim = 7"),
        ({"positions": "learned"}, "positions = learned"),
        ({"norm_first": True, "tie_embeddings": "decoder"}, "norm_first = true and tie_embeddings = decoder"),
    ],
)
def test_what_they_cannot_express(
    translator: Callable[..., Translator], model: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"cannot export to hf: the model has {message}, but ") as error:
        write_hugging_face(translator(**model), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_runs_search_as_far_as_they_have_it() -> None:
    values = generation_config(DecodeConfig(beam=4, alpha=0.8, length_rule="power", stop="exact"), 31, Signs())
    assert (values["num_beams"], values["length_penalty"], values["early_stopping"]) == (4, 0.8, False)
    values = generation_config(DecodeConfig(beam=4, length_rule="none", stop="first"), 31, Signs())
    assert (values["length_penalty"], values["early_stopping"], values["max_length"]) == (0.0, True, 31)
    assert "length_penalty" not in generation_config(DecodeConfig(beam=1), 31, Signs())  # they warn of it

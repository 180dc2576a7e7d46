"""GPT-2, BERT, DistilBERT and T5 leave as they came, and runs of our own become such."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.interop.test_families import VARIANTS
from tests.tiny import number_pairs

from zhuyi import load
from zhuyi.config import parse_config
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.errors import InputError
from zhuyi.interop import export, import_run
from zhuyi.interop.probe import Comparison
from zhuyi.models import MODELS
from zhuyi.run_folder import RunFolder, named_weights

pytestmark = pytest.mark.peers


def checked(comparison: Comparison) -> None:
    """Export has compared, and found the same."""
    assert comparison.difference is not None and comparison.difference < 1e-5
    if comparison.texts:
        assert comparison.texts[0] == comparison.texts[1]


@pytest.mark.parametrize("variant", ["gpt2-untied", "bert-both", "bert-labels", "distilbert-words", "t5-gated"])
def test_out_again_as_it_came_in(variant: str, tmp_path: Path) -> None:
    VARIANTS[variant](tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "run")
    checked(export(tmp_path / "run", "hf", tmp_path / "again"))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    assert first.keys() <= second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


SIZES: dict[str, dict[str, Any]] = {
    "gpt": {"d_model": 28, "num_heads": 2, "d_ff": 37, "num_layers": 2, "max_len": 61},
    "bert": {"d_model": 28, "num_heads": 2, "d_ff": 37, "num_layers": 2, "max_len": 61, "masked_word_head": True},
    "labels": {"d_model": 28, "num_heads": 2, "d_ff": 37, "num_layers": 1, "max_len": 61, "pooler": True},
    "t5": {"d_model": 28, "num_heads": 2, "head_dim": 11, "d_ff": 37, "num_encoder_layers": 2, "max_len": 61},
}
TASKS = {
    "gpt": "language-modelling",
    "bert": "masked-language-modelling",
    "labels": "text-classification",
    "t5": "text-to-text",
}


def own_run(path: Path, kind: str, **model: Any) -> Path:
    """A run of random weights, as training would leave it."""
    kinds = {"gpt": TokenizerConfig("byte-bpe", 300, verbatim=True), "t5": TokenizerConfig("unigram", 90)}
    tokenizer = train_tokenizer(
        [text for _, text in number_pairs(60)], kinds.get(kind) or TokenizerConfig("bpe", vocab_size=90)
    )
    extra = {"gpt": 0, "bert": 1, "labels": 1, "t5": 100}[kind]
    data: dict[str, Any] = {"max_len": 40, **({"labels": ["bad", "good"]} if kind == "labels" else {})}
    values = {
        "task": TASKS[kind],
        "model": {
            "name": "bert" if kind == "labels" else kind,
            "vocab_size": tokenizer.vocab_size + extra,
            **({"num_labels": 2} if kind == "labels" else {}),
            **SIZES[kind],
            **model,
        },
        "data": data,
        "train": {"max_steps": 1},
    }
    config = parse_config(values, "here")
    folder = RunFolder(path)
    folder.write_config(config)
    tokenizer.save(path / "tokenizer.json")
    torch.manual_seed(3)
    module = MODELS[config.model.name].module(config.model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    folder.write_weights(named_weights(module))
    return path


@pytest.mark.parametrize("kind", SIZES)
def test_a_run_of_our_own(kind: str, tmp_path: Path) -> None:
    checked(export(own_run(tmp_path / "run", kind), "hf", tmp_path / "hf"))


def test_what_is_said_of_a_language_model(tmp_path: Path) -> None:
    """Its tokenizer takes texts as they stand; the code of its README writes as `zhuyi generate` does."""
    transformers = pytest.importorskip("transformers")
    path = own_run(tmp_path / "run", "gpt")
    values = json.loads((path / "config.json").read_text())
    values["data"] |= {
        "documents": "line",
        "tokenizer": {"kind": "byte-bpe", "vocab_size": 300, "verbatim": True},
    }
    decode = {"temperature": 0.0, "repetition_penalty": 1.3, "no_repeat_ngram": 3, "max_new_tokens": 9}
    (path / "config.json").write_text(json.dumps(values | {"decode": decode}))
    checked(export(path, "hf", tmp_path / "hf"))
    said = (tmp_path / "hf" / "README.md").read_text()
    assert "normalize(text)" not in said and 'tokenizer.eos_token + "..."' in said
    model, tokenizer = (
        kind.from_pretrained(tmp_path / "hf")
        for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    batch = tokenizer([tokenizer.eos_token + "three"], return_tensors="pt")
    found = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)[0]
    assert found == "three" + load(path).generate(["three"])[0].text
    (path / "config.json").write_text(json.dumps(values | {"decode": {"temperature": 0.5, "top_p": 0.9}}))
    export(path, "hf", tmp_path / "again")
    said = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert said["do_sample"] and (said["temperature"], said["top_p"], said["top_k"]) == (0.5, 0.9, 0)


def test_a_t5_never_writes_signs_for_spans(tmp_path: Path) -> None:
    path = own_run(tmp_path / "run", "t5")
    export(path, "hf", tmp_path / "hf")
    said = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    config = RunFolder(path).read_config().model
    assert set(range(config.vocab_size - 100, config.vocab_size)) < set(said["suppress_tokens"])


@pytest.mark.parametrize(
    ("kind", "model", "message"),
    [
        ("gpt", {"bias": False}, "bias = false"),
        ("labels", {"pooling": "mean"}, "pooling = mean"),
        ("bert", {"num_segments": 0, "norm_epsilon": 1e-5}, "norm_epsilon = 1e-05"),
    ],
)
def test_what_they_cannot_express(kind: str, model: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(own_run(tmp_path / "run", kind, **model), "hf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "labels", "gpt"])
def test_what_has_no_memory_as_onnx(kind: str, tmp_path: Path) -> None:
    """Export compares it by itself, at other shapes than it was written with."""
    pytest.importorskip("onnxruntime")
    checked(export(own_run(tmp_path / "run", kind), "onnx", tmp_path / "onnx"))
    assert {path.name for path in (tmp_path / "onnx").iterdir()} >= {"model.onnx", "tokenizer.json", "README.md"}

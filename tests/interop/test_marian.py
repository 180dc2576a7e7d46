"""A Marian as published, imported, computes and writes what transformers does with it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.interop.published import TALKATIVE, TEXTS, WORDS, marian_folder, write_marian_tokenizer

import zhuyi
from zhuyi.decoding import Beam, Greedy, Rule
from zhuyi.errors import InputError
from zhuyi.interop import export, import_run, marian
from zhuyi.interop.probe import write_freely
from zhuyi.predict import Translator
from zhuyi.run_folder import named_weights

VARIANTS: dict[str, dict[str, Any]] = {
    "opus": {},
    "odd-width": {"d_model": 27, "encoder_attention_heads": 3, "decoder_attention_heads": 3},
    "deep-encoder": {"encoder_layers": 4, "decoder_layers": 1, "activation_function": "relu"},
    "unscaled": {"scale_embedding": False, "activation_function": "gelu_new"},
    "two-vocabularies": {"share_encoder_decoder_embeddings": False, "activation_function": "gelu"},
    "untied": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
}
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


def sentences(count: int) -> list[str]:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=generator).tolist()) for n in lengths]


@pytest.mark.peers
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_logits_are_theirs(variant: str, tmp_path: Path) -> None:
    theirs = marian_folder(tmp_path / "hf", **VARIANTS[variant])
    comparison = import_run(tmp_path / "hf", tmp_path / "run")
    assert comparison.texts is not None and comparison.texts[0] == comparison.texts[1]
    ours = zhuyi.load(tmp_path / "run")
    generator = torch.Generator().manual_seed(1)
    src = torch.randint(ours.source_tokenizer.vocab_size, (3, 9), generator=generator)
    tgt = torch.randint(ours.target_tokenizer.vocab_size, (3, 11), generator=generator)
    for mask in (
        torch.arange(9) < torch.tensor([9, 4, 1])[:, None],
        torch.arange(9) >= torch.tensor([0, 3, 8])[:, None],
    ):
        expected = theirs(input_ids=src, attention_mask=mask.long(), decoder_input_ids=tgt).logits
        torch.testing.assert_close(ours.model(src, tgt, mask), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.3


@pytest.mark.peers
@pytest.mark.parametrize("variant", ["opus", "two-vocabularies"])
def test_ids_and_texts_of_the_tokenizer_are_theirs(variant: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    marian_folder(tmp_path / "hf", **VARIANTS[variant])
    import_run(tmp_path / "hf", tmp_path / "run")
    ours, theirs = zhuyi.load(tmp_path / "run"), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    codes = [">>de<< the cat"] if variant == "opus" else []
    hard = [*codes, "the sun", "香 cat", "cat香港 dog", "</s> the <unk> <pad>", "ＣＡＴ ｔhe", " a  b "]
    for text in [*TEXTS, *hard, *sentences(60)]:
        assert ours.source_tokenizer.encode(text) == without_signs_in_text(theirs, text), text
        with_target = theirs(text_target=text).input_ids if "<" not in text else None
        if with_target:
            assert ours.target_tokenizer.encode(text) == with_target
    ids = torch.randint(ours.target_tokenizer.vocab_size, (40, 9), generator=torch.Generator().manual_seed(2)).tolist()
    for row in ids:
        assert ours.target_tokenizer.decode(row).strip() == theirs.decode(row, skip_special_tokens=True)


def without_signs_in_text(tokenizer: Any, text: str) -> list[int]:
    """Theirs finds its signs in texts, and ours does not: there the text is spelt so that neither can."""
    if not any(sign in text for sign in ("</s>", "<unk>", "<pad>")):
        return tokenizer(text).input_ids
    pieces = tokenizer.current_spm.encode(text, out_type=str)
    signs = {"</s>", "<unk>", "<pad>"}
    unknown = tokenizer.unk_token_id
    return [unknown if p in signs else tokenizer.convert_tokens_to_ids(p) for p in pieces] + [tokenizer.eos_token_id]


RULES: list[tuple[Rule, dict[str, Any]]] = [
    (Greedy(), {"num_beams": 1}),
    (Beam(4, length_rule="power", alpha=0.0), {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"}),
    (Beam(4, length_rule="power", alpha=1.0), {"num_beams": 4, "length_penalty": 1.0, "early_stopping": "never"}),
    (
        Beam(4, length_rule="power", alpha=1.0, stop="first"),
        {"num_beams": 4, "length_penalty": 1.0, "early_stopping": True},
    ),
]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("rule", "options", "renormalize"),
    [*((*case, False) for case in RULES), (*RULES[2], True)],
    ids=["greedy", "beam-0", "beam-1", "beam-first", "renormalized"],
)
def test_texts_are_those_of_generate(rule: Rule, options: dict[str, Any], renormalize: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = marian_folder(tmp_path / "hf", **TALKATIVE)
    if renormalize:
        values = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
        (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(values | {"renormalize_logits": True}))
        model.generation_config.renormalize_logits = True
    model.generation_config.forced_eos_token_id = None  # a cut text would lose its last token to it
    import_run(tmp_path / "hf", tmp_path / "run")
    ours, tokenizer = zhuyi.load(tmp_path / "run"), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    texts = sentences(200)
    found = write_freely(ours, [ours.source_tokenizer.encode(text) for text in texts], rule, 20)
    expected = []
    for start in range(0, len(texts), 50):
        batch = tokenizer(texts[start : start + 50], return_tensors="pt", padding=True)
        rows = model.generate(**batch, max_new_tokens=20, max_length=None, **options)
        expected += tokenizer.batch_decode(rows, skip_special_tokens=True)
    differing = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a.strip() != b.strip()]
    assert len(differing) <= 1, [(found[i], expected[i]) for i in differing]  # scores nearer than 1e-4
    longest = max(len(ours.target_tokenizer.encode(text)) for text in found)
    assert sum(len(ours.target_tokenizer.encode(text)) < longest - 3 for text in found) > 100
    assert len(set(found)) > 20


@pytest.fixture
def published(tmp_path: Path, translator: Callable[..., Translator]) -> tuple[Translator, Path]:
    """A Marian's folder, written without transformers."""
    folder = tmp_path / "hf"
    folder.mkdir()
    size, _ = write_marian_tokenizer(folder)
    ours = translator(output_bias=True, source_vocab_size=size, target_vocab_size=size)
    write_weights(ours, folder)
    signs = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1, "eos_token_id": 0}
    config = marian.written_config(ours.config.model, ours.target_tokenizer.signs) | signs
    (folder / "config.json").write_text(json.dumps(config))
    return ours, folder


def write_weights(ours: Translator, folder: Path) -> None:
    tables = ours.model.source_positions.table, ours.model.target_positions.table
    weights = marian.to_published(ours.config.model, named_weights(ours.model), tables)
    save_file(weights, folder / "model.safetensors")


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | values))


@pytest.fixture(autouse=True)
def no_transformers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests without the mark compare nothing, so that they run without it."""
    if request.node.get_closest_marker("peers") is None:
        monkeypatch.setitem(sys.modules, "transformers", None)


def logits(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    vocab_size = model.config.target_vocab_size
    src, tgt = (torch.randint(vocab_size, (2, n), generator=generator) for n in (5, 7))
    with torch.no_grad():
        return model(src, tgt)


def test_what_is_written_and_read_again_is_the_same(published: tuple[Translator, Path], tmp_path: Path) -> None:
    ours, folder = published
    change(folder, "generation_config.json", num_beams=3, length_penalty=0.5, early_stopping=True, bad_words_ids=[[1]])
    comparison = import_run(folder, tmp_path / "run")
    assert str(comparison) == "not compared with transformers (it is not installed)"
    again = zhuyi.load(tmp_path / "run")
    torch.testing.assert_close(logits(again.model), logits(ours.model), atol=1e-6, rtol=1e-6)
    decode = again.config.decode
    assert (decode.beam, decode.alpha, decode.length_rule, decode.stop) == (3, 0.5, "power", "first")
    assert decode.forbidden == (1,)
    assert "not compared" in (tmp_path / "run" / "card.md").read_text()
    found = again.translate(["the cat sat on the mat .", "a dog"])
    assert all(translation.tokens for translation in found)


def test_shards_a_bin_and_copies_of_tied_tables(published: tuple[Translator, Path], tmp_path: Path) -> None:
    ours, folder = published
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shared = weights["model.shared.weight"]
    copies = {"lm_head.weight": shared, "model.encoder.embed_tokens.weight": shared}
    table = ours.model.source_positions.table[:, marian.hidden_order(ours.config.model.d_model)]
    everything = weights | {name: x.clone() for name, x in copies.items()}
    everything["model.decoder.embed_positions.weight"] = table.contiguous()
    torch.save(everything, folder / "pytorch_model.bin")
    import_run(folder, tmp_path / "from-bin")
    (folder / "pytorch_model.bin").unlink()
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file)
    change(folder, "model.safetensors.index.json", weight_map={name: f for f, own in parts.items() for name in own})
    import_run(folder, tmp_path / "from-shards")
    for name in ("from-bin", "from-shards"):
        found = logits(zhuyi.load(tmp_path / name).model)
        torch.testing.assert_close(found, logits(ours.model), atol=1e-6, rtol=1e-6)


class Malicious:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_a_bin_with_code_in_it_is_refused(
    published: tuple[Translator, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = published
    (folder / "model.safetensors").unlink()
    torch.save({"model.shared.weight": Malicious()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="not a file of weights alone"):
        import_run(folder, tmp_path / "run")
    assert "run" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"normalize_before": True}, "normalize_before = true has no counterpart"),
        ("config.json", {"rope_theta": 10000}, "the key rope_theta = 10000 is not known"),
        (
            "config.json",
            {"decoder_attention_heads": 13},
            "encoder_attention_heads = 2, but decoder_attention_heads = 13",
        ),
        ("config.json", {"activation_function": "mish"}, "activation_function = mish"),
        ("config.json", {"tie_word_embeddings": False}, "share_encoder_decoder_embeddings without"),
        ("config.json", {"model_type": "mbart"}, "model_type is mbart; choose a model of .*marian"),
        ("config.json", {"d_model": 28}, "is of shape .* but d_model = 28"),
        ("config.json", {"encoder_layers": 2}, "the checkpoint has no model.encoder.layers.1"),
        ("config.json", {"decoder_layers": 1}, "for which the model has no place"),
        ("config.json", {"no_repeat_ngram_size": 3}, "no_repeat_ngram_size = 3 has no counterpart"),
        ("generation_config.json", {"bad_words_ids": [[1, 2]]}, "zhuyi forbids single ids alone"),
        ("generation_config.json", {"eos_token_id": 5}, "eos_token_id = 5, but the model's config says 0"),
        ("generation_config.json", {"length_penalty": -1.0}, "alpha must not be negative"),
        ("generation_config.json", {"watermarking_config": {"bias": 2}}, "watermarking_config"),
        ("tokenizer_config.json", {"sp_model_kwargs": {"enable_sampling": True}}, "sp_model_kwargs"),
        ("vocab.json", {"▁the": 100000}, "▁the has the id 100000"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_by_name(
    published: tuple[Translator, Path], file: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    _, folder = published
    change(folder, file, **values)
    with pytest.raises(InputError, match=message) as error:
        import_run(folder, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_computes_something_else_is_not_left(
    published: tuple[Translator, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(run: Any, folder: Any) -> Any:
        raise ArithmeticError("differs")

    monkeypatch.setattr("zhuyi.interop.importing.compare", differs)
    with pytest.raises(ArithmeticError):
        import_run(published[1], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.peers
def test_wrong_weights_are_found_on_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marian_folder(tmp_path / "hf")
    order = marian.hidden_order
    monkeypatch.setattr(marian, "hidden_order", lambda d_model: order(d_model).roll(1))
    with pytest.raises(ArithmeticError, match="numbers differ from those of transformers"):
        import_run(tmp_path / "hf", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.peers
def test_out_again_as_it_came_in(tmp_path: Path) -> None:
    """What is exported of an imported run is, file by file of the tokenizer and weight by weight, what was imported."""
    marian_folder(tmp_path / "hf", **VARIANTS["two-vocabularies"])
    import_run(tmp_path / "hf", tmp_path / "run")
    export(tmp_path / "run", "hf", tmp_path / "again")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    for name, weight in second.items():
        torch.testing.assert_close(weight, first[name], atol=0, rtol=0)
    for name in ("source.spm", "target.spm", "vocab.json", "target_vocab.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()
    comparison = import_run(tmp_path / "again", tmp_path / "third")
    assert comparison.texts == (5, 5)

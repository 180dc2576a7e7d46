"""BERT against torch's encoder, the published counts of weights, and the models of Hugging Face transformers."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.models.bert import PUBLISHED_SIZES, Bert, BertConfig, from_published, published_names, to_published
from zhuyi.run_folder import named_weights

CONFIG = BertConfig(
    d_model=15,
    num_heads=3,
    d_ff=22,
    num_layers=3,
    max_len=11,
    vocab_size=23,
    masked_word_head=True,
    pooler=True,
    next_sentence_head=True,
    num_labels=4,
)
REAL = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
SIDES = {"none": None, "right": REAL, "left": REAL.flip(1), "both": REAL & REAL.roll(1, 1)}


def randomised(model: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def random_ids(vocab_size: int, num_segments: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(vocab_size, (2, 7), generator=generator)
    return ids, torch.randint(num_segments, (2, 7), generator=generator)


# The module.


@torch.no_grad()
def torchs(ours: Bert) -> nn.TransformerEncoder:
    c = ours.config
    layer = nn.TransformerEncoderLayer(
        c.d_model, c.num_heads, c.d_ff, 0.0, c.activation, c.norm_epsilon, batch_first=True
    )
    theirs: Any = nn.TransformerEncoder(layer, c.num_layers, enable_nested_tensor=False).eval()
    for copy, own in zip(theirs.layers, ours.encoder_layers, strict=True):
        copy.self_attn.in_proj_weight.copy_(own.self_attention.w_qkv.weight)
        copy.self_attn.in_proj_bias.copy_(own.self_attention.w_qkv.bias)
        copy.self_attn.out_proj.load_state_dict(own.self_attention.w_o.state_dict())
        copy.norm1.load_state_dict(own.self_residual.norm.state_dict())
        copy.norm2.load_state_dict(own.feed_forward_residual.norm.state_dict())
        copy.linear1.load_state_dict(own.feed_forward.w_1.state_dict())
        copy.linear2.load_state_dict(own.feed_forward.w_2.state_dict())
    return theirs


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("norm_epsilon", [1e-12, 0.1])
@torch.no_grad()
def test_is_torchs_encoder_over_normalised_embeddings(norm_epsilon: float, side: str, attention_path: str) -> None:
    model = randomised(Bert(replace(CONFIG, norm_epsilon=norm_epsilon)))
    (ids, segments), mask = random_ids(23, 2), SIDES[side]
    x = model.token_embedding.weight[ids] + model.positions.table[:7] + model.segment_embedding.weight[segments]
    x = F.layer_norm(x, (15,), model.embedding_norm.weight, model.embedding_norm.bias, norm_epsilon)
    expected = torchs(model)(x, src_key_padding_mask=None if mask is None else ~mask)
    real = torch.ones(2, 7, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(model(ids, mask, segments)[real], expected[real], rtol=0, atol=1e-5)


def test_without_segments_all_tokens_are_of_the_first() -> None:
    model = randomised(Bert(CONFIG))
    ids, segments = random_ids(23, 2)
    assert torch.equal(model(ids), model(ids, segments=torch.zeros_like(ids)))
    assert not torch.allclose(model(ids), model(ids, segments=segments))


@torch.no_grad()
def test_the_heads_are_their_formulas() -> None:
    model = randomised(Bert(replace(CONFIG, activation="silu", norm_epsilon=0.01)))
    x = model(random_ids(23, 2)[0])
    head = model.masked_word_head
    y = F.silu(x @ head.transform.weight.T + head.transform.bias)
    y = F.layer_norm(y, (15,), head.norm.weight, head.norm.bias, 0.01)
    torch.testing.assert_close(head(x), y @ model.token_embedding.weight.T + head.bias)
    pooled = torch.tanh(x[:, 0] @ model.pooler.linear.weight.T + model.pooler.linear.bias)
    torch.testing.assert_close(model.pooler(x), pooled)
    follows, classes = model.next_sentence_head, model.classifier.linear
    torch.testing.assert_close(model.next_sentence_head(pooled), pooled @ follows.weight.T + follows.bias)
    torch.testing.assert_close(model.classifier(pooled), pooled @ classes.weight.T + classes.bias)


def test_the_word_heads_table_is_the_embeddings_where_tied() -> None:
    tied, untied = (Bert(replace(CONFIG, tie_embeddings=tie)) for tie in (True, False))
    assert tied.masked_word_head is not None and untied.masked_word_head is not None
    assert tied.masked_word_head.output_projection.weight is tied.token_embedding.weight
    assert untied.masked_word_head.output_projection.weight is not untied.token_embedding.weight


def test_heads_that_were_not_asked_for_are_not_there() -> None:
    model = Bert(BertConfig(d_model=8, num_heads=2, d_ff=6, num_layers=1, vocab_size=5))
    assert model.masked_word_head is model.pooler is model.next_sentence_head is model.classifier is None
    assert not [name for name, _ in model.named_parameters() if "head" in name or "pool" in name or "class" in name]


def test_dropout_falls_on_embeddings_and_on_the_classifier_by_its_own_rate() -> None:
    torch.manual_seed(0)
    ids = torch.arange(7)[None]
    config = replace(CONFIG, dropout=0.0, attention_dropout=0.0, classifier_dropout=0.5)
    model = Bert(config).train()
    assert torch.equal(model(ids), model(ids))
    assert model.classifier is not None
    ones = torch.ones(300, 15)
    assert len(model.classifier(ones).detach().unique(dim=0)) > 100
    model = Bert(replace(config, num_layers=1, dropout=0.5)).train()
    model.encoder_layers = nn.ModuleList()
    assert int((model(ids) == 0).sum()) > 20  # of the embeddings themselves


def test_the_pooler_reads_the_first_token_or_the_mean_of_the_real_ones() -> None:
    model = randomised(Bert(replace(CONFIG, pooling="mean", pooler_activation="relu")))
    x = torch.randn(2, 7, 15)
    means = torch.stack([x[0].mean(dim=0), x[1, :4].mean(dim=0)])
    expected = torch.relu(means @ model.pooler.linear.weight.T + model.pooler.linear.bias)
    torch.testing.assert_close(model.pooler(x, REAL), expected)
    torch.testing.assert_close(model.pooler(x[:1]), expected[:1])
    first = randomised(Bert(CONFIG)).pooler
    assert torch.equal(first(x, REAL), first(x[:, :1]))


def test_weights_begin_narrow_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    model = Bert(replace(CONFIG, d_model=64, num_heads=2, d_ff=80, vocab_size=200))
    for name, parameter in named_weights(model).items():
        if parameter.dim() > 1:
            assert float(parameter.abs().max()) <= 0.04, name
            if parameter.numel() > 1000:
                assert abs(float(parameter.std()) / 0.02 - 0.88) < 0.03, name  # the tails are cut off
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("norm.weight")))), name


# The published models' weights, with the pooler and a vocabulary of 30,522, as transformers counts them.
COUNTS = {
    "tiny": 4_385_920,
    "mini": 11_170_560,
    "small": 28_763_648,
    "medium": 41_373_184,
    "base": 109_482_240,
    "large": 335_141_888,
    "distil-base": 66_362_880,
}


@pytest.mark.parametrize("size", PUBLISHED_SIZES)
def test_sizes_have_the_published_number_of_weights(size: str) -> None:
    with torch.device("meta"):
        model = Bert(replace(PUBLISHED_SIZES[size], vocab_size=30_522, pooler=not size.startswith("distil")))
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[size]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 14, "num_heads": 3}, "d_model = 14 is not divisible by num_heads = 3"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"num_labels": -1}, "num_labels must be at least 0, got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be above 0, got 0.0"),
        ({"pooler": False, "next_sentence_head": False}, "num_labels = 4 classifies the pooler's output"),
        ({"pooler": False}, "next_sentence_head classifies the pooler's output: set pooler = true"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **wrong)


# Published weights.


def test_there_and_back_the_weights_are_the_same() -> None:
    for config in (CONFIG, replace(CONFIG, tie_embeddings=False)):
        weights = named_weights(randomised(Bert(config)))
        again = from_published(to_published(weights, "bert"), weights, "bert")
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_name_stands_for_one_or_three() -> None:
    assert published_names("encoder_layers.7.self_attention.w_qkv.bias", "bert") == (
        "encoder.layer.7.attention.self.query.bias",
        "encoder.layer.7.attention.self.key.bias",
        "encoder.layer.7.attention.self.value.bias",
    )
    assert published_names("embedding_norm.bias", "distilbert") == ("embeddings.LayerNorm.bias",)


def test_older_files_are_read() -> None:
    """Those of before safetensors: `gamma` and `beta`, positions as a weight, and a tied table written twice."""
    weights = named_weights(randomised(Bert(CONFIG)))
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in to_published(weights, "bert").items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(11)[None]
    old["cls.predictions.decoder.weight"] = weights["token_embedding.weight"].clone()
    again = from_published(old, weights, "bert")
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_nothing_is_silently_left_out() -> None:
    weights = named_weights(randomised(Bert(CONFIG)))
    theirs = to_published(weights, "bert")
    with pytest.raises(ValueError, match=r"has no encoder.layer.1.attention.self.key.bias, which is encoder_layers.1"):
        from_published({k: v for k, v in theirs.items() if "1.attention.self.key.bias" not in k}, weights, "bert")
    with pytest.raises(ValueError, match=r"has embeddings.extra, for which the model has no place"):
        from_published(theirs | {"bert.embeddings.extra": torch.zeros(1)}, weights, "bert")
    with pytest.raises(ValueError, match=r"has cls.predictions.decoder.weight, for which"):
        table = torch.zeros_like(weights["token_embedding.weight"])
        from_published(theirs | {"cls.predictions.decoder.weight": table}, weights, "bert")
    body = {name: weight for name, weight in weights.items() if not name.startswith("classifier")}
    with pytest.raises(ValueError, match=r"has classifier.bias, for which"):
        from_published(theirs, body, "bert")


@dataclass(frozen=True)
class Peer:
    """A model of transformers, and what of its config differs from one base; `ours` is our config's difference."""

    kind: str
    theirs: dict[str, Any]
    ours: dict[str, Any]

    @property
    def family(self) -> str:
        return "distilbert" if self.kind.startswith("Distil") else "bert"


PEERS = {
    "encoder": Peer("BertModel", {}, {"pooler": True}),
    "encoder-odd": Peer(
        "BertModel",
        {"hidden_size": 21, "num_attention_heads": 7, "vocab_size": 37, "type_vocab_size": 3, "layer_norm_eps": 1e-3},
        {"d_model": 21, "num_heads": 7, "vocab_size": 37, "num_segments": 3, "norm_epsilon": 1e-3, "pooler": True},
    ),
    "words": Peer("BertForMaskedLM", {}, {"masked_word_head": True}),
    "words-untied": Peer(
        "BertForMaskedLM",
        {"tie_word_embeddings": False, "hidden_act": "relu", "intermediate_size": 7},
        {"masked_word_head": True, "tie_embeddings": False, "activation": "relu", "d_ff": 7},
    ),
    "words-tanh": Peer(
        "BertForMaskedLM", {"hidden_act": "gelu_new"}, {"masked_word_head": True, "activation": "gelu-tanh"}
    ),
    "pre-training": Peer(
        "BertForPreTraining",
        {"hidden_act": "silu"},
        {"masked_word_head": True, "pooler": True, "next_sentence_head": True, "activation": "silu"},
    ),
    "classes": Peer("BertForSequenceClassification", {"num_labels": 5}, {"pooler": True, "num_labels": 5}),
    "next-sentence": Peer("BertForNextSentencePrediction", {}, {"pooler": True, "next_sentence_head": True}),
    "distil": Peer("DistilBertModel", {}, {}),
    "distil-words": Peer("DistilBertForMaskedLM", {"vocab_size": 41}, {"masked_word_head": True, "vocab_size": 41}),
    "distil-words-untied": Peer(
        "DistilBertForMaskedLM",
        {"tie_word_embeddings": False, "activation": "relu", "sinusoidal_pos_embds": True},
        {"masked_word_head": True, "tie_embeddings": False, "activation": "relu"},
    ),
    "distil-classes": Peer(
        "DistilBertForSequenceClassification",
        {"num_labels": 3},
        {"pooler": True, "pooler_activation": "relu", "num_labels": 3},
    ),
}


def their_model(peer: Peer) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    if peer.family == "bert":
        sizes = {"hidden_size": 15, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 22}
        config = transformers.BertConfig(**{"vocab_size": 29, "max_position_embeddings": 11, **sizes, **peer.theirs})
    else:
        sizes = {"dim": 15, "n_heads": 3, "n_layers": 2, "hidden_dim": 22}
        config = transformers.DistilBertConfig(
            **{"vocab_size": 29, "max_position_embeddings": 11, **sizes, **peer.theirs}
        )
    return randomised(getattr(transformers, peer.kind)(config))


def our_config(peer: Peer) -> BertConfig:
    segments = {"num_segments": 0} if peer.family == "distilbert" else {}
    sizes = {"d_model": 15, "num_heads": 3, "num_layers": 2, "d_ff": 22, "max_len": 11, "vocab_size": 29}
    return BertConfig(**(sizes | segments | peer.ours))


def outputs_of_both(ours: Bert, theirs: Any, ids: Tensor, segments: Tensor, mask: Tensor | None) -> list[Any]:
    """Pairs of the same thing, of ours and theirs; hidden states at real positions."""
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    inputs = {"input_ids": ids, "attention_mask": None if mask is None else mask.long()}
    if ours.config.num_segments:
        inputs["token_type_ids"] = segments
    output = theirs(**inputs, output_hidden_states=True)
    x = ours(ids, mask, segments)
    last = output.hidden_states[-1] if output.hidden_states is not None else output.last_hidden_state
    pairs = [(x[real], last[real])]
    if ours.masked_word_head is not None:
        name = "prediction_logits" if ours.next_sentence_head is not None else "logits"
        pairs.append((ours.masked_word_head(x)[real], getattr(output, name)[real]))
    if ours.pooler is not None:
        pooled = ours.pooler(x)
        if ours.classifier is not None:
            pairs.append((ours.classifier(pooled), output.logits))
        elif ours.next_sentence_head is not None:
            name = "logits" if ours.masked_word_head is None else "seq_relationship_logits"
            pairs.append((ours.next_sentence_head(pooled), getattr(output, name)))
        else:
            pairs.append((pooled, output.pooler_output))
    return pairs


@pytest.mark.peers
@pytest.mark.parametrize("variant", PEERS)
@torch.no_grad()
def test_computes_what_transformers_does(variant: str) -> None:
    peer = PEERS[variant]
    theirs, ours = their_model(peer), Bert(our_config(peer)).eval()
    weights = from_published(theirs.state_dict(), named_weights(ours), peer.family)
    for name, parameter in ours.named_parameters():
        parameter.copy_(weights[name])
    for mask in SIDES.values():
        ids, segments = random_ids(ours.config.vocab_size, max(1, ours.config.num_segments))
        for found, expected in outputs_of_both(ours, theirs, ids, segments, mask):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
            assert expected.std() > 0.02


@pytest.mark.peers
@pytest.mark.parametrize("variant", PEERS)
def test_transformers_takes_our_weights(variant: str) -> None:
    peer = PEERS[variant]
    theirs, ours = their_model(peer), randomised(Bert(our_config(peer)))
    missing, unexpected = theirs.load_state_dict(to_published(named_weights(ours), peer.family), strict=False)
    assert not unexpected
    assert set(missing) <= {"cls.predictions.decoder.weight", "vocab_projector.weight"}  # the tied table
    again = from_published(theirs.state_dict(), named_weights(ours), peer.family)
    assert all(torch.equal(again[name], weight) for name, weight in named_weights(ours).items())

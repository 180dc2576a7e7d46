"""A tiny model of each architecture, and the inputs and the loss that it is used with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings
from tests.browser import browser, complaints, page
from torch import Tensor, nn

from zhuyi.models import MODELS
from zhuyi.models.bert import BertConfig
from zhuyi.models.gman import GmanConfig
from zhuyi.models.gpt import GptConfig
from zhuyi.models.seq2seq import Seq2SeqConfig
from zhuyi.models.t5 import T5Config
from zhuyi.models.transformer import TransformerConfig
from zhuyi.models.vit import VitConfig
from zhuyi.models.whisper import WhisperConfig
from zhuyi.nn import attention
from zhuyi.tasks.image_classification import ImageClassificationTask
from zhuyi.tasks.language_modelling import LanguageModellingTask, TextBatch
from zhuyi.tasks.pair_data import PairBatch
from zhuyi.tasks.picture_data import PictureBatch
from zhuyi.tasks.translation import TranslationTask

__all__ = ["browser", "complaints", "page"]  # fixtures of all tests

# No deadline: nothing is asserted on a time. The same examples for everybody: a change is judged by what it breaks.
# To look for new ones: pytest --hypothesis-profile=explore
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")


@dataclass(frozen=True)
class Tiny:
    """Small configs of one architecture, by what they vary.

    Args:   inputs: the keyword arguments of the model's forward: some rows, padded on the right to unequal lengths.
            loss: the sum that training minimises, of a model and such inputs.
    """

    configs: dict[str, Any]
    inputs: Callable[[Any], dict[str, Tensor]]
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]


def padded_ids(lengths: list[int], vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random ids, also behind the end of a row: padding is what the mask says and not an id."""
    ids = torch.randint(vocab_size, (len(lengths), max(lengths)), generator=generator)
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def padded_pairs(source_vocab_size: int, target_vocab_size: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    src, src_mask = padded_ids([7, 3, 1], source_vocab_size, generator)
    tgt, tgt_mask = padded_ids([4, 9, 2], target_vocab_size, generator)
    return {"src": src, "tgt": tgt, "src_mask": src_mask, "tgt_mask": tgt_mask}


def text_to_text_inputs(config: Any) -> dict[str, Tensor]:
    return padded_pairs(config.source_vocab_size, config.target_vocab_size)


def translation_loss(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    task = object.__new__(TranslationTask)  # the loss alone, which needs no data
    expected = inputs["tgt"].roll(-1, dims=1)
    batch = PairBatch(inputs["src"], inputs["src_mask"], inputs["tgt"], expected, inputs["tgt_mask"])
    return task.loss(model, batch, smoothing=0.1)[0]


def encoder_inputs(config: Any) -> dict[str, Tensor]:
    ids, mask = padded_ids([5, 9, 1], config.vocab_size, torch.Generator().manual_seed(2))
    return {"ids": ids, "mask": mask}


def next_token_loss(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    task = object.__new__(LanguageModellingTask)  # the loss alone, which needs no data
    batch = TextBatch(inputs["ids"], inputs["ids"].roll(-1, dims=1), inputs["mask"])
    return task.loss(model, batch, smoothing=0.1)[0]


def heads_loss(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Of whatever heads the encoder has, each against labels of its own."""
    x = model(**inputs)
    logits = [model.masked_word_head(x[inputs["mask"]])] if model.masked_word_head is not None else []
    if model.pooler is not None:
        heads = [head for head in (model.next_sentence_head, model.classifier) if head is not None]
        logits += [head(model.pooler(x)) for head in heads]
    losses = [F.cross_entropy(each, torch.arange(len(each)) % each.shape[-1]) for each in logits]
    return torch.stack(losses).sum()


def speech_inputs(config: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(3, config.num_mel_bins, config.frames, generator=generator, dtype=torch.float64)
    tgt, tgt_mask = padded_ids([4, 9, 2], config.vocab_size, generator)
    return {"features": features, "tgt": tgt, "tgt_mask": tgt_mask}


def speech_loss(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    logits, mask = model(**inputs), inputs["tgt_mask"]
    return F.cross_entropy(logits[mask], inputs["tgt"].roll(-1, dims=1)[mask], reduction="sum")


def picture_inputs(config: Any) -> dict[str, Tensor]:
    size = config.image_size
    images = torch.randn(3, config.num_channels, size, size, generator=torch.Generator().manual_seed(2))
    return {"images": images.double()}


def label_loss(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    task = object.__new__(ImageClassificationTask)  # the loss alone, which needs no data
    batch = PictureBatch(inputs["images"], torch.arange(3), torch.tensor([0.7, 1.0, 0.2]))
    return task.loss(model, batch, smoothing=0.1)[0]


def forecasting_inputs(config: Any) -> dict[str, Tensor]:
    """Five steps of history and four to come, of three places in a week."""
    generator = torch.Generator().manual_seed(2)
    history = config.mean + config.std * torch.randn(3, 5, config.num_sensors, generator=generator, dtype=torch.float64)
    slots = torch.tensor([[2], [5], [9]]) + torch.arange(9)
    days = torch.tensor([[3], [4], [6]]) + slots // config.slots_a_day
    return {"history": history, "times": torch.stack((days % 7, slots % config.slots_a_day), dim=-1)}


def forecasting_loss(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Against random values around what was measured, which no forecast is always above."""
    generator = torch.Generator().manual_seed(3)
    forecast = model(**inputs)
    return (forecast - torch.randn(forecast.shape, generator=generator, dtype=torch.float64)).abs().sum()


# Sizes pairwise different, so that no dimension can stand in for another: heads and head_dim are primes.
TINY: dict[str, Tiny] = {
    "transformer": Tiny(
        {
            "paper": TransformerConfig(
                d_model=14, num_heads=2, d_ff=22, num_encoder_layers=3, num_decoder_layers=4,
                max_len=41, source_vocab_size=29, target_vocab_size=29,
            ),
            "norm-first": TransformerConfig(
                d_model=15, num_heads=3, d_ff=19, num_encoder_layers=2, num_decoder_layers=1, activation="gelu",
                norm_first=True, positions="learned", tie_embeddings="decoder",
                max_len=43, source_vocab_size=23, target_vocab_size=31,
            ),
            "layerwise": TransformerConfig(
                d_model=14, num_heads=3, head_dim=5, d_ff=17, num_encoder_layers=2, num_decoder_layers=2,
                activation="silu", norm_first=True, memory="layerwise", tie_embeddings="none",
                scale_embeddings=False, output_bias=True,
                max_len=47, source_vocab_size=19, target_vocab_size=23,
            ),
        },
        text_to_text_inputs,
        translation_loss,
    ),
    "seq2seq": Tiny(
        {
            "bahdanau": Seq2SeqConfig(
                d_model=14, d_embedding=10, d_encoder=9, max_len=41, source_vocab_size=29, target_vocab_size=31,
            ),
            "bahdanau-lstm": Seq2SeqConfig(
                cell="lstm", d_model=13, d_embedding=7, d_encoder=11, num_encoder_layers=3, num_decoder_layers=2,
                direction="backward", tie_embeddings="decoder", max_len=43, source_vocab_size=23, target_vocab_size=29,
            ),
            "luong-dot": Seq2SeqConfig(
                attention="dot", d_model=14, num_encoder_layers=2, num_decoder_layers=2, tie_embeddings="three-way",
                max_len=47, source_vocab_size=23, target_vocab_size=23,
            ),
            "luong-general": Seq2SeqConfig(
                cell="lstm", attention="general", d_model=13, num_encoder_layers=2, num_decoder_layers=2,
                direction="backward", input_feeding=True, max_len=41, source_vocab_size=19, target_vocab_size=29,
            ),
            "sutskever": Seq2SeqConfig(
                cell="rnn", attention="none", d_model=13, num_encoder_layers=2, num_decoder_layers=2,
                direction="forward", max_len=43, source_vocab_size=31, target_vocab_size=17,
            ),
        },
        text_to_text_inputs,
        translation_loss,
    ),
    "bert": Tiny(
        {
            "masked-words": BertConfig(
                d_model=14, num_heads=2, d_ff=22, num_layers=3, max_len=41, vocab_size=29, masked_word_head=True,
            ),
            "classes": BertConfig(
                d_model=15, num_heads=3, d_ff=19, num_layers=2, activation="relu", max_len=43, vocab_size=23,
                num_segments=0, pooler=True, pooler_activation="relu", num_labels=4,
            ),
            "pre-training": BertConfig(
                d_model=22, num_heads=2, d_ff=17, num_layers=1, activation="gelu-tanh", max_len=47, vocab_size=31,
                num_segments=3, masked_word_head=True, tie_embeddings=False, pooler=True, next_sentence_head=True,
            ),
        },
        encoder_inputs,
        heads_loss,
    ),
    "gpt": Tiny(
        {
            "gpt-2": GptConfig(d_model=14, num_heads=2, num_layers=3, max_len=41, vocab_size=29),
            "untied": GptConfig(
                d_model=15, num_heads=3, d_ff=22, num_layers=2, activation="relu", norm_epsilon=1e-3, bias=False,
                tie_embeddings=False, max_len=43, vocab_size=23,
            ),
        },
        encoder_inputs,
        next_token_loss,
    ),
    "gman": Tiny(
        {
            "paper": GmanConfig(
                d_model=10, num_heads=2, num_layers=2, num_sensors=7, slots_a_day=12, d_embedding=6, mean=0.3, std=1.7,
            ),
            "code": GmanConfig(
                d_model=15, num_heads=3, num_layers=1, num_sensors=11, slots_a_day=14, embedding="given",
                d_embedding=4, days="workday", causal=False, values_read_embedding=True, output_layers=True,
                gaps="value", mean=0.1, std=1.3,
            ),
            "groups": GmanConfig(
                d_model=14, num_heads=2, num_layers=1, num_sensors=11, num_groups=3, slots_a_day=13, days="none",
                embedding="learned", mean=0.2, std=1.9,
            ),
        },
        forecasting_inputs,
        forecasting_loss,
    ),
    "t5": Tiny(
        {
            "plain": T5Config(
                d_model=14, num_heads=2, head_dim=5, d_ff=22, num_encoder_layers=3, num_decoder_layers=4,
                num_buckets=9, max_distance=13, max_len=41, vocab_size=29,
            ),
            "gated": T5Config(
                d_model=15, num_heads=3, head_dim=7, d_ff=19, num_encoder_layers=2, num_decoder_layers=1,
                activation="gelu-tanh", gated=True, tie_embeddings=False,
                num_buckets=6, max_distance=8, max_len=43, vocab_size=31,
            ),
        },
        lambda config: padded_pairs(config.vocab_size, config.vocab_size),
        translation_loss,
    ),
    "whisper": Tiny(
        {
            "tiny": WhisperConfig(
                d_model=14, num_heads=2, d_ff=22, num_encoder_layers=3, num_decoder_layers=4, num_mel_bins=5,
                window_seconds=0.26, max_len=41, vocab_size=29,
            ),
            "half": WhisperConfig(
                d_model=30, num_heads=3, num_encoder_layers=2, num_decoder_layers=1, activation="relu", num_mel_bins=7,
                window_seconds=0.38, half_positions=True, max_len=43, vocab_size=31,
            ),
        },
        speech_inputs,
        speech_loss,
    ),
    "vit": Tiny(
        {
            "class": VitConfig(
                patch_size=3, d_model=14, num_heads=2, d_ff=22, num_layers=3, stochastic_depth=0.1, image_size=12,
                num_channels=1, num_labels=5,
            ),
            "mean": VitConfig(
                patch_size=2, d_model=15, num_heads=3, d_ff=19, num_layers=2, activation="relu", norm_epsilon=1e-3,
                pooling="mean", d_pooler=8, pooler_activation="gelu", image_size=6, num_channels=3, num_labels=4,
            ),
            "distilled": VitConfig(
                patch_size=4, d_model=22, num_heads=2, d_ff=17, num_layers=1, distillation_token=True,
                distillation_head=True, image_size=8, num_channels=3, num_labels=7,
            ),
        },
        picture_inputs,
        label_loss,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One tiny model, in float64 so that a rounding error cannot hide a mistake, with its inputs."""

    name: str
    config: Any
    model: Any
    inputs: dict[str, Tensor]
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]


def build(name: str, config: Any, *, seed: int = 3) -> nn.Module:
    """A model whose parameters are all random, those too that begin as zeros or ones."""
    torch.manual_seed(seed)
    model = MODELS[name].module(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


@pytest.fixture(params=[f"{name}:{variant}" for name, tiny in TINY.items() for variant in tiny.configs])
def case(request: pytest.FixtureRequest) -> Case:
    name, variant = request.param.split(":")
    tiny = TINY[name]
    config = tiny.configs[variant]
    return Case(name, config, build(name, config), tiny.inputs(config), tiny.loss)


@pytest.fixture
def build_model() -> Callable[..., nn.Module]:
    """`build`, for tests that need a config of their own."""
    return build


@pytest.fixture(params=["plain", "fused"])
def attention_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of attend's two paths is taken where no weights are asked for, whatever the size."""
    monkeypatch.setattr(attention, "PLAIN_PATH_MAX_LOGITS", 0 if request.param == "fused" else 10**9)
    return request.param


@pytest.fixture
def tiny_models() -> dict[str, Tiny]:
    return TINY

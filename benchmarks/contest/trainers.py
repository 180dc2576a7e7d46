"""One trainer's process: builds the model of a shape in its own library and takes training steps.

    python -m contest.trainers TOOL -

Every tool gets the same words, drops out what the paper says (the sum of embeddings and positions, and what a sublayer
gives), smooths labels, clips the gradients' norm at 1 and moves the weights by AdamW.
"""

import contextlib
import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.worker import Machine, durations, serve
from contest.worker import answer as answer_others

PAD_ID, BOS_ID, EOS_ID, FIRST_WORD_ID = 0, 1, 2, 4
SMOOTHING, LEARNING_RATE, CLIP_NORM = 0.1, 1e-4, 1.0


@dataclass(frozen=True)
class Shape:
    """A model's sizes, with as many layers on both sides and one table, and its batch: `length` tokens on both sides.

    Args: length: with the end sign.
    """

    d_model: int
    num_heads: int
    d_ff: int
    num_layers: int
    vocab_size: int
    dropout: float
    batch: int
    length: int

    def words(self) -> tuple[Tensor, Tensor]:
        """Source and target words, without signs; the same in every process (B, length - 1)."""
        rng = random.Random(1)
        rows = [
            [rng.randrange(FIRST_WORD_ID, self.vocab_size) for _ in range(self.length - 1)]
            for _ in range(2 * self.batch)
        ]
        return torch.tensor(rows[::2]), torch.tensor(rows[1::2])


@dataclass(frozen=True)
class Trainer:
    """One step, which returns its loss a token, and how many parameters it moves."""

    step: Callable[[], float]
    parameters: int


def between(words: Tensor, first: int | None, last: int | None) -> Tensor:
    """Words with a sign before and behind them, where one is given."""

    def column(sign: int | None) -> list[Tensor]:
        return [] if sign is None else [words.new_full((len(words), 1), sign)]

    return torch.cat([*column(first), words, *column(last)], dim=1)


def count(model: nn.Module) -> int:
    """The parameters that training moves."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def zhuyi_config(shape: Shape) -> Any:
    """The shape as zhuyi's model has it."""
    from zhuyi.models.transformer import TransformerConfig

    return TransformerConfig(
        d_model=shape.d_model,
        num_heads=shape.num_heads,
        d_ff=shape.d_ff,
        num_encoder_layers=shape.num_layers,
        num_decoder_layers=shape.num_layers,
        dropout=shape.dropout,
        source_vocab_size=shape.vocab_size,
        target_vocab_size=shape.vocab_size,
    )


def zhuyi(shape: Shape, setting: dict[str, Any]) -> Trainer:
    """A step as zhuyi's loop takes it."""
    from zhuyi.config import TrainConfig
    from zhuyi.machine import keep_freed_memory
    from zhuyi.models.transformer import Transformer
    from zhuyi.nn.loss import projected_cross_entropy
    from zhuyi.training.optimizers import MasterAdam

    keep_freed_memory()
    model = Transformer(zhuyi_config(shape))
    compute = copy.deepcopy(model).bfloat16() if setting["precision"] == "bfloat16" else model
    optimizer = MasterAdam(model, compute, TrainConfig(max_steps=1))
    source, target = shape.words()
    src, tgt, expected = between(source, None, EOS_ID), between(target, BOS_ID, None), between(target, None, EOS_ID)
    mask = torch.ones_like(src, dtype=torch.bool)

    def step() -> float:
        states = compute.decoder_states(src, tgt, mask, mask)[mask]
        weight = compute.output_projection.weight
        loss, _ = projected_cross_entropy(states, weight, expected[mask], smoothing=SMOOTHING)
        loss.backward()
        optimizer.step(LEARNING_RATE, 1 / len(states), CLIP_NORM)
        return float(loss.detach()) / len(states)

    return Trainer(step, count(model))


class TorchTransformer(nn.Module):
    """What a user of torch writes: its nn.Transformer between an embedding and a tied projection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d_model, rate = shape.d_model, shape.dropout
        self.embedding = nn.Embedding(shape.vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.dropout = nn.Dropout(rate)
        layers = shape.num_layers
        self.transformer = nn.Transformer(
            d_model, shape.num_heads, layers, layers, shape.d_ff, dropout=rate, batch_first=True
        )
        for module in self.transformer.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout.p = 0.0  # the one inside the feed-forward network
        self.register_buffer("positions", sinusoids(shape.length, d_model))
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(shape.length))

    def forward(self, src: Tensor, tgt: Tensor, padding: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        hidden = self.transformer(
            self._embed(src),
            self._embed(tgt),
            tgt_mask=self.causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return F.linear(hidden, self.embedding.weight)

    def _embed(self, ids: Tensor) -> Tensor:
        d_model = self.embedding.embedding_dim
        return self.dropout(self.embedding(ids) * math.sqrt(d_model) + self.positions)


def sinusoids(length: int, d_model: int) -> Tensor:
    """The paper's positions."""
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def torch_transformer(shape: Shape, setting: dict[str, Any]) -> Trainer:
    """A step of the model above."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = TorchTransformer(shape)
    source, target = shape.words()
    src, tgt = between(source, None, EOS_ID), between(target, BOS_ID, None)
    padding = torch.zeros_like(src, dtype=torch.bool)

    def logits() -> Tensor:
        plain = sdpa_kernel(SDPBackend.MATH) if setting["attention"] == "plain" else contextlib.nullcontext()
        with plain:
            return model(src, tgt, padding)

    return Trainer(usual_step(model, logits, between(target, None, EOS_ID), setting["precision"]), count(model))


def hugging_face(shape: Shape, setting: dict[str, Any]) -> Trainer:
    """A step of Marian's model with random weights."""
    from transformers import MarianConfig, MarianMTModel

    config = MarianConfig(
        vocab_size=shape.vocab_size,
        d_model=shape.d_model,
        encoder_layers=shape.num_layers,
        decoder_layers=shape.num_layers,
        encoder_attention_heads=shape.num_heads,
        decoder_attention_heads=shape.num_heads,
        encoder_ffn_dim=shape.d_ff,
        decoder_ffn_dim=shape.d_ff,
        max_position_embeddings=shape.length,
        activation_function="relu",
        dropout=shape.dropout,
        scale_embedding=True,
        init_std=shape.d_model**-0.5,
        use_cache=False,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        forced_eos_token_id=None,
        decoder_start_token_id=BOS_ID,
        attn_implementation={"plain": "eager", "fused": "sdpa"}[setting["attention"]],
    )
    model = MarianMTModel(config).train()
    source, target = shape.words()
    src, tgt = between(source, None, EOS_ID), between(target, BOS_ID, None)
    real = torch.ones_like(src)

    def logits() -> Tensor:
        return model(input_ids=src, attention_mask=real, decoder_input_ids=tgt, decoder_attention_mask=real).logits

    return Trainer(usual_step(model, logits, between(target, None, EOS_ID), setting["precision"]), count(model))


def usual_step(
    model: nn.Module, logits: Callable[[], Tensor], expected: Tensor, precision: str, smoothing: float = SMOOTHING
) -> Callable[[], float]:
    """The step of a plain training loop, in bfloat16 by autocast."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(logits().flatten(0, 1), expected.flatten(), label_smoothing=smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def joeynmt(shape: Shape, setting: dict[str, Any]) -> Trainer:
    """JoeyNMT's own `_train_step`, and the rest of its loop's step around it."""
    from joeynmt.batch import Batch
    from joeynmt.builders import build_gradient_clipper, build_optimizer
    from joeynmt.model import build_model
    from joeynmt.training import TrainManager
    from joeynmt.transformer_layers import MultiHeadedAttention, PositionwiseFeedForward
    from joeynmt.vocabulary import Vocabulary

    signs = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "sep_token": None}
    ids = {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3}
    words = [str(i) for i in range(FIRST_WORD_ID, shape.vocab_size)]
    vocabulary = Vocabulary(words, SimpleNamespace(**signs, **ids, lang_tags=[]))
    side = {
        "type": "transformer",
        "num_layers": shape.num_layers,
        "num_heads": shape.num_heads,
        "embeddings": {"embedding_dim": shape.d_model, "scale": True, "dropout": shape.dropout},
        "hidden_size": shape.d_model,
        "ff_size": shape.d_ff,
        "dropout": shape.dropout,
        "layer_norm": "post",
    }
    own = {"tied_embeddings": True, "tied_softmax": True, "embed_initializer": "normal"}
    own["embed_init_weight"] = shape.d_model**-0.5
    model = build_model({"encoder": side, "decoder": side, **own}, vocabulary, vocabulary)
    model.loss_function = ("crossentropy", SMOOTHING)
    for module in model.modules():
        if isinstance(module, MultiHeadedAttention):
            module.dropout.p = 0.0
        elif isinstance(module, PositionwiseFeedForward):
            module.pwff_layer[2].p = 0.0  # the one inside the network
    settings = {"optimizer": "adamw", "learning_rate": LEARNING_RATE, "adam_betas": (0.9, 0.98)}
    settings |= {"clip_grad_val": None, "clip_grad_norm": CLIP_NORM}
    optimizer, clip = build_optimizer(settings, model.parameters()), build_gradient_clipper(settings)
    autocast = {"device_type": "cpu", "enabled": setting["precision"] == "bfloat16", "dtype": torch.bfloat16}
    arguments = SimpleNamespace(normalization="tokens", batch_multiplier=1)
    manager = SimpleNamespace(model=model, autocast=autocast, args=arguments, n_gpu=0, scaler=None)
    source, target = shape.words()
    src, trg = between(source, None, ids["eos_id"]), between(target, ids["bos_id"], ids["eos_id"])
    lengths, rows = torch.full((len(src),), shape.length), torch.arange(len(src))
    cpu = torch.device("cpu")
    batch = Batch(src, lengths, None, trg, None, rows, cpu, pad_index=ids["pad_id"], eos_index=ids["eos_id"])

    def step() -> float:
        loss, _ = TrainManager._train_step(manager, batch)
        clip(parameters=model.parameters())
        optimizer.step()
        model.zero_grad()
        return loss

    return Trainer(step, count(model))


BUILDERS: dict[str, Callable[[Shape, dict[str, Any]], Trainer]] = {
    "zhuyi": zhuyi,
    "torch nn.Transformer": torch_transformer,
    "Hugging Face": hugging_face,
    "JoeyNMT": joeynmt,
}


class Steps:
    """One tool's trainers, by shape and setting.

    Args:   build: makes one of a `shape` and a setting.
    """

    def __init__(self, build: Callable[[Any, dict[str, Any]], Trainer], shape: type[Any] = Shape) -> None:
        self._build, self._shape = build, shape
        self._trainers: dict[str, Trainer] = {}

    def train(self, shape: dict[str, Any], setting: dict[str, Any], seconds: float, *, warm: bool) -> dict[str, Any]:
        """Seconds of each step, repeated for `seconds`; when warming up, the parameters and the first loss too."""
        key = repr((shape, setting))
        found = []
        if key not in self._trainers:
            torch.manual_seed(0)
            self._trainers[key] = self._build(self._shape(**shape), setting)
        trainer = self._trainers[key]
        if warm:
            found = [trainer.parameters, trainer.step()]
            trainer.step()  # the optimizer has its moments now
        return {"seconds": durations(trainer.step, seconds), "found": found}


def answer(tool: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Do one command."""
    if command["do"] == "train":
        del command["do"]
        return tool.train(**command)
    return answer_others(tool, command)


TOOLS: dict[str, Callable[[str], Any]] = {
    **{name: lambda _, build=build: Steps(build) for name, build in BUILDERS.items()},
    "machine": Machine,
}

if __name__ == "__main__":
    serve(TOOLS, answer)

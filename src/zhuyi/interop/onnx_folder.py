"""A model without a memory as an ONNX file, for any runtime that reads such: an encoder, or a GPT's logits."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zhuyi.errors import InputError
from zhuyi.interop.probe import Comparison, checked_difference

LIBRARY = "onnxruntime"


class _Encoder(nn.Module):
    """The encoder as a function of integer tensors, with what its head says."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        model, real = self.model, attention_mask.bool()
        x = model(input_ids, real, token_type_ids)
        if model.classifier is not None:
            return x, model.classifier(model.pooler(x, real))
        return (x,) if model.masked_word_head is None else (x, model.masked_word_head(x))


class _Decoder(nn.Module):
    """The decoder as a function of integer tensors: all positions at once, without a cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        return (self.model(input_ids, attention_mask.bool()),)


@dataclass(frozen=True)
class Graph:
    """What becomes a file: a module of named integer tensors, the names of what it gives, and its README."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    readme: str


def write_onnx(predictor: Any, folder: Path, published: Path | None = None) -> Comparison:
    """Write `model.onnx` of any batch and length, and the tokenizer; checked by onnxruntime where that is installed.

    Args:   published: the tokenizer's files that an imported run keeps.
    Returns: how what onnxruntime computes compares with the run.
    Raises: InputError: ONNX has no way to run such a model, or the package that writes is not installed.
            ArithmeticError: onnxruntime computes something else.
    """
    config = predictor.config.model
    if config.name not in GRAPHS:
        raise InputError(
            f"cannot export to onnx: encoders and GPTs are written, this is a {config.name}; try --to hf or ctranslate2"
        )
    try:
        import onnxscript
    except ImportError as error:
        raise InputError(f'export to onnx needs the package {error.name}: pip install "zhuyi[export]"') from None
    assert onnxscript is not None
    graph = GRAPHS[config.name](predictor)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=config.max_len)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of packages that nobody asked for
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module,
            _example(graph, config.vocab_size, 2, 7),
            dynamo=True,
            verbose=False,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes={name: {0: batch, 1: length} for name in graph.inputs},
        )
    assert program is not None
    program.save(str(folder / "model.onnx"))
    comparison = _check(folder / "model.onnx", graph, config)
    if published is not None:
        shutil.copytree(published, folder, dirs_exist_ok=True)
    else:
        values = json.dumps(predictor.tokenizer.library_values(), ensure_ascii=False, indent=1)
        (folder / "tokenizer.json").write_text(values + "\n", encoding="utf-8")
    (folder / "README.md").write_text(graph.readme, encoding="utf-8")
    return comparison


def _encoder(predictor: Any) -> Graph:
    config = predictor.config.model
    has_head = config.num_labels or config.masked_word_head
    outputs = ("last_hidden_state", *(("logits",) if has_head else ()))
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    return Graph(_Encoder(predictor.model), inputs, outputs, ENCODER.replace("OUTPUTS", " and ".join(outputs)))


def _decoder(predictor: Any) -> Graph:
    return Graph(_Decoder(predictor.model), ("input_ids", "attention_mask"), ("logits",), DECODER)


def _example(graph: Graph, vocab_size: int, rows: int, length: int) -> tuple[Tensor, ...]:
    """As many tensors as the graph reads: ids, where they are real, and zeros for segments."""
    ids = torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(length) < torch.tensor([length, *[length // 2 + 1] * (rows - 1)])[:, None]).long()
    return (ids, mask, torch.zeros_like(ids))[: len(graph.inputs)]


def _check(path: Path, graph: Graph, config: Any) -> Comparison:
    """Compare with other shapes than it was written with.

    Raises: ArithmeticError: the numbers differ.
    """
    try:
        import onnxruntime
    except ImportError:
        return Comparison(reason="it is not installed", library=LIBRARY)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    difference = 0.0
    for rows, length in ((1, config.max_len), (3, 5)):
        inputs = _example(graph, config.vocab_size, rows, length)
        found = session.run(None, {name: x.numpy() for name, x in zip(graph.inputs, inputs, strict=True)})
        with torch.no_grad():
            expected = graph.module(*inputs)
        for ours, theirs in zip(expected, found, strict=True):
            difference = max(difference, checked_difference(ours, torch.from_numpy(theirs), LIBRARY))
    return Comparison(difference, library=LIBRARY)


GRAPHS: dict[str, Callable[[Any], Graph]] = {"bert": _encoder, "gpt": _decoder}

ENCODER = """\
# An encoder trained with zhuyi, as ONNX

`model.onnx` takes `input_ids`, `attention_mask` and `token_type_ids`, each (batch, length) in int64, and gives
OUTPUTS in float32. A row is the begin sign, the text's ids and the end sign; zhuyi's embedding of a text is the mean of
its hidden states over the mask, at length 1.
"""

DECODER = """\
# A language model trained with zhuyi, as ONNX

`model.onnx` takes `input_ids` and `attention_mask`, each (batch, length) in int64, and gives `logits` (batch, length,
vocabulary) in float32: of what follows each position. It keeps nothing from one call to the next, so that a text that
is written with it is read anew for each token; to write, CTranslate2 is the faster way (`zhuyi export --to
ctranslate2`).
"""

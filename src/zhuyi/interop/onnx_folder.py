"""An encoder's run as an ONNX file, for any runtime that reads such."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zhuyi.errors import InputError
from zhuyi.models.bert import BertConfig

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOLERANCE = 1e-4


class _Encoder(nn.Module):
    """The encoder as a function of three integer tensors, with what its head says."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor) -> tuple[Tensor, ...]:
        model, real = self.model, mask.bool()
        x = model(ids, real, segments)
        if model.classifier is not None:
            return x, model.classifier(model.pooler(x, real))
        return (x,) if model.masked_word_head is None else (x, model.masked_word_head(x))


def write_onnx(predictor: Any, folder: Path, published: Path | None = None) -> None:
    """Write `model.onnx` of any batch and length, and the tokenizer; checked by onnxruntime where that is installed.

    Args:   published: the tokenizer's files that an imported run keeps.
    Raises: InputError: the run is no encoder, or the package that writes is not installed.
            ArithmeticError: onnxruntime computes something else.
    """
    config = predictor.config.model
    if not isinstance(config, BertConfig):
        raise InputError(f"cannot export to onnx: encoders are written, this is a {config.name}; try --to hf")
    try:
        import onnxscript
    except ImportError as error:
        raise InputError(f'export to onnx needs the package {error.name}: pip install "zhuyi[export]"') from None
    assert onnxscript is not None
    model = _Encoder(predictor.model)
    has_head = config.num_labels or config.masked_word_head
    outputs = ["last_hidden_state", *(["logits"] if has_head else [])]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=config.max_len)
    shape = {0: batch, 1: length}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of packages that nobody asked for
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            _example(config, 2, 7),
            dynamo=True,
            verbose=False,
            input_names=list(INPUTS),
            output_names=outputs,
            dynamic_shapes={"ids": shape, "mask": shape, "segments": shape},
        )
    assert program is not None
    program.save(str(folder / "model.onnx"))
    _check(folder / "model.onnx", model, config)
    if published is not None:
        shutil.copytree(published, folder, dirs_exist_ok=True)
    else:
        predictor.tokenizer.save(folder / "tokenizer.json")
    (folder / "README.md").write_text(README.replace("OUTPUTS", " and ".join(outputs)), encoding="utf-8")


def _example(config: BertConfig, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(length) < torch.tensor([length, *[length // 2 + 1] * (rows - 1)])[:, None]).long()
    return ids, mask, torch.zeros_like(ids)


def _check(path: Path, model: nn.Module, config: BertConfig) -> None:
    """Compare with other shapes than it was written with."""
    try:
        import onnxruntime
    except ImportError:
        return
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows, length in ((1, config.max_len), (3, 5)):
        inputs = _example(config, rows, length)
        found = session.run(None, {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)})
        with torch.no_grad():
            expected = model(*inputs)
        for ours, theirs in zip(expected, found, strict=True):
            allowed = TOLERANCE * max(1.0, float(ours.abs().max()))
            if not np.allclose(ours.numpy(), theirs, atol=allowed, rtol=0):
                raise ArithmeticError("onnxruntime computes something else than the run; nothing was written")


README = """\
# An encoder trained with zhuyi, as ONNX

`model.onnx` takes `input_ids`, `attention_mask` and `token_type_ids`, each (batch, length) in int64, and gives
OUTPUTS in float32. A row is the begin sign, the text's ids and the end sign; zhuyi's embedding of a text is the mean of
its hidden states over the mask, at length 1.
"""

"""A tiny run of every task with weights drawn at random, to be served, and a server of such in a thread."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import uvicorn
from tests.tiny import number_pairs, random_run

from zhuyi.config import parse_config
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.run_folder import RunFolder, named_weights
from zhuyi.serving.app import create_app
from zhuyi.serving.engine import Engine
from zhuyi.serving.runs import RunToServe
from zhuyi.serving.settings import ServeSettings
from zhuyi.training.loop import build_model

SENSORS = ("north", "east", "south")
HISTORY_STEPS, FORECAST_STEPS, STEP_MINUTES = 6, 4, 120
BERT = {"name": "bert", "d_model": 15, "num_heads": 3, "d_ff": 22, "num_layers": 2, "max_len": 32}
TEXTS = ["abcdefghijklmnopqrstuvwxyz. ABCDEFGHIJKLMNOPQRSTUVWXYZ,?!:-'0123456789\n", "你好世界今天天气真好我们去公园"]


def write_run(path: Path, values: dict[str, Any], tokenizer: Tokenizer | None = None) -> None:
    """A run as training leaves it, but with random weights, so large that no two answers are nearly as good."""
    path.mkdir()
    config = parse_config({"train": {"max_steps": 1, "schedule": "constant"}, **values}, "tiny")
    folder = RunFolder(path)
    folder.write_config(config)
    if tokenizer is not None:
        tokenizer.save(path / "tokenizer.json")
    torch.manual_seed(1)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
        if config.task == "language-modelling":  # hardly ever ends a text
            model.output_projection.weight[tokenizer.signs.eos] = 0.0  # type: ignore[union-attr]
    folder.write_weights(named_weights(model))


def write_translations(folder: Path) -> None:
    random_run(folder / "zh-en")
    backwards = random_run(folder / "en-zh", seed=4)
    config = backwards.read_config()
    backwards.write_config(replace(config, data=replace(config.data, source="en", target="zh")))


def write_texts(folder: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig("byte-bpe", 300, verbatim=True))
    gpt = {"name": "gpt", "tie_embeddings": False, "d_model": 14, "num_heads": 2, "num_layers": 2, "max_len": 48}
    shared = {
        "task": "language-modelling",
        "model": {**gpt, "vocab_size": tokenizer.vocab_size},
        "decode": {"max_new_tokens": 9, "temperature": 1.0},
    }
    write_run(folder / "writer", {**shared, "data": {"train": ["x.txt"], "max_len": 48}}, tokenizer)
    data = {"train": ["x.tsv"], "max_len": 48, "documents": "dialogue", "template": "Q:{question} A:"}
    write_run(folder / "talker", {**shared, "data": data}, tokenizer)


def write_encoders(folder: Path) -> None:
    tokenizer = train_tokenizer([side for pair in number_pairs(60) for side in pair], TokenizerConfig("character", 64))
    model = {**BERT, "vocab_size": tokenizer.vocab_size + 1}
    data = {"train": ["x.txt"], "max_len": 32}
    values = {"task": "masked-language-modelling", "model": {**model, "masked_word_head": True}, "data": data}
    write_run(folder / "filler", values, tokenizer)
    labelled = {**data, "labels": ["bad", "good"]}
    values = {"task": "text-classification", "model": {**model, "pooler": True, "num_labels": 2}, "data": labelled}
    write_run(folder / "labels", values, tokenizer)


def write_others(folder: Path) -> None:
    """Of pictures, sound and sensors."""
    vit = {"name": "vit", "patch_size": 4, "d_model": 14, "num_heads": 2, "d_ff": 22, "num_layers": 2,
           "image_size": 8, "num_channels": 3, "num_labels": 2}  # fmt: skip
    pictures = {"train": ["x"], "image_size": 8, "channels": 3, "labels": ["blue", "red"],
                "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}  # fmt: skip
    write_run(folder / "pictures", {"task": "image-classification", "model": vit, "data": pictures})
    tokenizer = train_tokenizer(["low middle high"], TokenizerConfig("character", 40))
    whisper = {"name": "whisper", "d_model": 28, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 2,
               "max_len": 24, "vocab_size": tokenizer.vocab_size,
               "window_seconds": 1.0, "num_mel_bins": 20}  # fmt: skip
    speech = {"train": ["x.tsv"], "window_seconds": 1.0, "num_mel_bins": 20, "max_len": 24}
    decode = {"beam": 2, "temperatures": [0.0], "least_log_prob": -1e9, "most_compression": 1e9}
    values = {"task": "speech-recognition", "model": whisper, "data": speech, "decode": decode}
    write_run(folder / "ears", values, tokenizer)
    gman = {"name": "gman", "d_model": 10, "num_heads": 2, "num_layers": 1, "days": "none", "slots_a_day": 12,
            "num_sensors": len(SENSORS), "mean": 50.0, "std": 7.0}  # fmt: skip
    sensors = {"train": ["x.csv"], "history_steps": HISTORY_STEPS, "forecast_steps": FORECAST_STEPS,
               "step_minutes": STEP_MINUTES, "slots_a_day": 12, "sensors": list(SENSORS)}  # fmt: skip
    write_run(folder / "roads", {"task": "forecasting", "model": gman, "data": sensors})


def write_all(folder: Path) -> None:
    for write in (write_translations, write_texts, write_encoders, write_others):
        write(folder)


@contextmanager
def serving(folders: Sequence[Path], **settings: Any) -> Iterator[tuple[str, Engine]]:
    """A server of runs on a free port; its address, and its engine."""
    chosen = ServeSettings(port=0, **settings)
    engine = Engine([RunToServe(folder.name, str(folder), "float32") for folder in folders], chosen)
    config = uvicorn.Config(create_app(engine, chosen), log_level="warning", lifespan="on", ws="none")
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind((chosen.host, 0))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not engine.is_ready:
            assert engine.failure is None, engine.failure
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://{chosen.host}:{listening.getsockname()[1]}", engine
        finally:
            server.should_exit = True
            thread.join(20)

"""Runs that tests write line by line as a training would, and a server that watches them."""

import base64
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from tests.tiny import tiny_config

from zhuyi.run_folder import RunFolder
from zhuyi.serving.settings import ServeSettings
from zhuyi.serving.watch_app import create_watch_app
from zhuyi.serving.watched_runs import Watch

SOURCE, TARGET = ("▁我", "▁爱", "你", "</s>"), ("▁I", "▁love", "▁you", "</s>")


def new_run(path: Path, **settings: Any) -> RunFolder:
    """A run that is about to begin."""
    folder = RunFolder(path)
    folder.write_config(tiny_config("pairs.tsv", max_steps=100, **settings))
    return folder


def evaluated(folder: RunFolder, step: int, *, text: str = "", bleu: float | None = None) -> None:
    """What training notes at an evaluation: losses fall, attention sharpens, and the text gets right in the end."""
    share = min(1.0, step / 100)
    folder.append_metrics(
        {
            "step": step,
            "minutes": step / 10,
            "train_loss": 4 - 3 * share,
            "learning_rate": 1e-3 * (1.1 - share),
            "tokens_per_second": 2000.0 + step,
            "valid_loss": 4.2 - 3 * share,
            "bleu": 60 * share if bleu is None else bleu,
            "chrf": 80 * share,
        }
    )
    folder.append_samples({"step": step, **written(text or f"I love step {step} .", share)})


def written(text: str, share: float = 0.5) -> dict[str, Any]:
    """What the model writes, and a map that goes from even to diagonal."""
    weights = (1 - share) * np.full((4, 4), 0.25) + share * np.eye(4)
    packed = base64.b64encode(zlib.compress(np.rint(weights * 255).astype(np.uint8).tobytes())).decode()
    return {
        "samples": [{"source": "我爱你。", "text": text, "reference": "I love you ."}],
        "cross_attention": {"source": SOURCE, "target": TARGET, "weights": packed},
    }


def append_raw(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def as_line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"


@contextmanager
def watching(paths: Sequence[Path]) -> Iterator[str]:
    """The address of a server that watches."""
    settings = ServeSettings(port=0)
    config = uvicorn.Config(create_watch_app(Watch(paths), settings), log_level="warning", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server((settings.host, 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://{settings.host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)

"""One contestant's process, of those that read texts or pictures at once.

python -m contest.encoders TOOL FOLDER
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contest.worker import durations, serve


class Zhuyi:
    """zhuyi by what `zhuyi embed` and `zhuyi classify` call."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._runs: dict[str, Any] = {}

    def embed(self, setting: dict[str, Any], texts: Sequence[str]) -> Any:
        """The texts' vectors of length 1. Shape: (texts, D)."""
        return self._load(setting["precision"]).embed(texts)

    def label(self, setting: dict[str, Any], pictures: Any) -> Any:
        """The pictures' probabilities. Shape: pictures (B, S, S, 3) uint8; returns (B, labels)."""
        import numpy as np

        found = self._load(setting["precision"]).classify(list(pictures))
        return np.array([list(each.probabilities.values()) for each in found])

    def _load(self, precision: str) -> Any:
        from zhuyi import load

        if precision not in self._runs:
            self._runs[precision] = load(self._folder, precision, "cpu")
        return self._runs[precision]


class HuggingFace:
    """transformers, its batches made of texts of like length."""

    def __init__(self, folder: str) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._folder, self._library = folder, transformers
        self._models: dict[str, Any] = {}
        self._tokenizer: Any = None

    def embed(self, setting: dict[str, Any], texts: Sequence[str]) -> Any:
        """The same from its model's hidden states."""
        import torch
        import torch.nn.functional as F

        if self._tokenizer is None:
            self._tokenizer = self._library.AutoTokenizer.from_pretrained(self._folder)
        tokenizer, model = self._tokenizer, self._load(setting["dtype"], self._library.AutoModel)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found = torch.zeros(len(texts), model.config.hidden_size)
        with torch.inference_mode():
            for first in range(0, len(order), setting["batch_rows"]):
                rows = order[first : first + setting["batch_rows"]]
                batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, return_tensors="pt")
                states = model(**batch).last_hidden_state.float()
                mask = batch.attention_mask[:, :, None]
                found[rows] = F.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)
        return found.numpy()

    def label(self, setting: dict[str, Any], pictures: Any) -> Any:
        """The same; its numbers are made of the pixels by one line of torch, which is faster than its own way."""
        import torch

        model = self._load(setting["dtype"], self._library.AutoModelForImageClassification)
        with torch.inference_mode():
            numbers = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
            return model(pixel_values=numbers.to(model.dtype)).logits.float().softmax(dim=-1).numpy()

    def _load(self, dtype: str, kind: Any) -> Any:
        import torch

        if dtype not in self._models:
            self._models[dtype] = kind.from_pretrained(self._folder, dtype=getattr(torch, dtype)).eval()
        return self._models[dtype]


TOOLS: dict[str, Callable[[str], Any]] = {"zhuyi": Zhuyi, "Hugging Face": HuggingFace}


def answer(tool: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Do one command: the seconds of a call, and where it was to warm up, what that found of its first inputs."""
    import numpy as np

    setting, seconds = command["setting"], command["seconds"]
    if command["do"] == "embed":
        texts = json.loads(Path(command["texts"]).read_text(encoding="utf-8"))

        def work(share: int = 1) -> Any:
            return tool.embed(setting, texts[::share])
    else:
        size = command["size"]
        pictures = np.random.default_rng(0).integers(0, 256, (command["count"], size, size, 3), dtype=np.uint8)

        def work(share: int = 1) -> Any:
            return tool.label(setting, pictures)

    found = work(20).tolist() if command["warm"] else []
    return {"seconds": durations(work, seconds), "found": found}


if __name__ == "__main__":
    serve(TOOLS, answer)

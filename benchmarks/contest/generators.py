"""One contestant's process, of those that continue a text with a GPT.

python -m contest.generators TOOL FOLDER
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest.worker import Ids, Machine, answer, serve


class Zhuyi:
    """zhuyi by what `zhuyi generate` calls, the end sign kept away until the last token."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._generators: dict[str, Any] = {}

    def write(self, setting: dict[str, Any], sources: Ids, beam: int, length: int) -> Ids:
        """Continue each prompt by exactly `length` tokens, greedily."""
        import torch

        from zhuyi import load
        from zhuyi.decoding import Request, run
        from zhuyi.decoding.config import GenerationConfig
        from zhuyi.tasks.continuation import open_search

        assert beam == 1
        precision, config = setting["precision"], GenerationConfig(temperature=0.0)
        if precision not in self._generators:
            self._generators[precision] = load(self._folder, precision, "cpu")
        generator = self._generators[precision]
        with torch.inference_mode():
            search = open_search(generator.model, generator.tokenizer, config)
            requests = [Request(i, tuple(ids), length, length) for i, ids in enumerate(sources)]
            found = {event.id: event.hypotheses for event in run(search, requests, max_rows=config.batch_rows)}
        return [list(found[i][0].tokens) for i in range(len(sources))]


class CTranslate2:
    """CTranslate2's generator on the folder that zhuyi exports."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pieces = json.loads((Path(folder) / "vocabulary.json").read_text(encoding="utf-8"))
        self._generators: dict[tuple[Any, ...], Any] = {}

    def write(self, setting: dict[str, Any], sources: Ids, beam: int, length: int) -> Ids:
        """Continue each prompt by exactly `length` tokens, greedily."""
        import ctranslate2

        assert beam == 1
        kind, threads = key = setting["compute_type"], setting["threads"]
        inter, intra = map(int, threads.split("x"))
        if key not in self._generators:
            self._generators[key] = ctranslate2.Generator(
                self._folder, compute_type=kind, inter_threads=inter, intra_threads=intra
            )
        found = self._generators[key].generate_batch(
            [[self._pieces[i] for i in ids] for ids in sources],
            min_length=length,
            max_length=length,
            sampling_topk=1,
            include_prompt_in_result=False,
            max_batch_size=-(-len(sources) // inter),  # a part for each of its generators
        )
        return [result.sequences_ids[0] for result in found]


class HuggingFace:
    """`generate` of Hugging Face transformers on the folder that zhuyi exports."""

    def __init__(self, folder: str) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._folder = folder
        self._models: dict[str, Any] = {}

    def write(self, setting: dict[str, Any], sources: Ids, beam: int, length: int) -> Ids:
        """Continue each prompt by exactly `length` tokens, greedily."""
        import torch
        from transformers import AutoModelForCausalLM

        assert beam == 1
        dtype = setting["dtype"]
        if dtype not in self._models:
            model = AutoModelForCausalLM.from_pretrained(self._folder, dtype=getattr(torch, dtype))
            self._models[dtype] = model.eval()
        ids = torch.tensor(sources)
        with torch.inference_mode():
            found = self._models[dtype].generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=length,
                max_new_tokens=length,
            )
        return found[:, ids.shape[1] :].tolist()


TOOLS: dict[str, Callable[[str], Any]] = {
    "zhuyi": Zhuyi,
    "CTranslate2": CTranslate2,
    "Hugging Face": HuggingFace,
    "machine": Machine,
}

if __name__ == "__main__":
    serve(TOOLS, answer)

"""One contestant's process: waits for a command on its standard input, does it, answers on its standard output.

    python -m contest.worker TOOL FOLDER

A command is a line of JSON with `do` and the arguments of the tool's method of that name.
"""

import gc
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
Ids = list[list[int]]


class Tool(Protocol):
    """What is measured of a translator; `setting` says which of its ways to work."""

    def write(self, setting: dict[str, Any], sources: Ids, beam: int, length: int) -> Ids:
        """Write exactly `length` tokens for each source."""
        ...

    def translate(self, setting: dict[str, Any], texts: Sequence[str], beam: int, alpha: float) -> list[str]:
        """Translate texts that may differ in length, as fast as a user of the tool would know to."""
        ...


class Zhuyi:
    """zhuyi by what its command line calls."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._translators: dict[str, Any] = {}

    def write(self, setting: dict[str, Any], sources: Ids, beam: int, length: int) -> Ids:
        import torch

        from zhuyi.decoding import Beam, Greedy, Request, num_lanes, run_in_lanes
        from zhuyi.tasks.sentence_search import open_search

        translator = self._load(setting["precision"])
        rule = Greedy() if beam == 1 else Beam(beam)
        lanes = [open_search(translator.model, rule) for _ in range(num_lanes(torch.device("cpu")))]
        requests = [Request(i, tuple(ids), length, length) for i, ids in enumerate(sources)]
        rows = translator.config.decode.batch_rows
        found = {event.id: event.hypotheses for event in run_in_lanes(lanes, requests, max_rows=rows)}
        return [list(found[i][0].tokens) for i in range(len(sources))]

    def translate(self, setting: dict[str, Any], texts: Sequence[str], beam: int, alpha: float) -> list[str]:
        return [found.text for found in self._load(setting["precision"]).translate(texts, beam=beam, alpha=alpha)]

    def _load(self, precision: str) -> Any:
        from zhuyi import load

        if precision not in self._translators:
            self._translators[precision] = load(self._folder, precision, "cpu")
        return self._translators[precision]


class CTranslate2:
    """CTranslate2 on the folder that zhuyi exports."""

    def __init__(self, folder: str) -> None:
        import tokenizers

        self._folder = folder
        paths = [Path(folder) / f"tokenizer{part}.json" for part in ("", ".source", ".target")]
        source, target = (paths[0], paths[0]) if paths[0].exists() else paths[1:]
        self._source, self._target = (tokenizers.Tokenizer.from_file(str(path)) for path in (source, target))
        self._pieces = [self._source.id_to_token(i) for i in range(self._source.get_vocab_size())]
        self._ids = self._target.get_vocab()
        self._translators: dict[tuple[Any, ...], Any] = {}

    def write(self, setting: dict[str, Any], sources: Ids, beam: int, length: int) -> Ids:
        tokens = [[self._pieces[i] for i in ids] for ids in sources]
        found = self._load(setting).translate_batch(
            tokens,
            beam_size=beam,
            min_decoding_length=length,
            max_decoding_length=length,
            max_batch_size=-(
                -len(tokens) // int(setting["threads"].split("x")[0])
            ),  # a part for each of its translators
        )
        return [[self._ids[token] for token in result.hypotheses[0]] for result in found]

    def translate(self, setting: dict[str, Any], texts: Sequence[str], beam: int, alpha: float) -> list[str]:
        encodings = self._source.encode_batch_fast(list(texts))  # which makes ids alone
        tokens = [[self._pieces[i] for i in encoding.ids] for encoding in encodings]
        found = self._load(setting).translate_batch(
            tokens,
            beam_size=beam,
            length_penalty=alpha,
            max_decoding_length=2 * max(map(len, tokens)) + 10,
            max_batch_size=setting["batch_tokens"],
            batch_type="tokens",
            disable_unk=True,
        )
        return self._target.decode_batch([[self._ids[token] for token in result.hypotheses[0]] for result in found])

    def _load(self, setting: dict[str, Any]) -> Any:
        import ctranslate2

        kind, threads = key = setting["compute_type"], setting["threads"]
        if key not in self._translators:
            inter, intra = map(int, threads.split("x"))
            self._translators[key] = ctranslate2.Translator(
                self._folder, compute_type=kind, inter_threads=inter, intra_threads=intra
            )
        return self._translators[key]


class HuggingFace:
    """`generate` of Hugging Face transformers on the folder that zhuyi exports."""

    def __init__(self, folder: str) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._folder = folder
        self._library = transformers
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        target = Path(folder) / "tokenizer.target.json"
        self._target = (
            transformers.PreTrainedTokenizerFast(tokenizer_file=str(target)) if target.exists() else self._tokenizer
        )
        self._models: dict[str, Any] = {}

    def write(self, setting: dict[str, Any], sources: Ids, beam: int, length: int) -> Ids:
        import torch

        ids = torch.tensor(sources)
        options = {"min_new_tokens": length, "max_new_tokens": length, "max_length": None}
        found = self._generate(setting, ids, torch.ones_like(ids), beam, options)
        return found[:, 1:].tolist()

    def translate(self, setting: dict[str, Any], texts: Sequence[str], beam: int, alpha: float) -> list[str]:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        translations = [""] * len(texts)
        for start in range(0, len(order), setting["batch_rows"]):
            rows = order[start : start + setting["batch_rows"]]
            batch = self._tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True)
            options = {"max_new_tokens": 2 * batch.input_ids.shape[1] + 10, "max_length": None}
            if beam > 1:
                options |= {"length_penalty": alpha, "early_stopping": True}
            found = self._generate(setting, batch.input_ids, batch.attention_mask, beam, options)
            for i, text in zip(rows, self._target.batch_decode(found, skip_special_tokens=True), strict=True):
                translations[i] = text
        return translations

    def _generate(self, setting: dict[str, Any], ids: Any, mask: Any, beam: int, options: dict[str, Any]) -> Any:
        import torch

        if setting["dtype"] not in self._models:
            kind = self._library.AutoModelForSeq2SeqLM
            model = kind.from_pretrained(self._folder, dtype=getattr(torch, setting["dtype"])).eval()
            # Each call says what it wants; what is left over from the folder would be warned of.
            model.generation_config.length_penalty, model.generation_config.early_stopping = 1.0, False
            self._models[setting["dtype"]] = model
        with torch.inference_mode():
            return self._models[setting["dtype"]].generate(
                input_ids=ids, attention_mask=mask, num_beams=beam, do_sample=False, **options
            )


class Machine:
    """What the machine itself can do, by torch."""

    def __init__(self, folder: str) -> None:
        import torch

        self._torch = torch

    def limits(self) -> dict[str, float]:
        """What `zhuyi doctor` measures."""
        from zhuyi.doctor import measured_limits

        return measured_limits()

    def read(self, size: int, seconds: float) -> float:
        """GB a second, at best, of reading one table of `size` bytes again and again; caches may hold it."""
        torch = self._torch
        table, vector = torch.ones(max(1, size // 4096), 1024), torch.ones(1024)
        best = min(min(durations(act, seconds / 2, at_least=3)) for act in (table.sum, lambda: table @ vector))
        return table.nbytes / best / 1e9


def durations(action: Callable[[], Any], seconds: float, at_least: int = 1) -> list[float]:
    """Seconds of each call, one after the other until `seconds` have passed."""
    found: list[float] = []
    while len(found) < at_least or sum(found) < seconds:
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return found


TOOLS: dict[str, Callable[[str], Any]] = {
    "zhuyi": Zhuyi,
    "CTranslate2": CTranslate2,
    "Hugging Face": HuggingFace,
    "machine": Machine,
}


def answer(tool: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Do one command."""
    do = command.pop("do")
    if do == "write":
        seconds, warm = command.pop("seconds"), command.pop("warm")
        found = tool.write(**command) if warm else []
        gc.collect()
        return {"seconds": durations(lambda: tool.write(**command), seconds), "found": found}
    if do == "translate":
        with gzip.open(command.pop("texts"), "rt", encoding="utf-8") as file:
            command["texts"] = file.read().split("\n")
        if command.pop("warm"):
            tool.translate(**{**command, "texts": command["texts"][::20]})
        gc.collect()
        started = time.perf_counter()
        found = tool.translate(**command)
        return {"seconds": [time.perf_counter() - started], "found": found}
    return {"found": getattr(tool, do)(**command)}


def commands() -> Iterator[dict[str, Any]]:
    """What the parent asks, until it goes."""
    for line in sys.stdin:
        yield json.loads(line)


def serve(tools: Mapping[str, Callable[[str], Any]], answer: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> None:
    """Open the tool that the command line names, and have it answer commands."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    tool = tools[sys.argv[1]](sys.argv[2])
    for command in commands():
        try:
            found = answer(tool, command)
        except Exception as error:  # a setting that this machine refuses is a result too
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    serve(TOOLS, answer)

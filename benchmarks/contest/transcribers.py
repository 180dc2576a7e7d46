"""One contestant's process in benchmarks/transcription.py: as `contest.worker`, of speech.

    python -m contest.transcribers TOOL FOLDER

What a tool needs is imported by it alone: faster-whisper lives in an environment without zhuyi.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

RATE = 16_000


def sounds(count: int, seconds: float) -> Any:
    """Windows of noise whose level swings, the same for all. Shape: (count, samples) float32."""
    import numpy as np

    rng, length = np.random.default_rng(0), int(seconds * RATE)
    swing = 0.1 + np.abs(np.sin(np.arange(length) / RATE * 12))
    return (0.1 * swing * rng.standard_normal((count, length))).astype(np.float32)


class Zhuyi:
    """From samples to tokens by what `zhuyi transcribe` calls."""

    def __init__(self, folder: str) -> None:
        self._folder, self._runs = folder, dict[str, Any]()

    def write(self, setting: dict[str, Any], windows: Any, beam: int, length: int) -> list[list[int]]:
        """Exactly `length` tokens of each window."""
        from zhuyi import load
        from zhuyi.decoding import Beam, Greedy, Request, Search, num_lanes, run_in_lanes
        from zhuyi.tasks.transcription import Listener, Manner

        precision = setting["precision"]
        if precision not in self._runs:
            self._runs[precision] = load(self._folder, precision, "cpu")
        run = self._runs[precision]
        import torch

        listener = Listener(run.model, run.tokenizer, run.decode_config(beam), Manner("en"))
        prefix = listener.prefix("en")
        rule = Greedy() if beam == 1 else Beam(beam, length_rule="power", alpha=1.0, stop="first")

        def begin(requests: Any) -> Any:
            memory = run.model.encode(listener.features([windows[request.id] for request in requests]))
            start = torch.tensor([prefix] * len(requests))
            return run.model.start(memory, start), start[:, -1]

        lanes = [
            Search(begin, run.model.step, rule, eos_id=listener.signs.end, stream=False)
            for _ in range(num_lanes(torch.device("cpu")))
        ]
        requests = [Request(i, (), length, length) for i in range(len(windows))]
        events = run_in_lanes(lanes, requests, max_rows=max(beam, len(windows) * beam))
        found = {event.id: event.hypotheses for event in events if event.hypotheses}
        return [list(found[i][0].tokens) for i in range(len(windows))]


class FasterWhisper:
    """The same by faster-whisper's features and CTranslate2's Whisper below it, as its batched pipeline does."""

    def __init__(self, folder: str) -> None:
        self._folder, self._models = folder, dict[tuple[str, int], Any]()

    def write(self, setting: dict[str, Any], windows: Any, beam: int, length: int) -> list[list[int]]:
        """Exactly `length` tokens of each window."""
        import numpy as np
        from faster_whisper import WhisperModel

        key = setting["compute_type"], setting["threads"]
        if key not in self._models:
            self._models[key] = WhisperModel(self._folder, "cpu", compute_type=key[0], cpu_threads=key[1])
        model = self._models[key]
        extract, frames = model.feature_extractor, windows.shape[1] // 160
        features = np.stack([extract(window)[:, :frames] for window in windows])
        signs = model.hf_tokenizer
        names = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
        prompt, end = [signs.token_to_id(name) for name in names], signs.token_to_id("<|endoftext|>")
        found = model.model.generate(
            model.encode(features),
            [prompt] * len(windows),
            beam_size=beam,
            max_length=len(prompt) + length,
            suppress_tokens=[end],
            suppress_blank=False,
        )
        return [each.sequences_ids[0][:length] for each in found]


TOOLS: dict[str, Callable[[str], Any]] = {"zhuyi": Zhuyi, "faster-whisper": FasterWhisper}


def main() -> None:
    """Answer commands until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    tool = TOOLS[sys.argv[1]](sys.argv[2])
    for line in sys.stdin:
        command = json.loads(line)
        windows = sounds(command["windows"], command["window_seconds"])
        try:
            seconds: list[float] = []
            if command["warm"]:
                tool.write(command["setting"], windows, command["beam"], command["length"])
            while not seconds or sum(seconds) < command["seconds"]:
                started = time.perf_counter()
                found = tool.write(command["setting"], windows, command["beam"], command["length"])
                seconds.append(time.perf_counter() - started)
            answer: dict[str, Any] = {"seconds": seconds, "found": found}
        except Exception as error:  # whatever a tool raises, the others go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

"""Seconds of sound a second of transcription: zhuyi and faster-whisper, in turn, on the same weights.

    python benchmarks/transcription.py [--rounds 5] [--out runs/benchmarks] [--quick]

Random weights of Whisper's tiny model (4 + 4 layers, d_model 384, 51,865 ids), which transformers makes, zhuyi imports
and CTranslate2 converts. Windows of 30 seconds, one and eight at a time; from samples to exactly 32 tokens each, the
spectrogram included; greedily and with 5 beams. zhuyi takes part in its precisions, faster-whisper (in an environment
of its own, made by `make .venv/faster-whisper/installed`) in CTranslate2's types with its threads at all cores and at
one. All have a trial turn; the fastest few of each tool then take turns, and the best of them are compared.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contest import report
from contest.turns import Contestant, Turn, Workers, fastest, measure, results, trial

from decoding import PRECISIONS, compute_types
from zhuyi.doctor import examine
from zhuyi.interop import import_run
from zhuyi.interop.published_tokenizers import LANGUAGES
from zhuyi.machine import num_cores

PEER = "faster-whisper"
PYTHON = Path(__file__).parents[1] / ".venv" / "faster-whisper" / "bin" / "python"
KEPT = 3  # settings of each tool that go on after the trial


@dataclass(frozen=True)
class Shape:
    """What is measured; a turn repeats its call for some seconds."""

    sizes: dict[str, int]
    window_seconds: int
    length: int
    windows: tuple[int, ...]
    beams: tuple[int, ...]
    seconds: float


TINY = Shape({}, 30, 32, (1, 8), (1, 5), 2.0)
QUICK = Shape(
    {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
     "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
    2, 4, (1, 2), (1, 2), 0.02,
)  # fmt: skip


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round: whether it runs, not how fast")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    shape, rounds = (QUICK, 1) if arguments.quick else (TINY, arguments.rounds)
    threads, rest = (1, 0.0) if arguments.quick else (None, 0.3)
    workers = Workers(threads, rest, module="contest.transcribers", pythons={PEER: str(PYTHON)})
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(shape, workers, Path(folder), rounds)
    finally:
        workers.close()
    everything = {"machine": examine(), "versions": report.versions(), "transcription": found}
    (arguments.out / "transcription.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    text = table(found)
    (arguments.out / "transcription.txt").write_text(text, encoding="utf-8")
    print(text)


def compare(shape: Shape, workers: Workers, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A trial of all in each cell, then rounds of the fastest."""
    write_models(shape, folder)
    everyone = list(contestants(folder))
    cells = [(windows, beam) for windows in shape.windows for beam in shape.beams]
    turns = {cell: a_turn(shape, workers, *cell) for cell in cells}
    work = {cell: float(cell[0] * shape.window_seconds) for cell in cells}
    tracks, kept = {}, {}
    for cell, turn in turns.items():
        print(f"trial: {cell[0]} windows, beam {cell[1]}", file=sys.stderr)
        tracks[cell] = trial(everyone, turn, work[cell])
        kept[cell] = fastest(tracks[cell], KEPT)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for cell, turn in turns.items():
            measure(kept[cell], turn, work[cell], number)
    return [{"windows": cell[0], "beam": cell[1], **results(tracks[cell], [PEER])} for cell in cells]


def contestants(folder: Path) -> Iterator[Contestant]:
    """Every tool in every setting."""
    for precision in PRECISIONS:
        yield Contestant("zhuyi", str(folder / "run"), (("precision", precision),))
    if not PYTHON.exists():
        print(f"{PYTHON} is not here: run make .venv/faster-whisper/installed", file=sys.stderr)
        return
    for kind in compute_types():
        for threads in dict.fromkeys([num_cores(), 1]):
            setting = (("compute_type", kind), ("threads", threads))
            yield Contestant(PEER, str(folder / "ctranslate2"), setting)


def a_turn(shape: Shape, workers: Workers, windows: int, beam: int) -> Turn:
    """One contestant's turn at so many windows."""

    def turn(contestant: Contestant, warm: bool) -> dict[str, Any]:
        return workers.ask(
            contestant,
            warm=warm,
            setting=dict(contestant.setting),
            windows=windows,
            window_seconds=shape.window_seconds,
            beam=beam,
            length=shape.length,
            seconds=shape.seconds,
        )

    return turn


def write_models(shape: Shape, folder: Path) -> None:
    """Random weights as transformers has them, as a run, and as CTranslate2 has them."""
    import ctranslate2
    import transformers

    hf = folder / "hf"
    hf.mkdir()
    ids = write_tokenizer(hf)
    torch.manual_seed(1)
    config = transformers.WhisperConfig(
        max_source_positions=50 * shape.window_seconds,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        **dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), ids["<|endoftext|>"]),
        **shape.sizes,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    generation = model.generation_config
    generation.is_multilingual, generation.no_timestamps_token_id = True, ids["<|notimestamps|>"]
    generation.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES[:-1]}
    generation.task_to_id = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    generation.suppress_tokens, generation.begin_suppress_tokens, generation.alignment_heads = [], [], [[0, 0]]
    model.save_pretrained(hf)
    extractor = transformers.WhisperFeatureExtractor(chunk_length=shape.window_seconds)
    extractor.save_pretrained(hf)
    import_run(hf, folder / "run")
    files = ["tokenizer.json", "preprocessor_config.json"]
    ctranslate2.converters.TransformersConverter(str(hf), copy_files=files).convert(str(folder / "ctranslate2"))


def write_tokenizer(folder: Path) -> dict[str, int]:
    """A byte-level vocabulary of the published size, in made-up pieces; returns the signs' ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(a + b for a in letters for b in letters)][:50257]
    merges = [(piece[0], piece[1]) for piece in pieces[len(letters) :]]
    library = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES[:-1]), "<|translate|>"]
    names += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    library.add_special_tokens([AddedToken(name, special=True) for name in names])
    library.add_tokens([AddedToken(f"<|{0.02 * i:.2f}|>") for i in range(1501)])
    WhisperTokenizerFast(tokenizer_object=library).save_pretrained(folder)
    library.save(str(folder / "tokenizer.json"))
    return {name: len(pieces) + i for i, name in enumerate(names)}


def table(cells: list[dict[str, Any]]) -> str:
    """Seconds of sound a second, by tool and setting, and how many times faster zhuyi is."""
    lines = [f"{'windows':>7} {'beam':>4}  {'tool':16} {'setting':24} {'times real time':>15}"]
    for cell in cells:
        for row in cell["rows"]:
            speed = statistics.median(row["speeds"]) if row["speeds"] else row["trial"]
            shown = row["error"] or f"{speed:15.1f}{'' if row['speeds'] else '  (trial)'}"
            lines.append(f"{cell['windows']:7} {cell['beam']:4}  {row['tool']:16} {row['setting']:24} {shown}")
        lines += report.plain_ratios(cell)
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""From the shell to the first translation: seconds, peak memory and installed size, zhuyi and its peers in turn.

    python benchmarks/cold_start.py [--rounds 7] [--out runs/benchmarks] [--quick]

Each turn is a new process that translates one sentence with the shipped zh-en and ends; the file cache is warm. The
peers run the shortest script that does the same with their own libraries, on the model that zhuyi exports. Seconds are
counted until the answer can be read; memory is the most that the process has held. Installed size is of the files of a
package and all that it requires, extras left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from contest import report
from packaging.requirements import Requirement

import zhuyi
from decoding import PRECISIONS
from zhuyi.interop import export

TEXT = "你好。"
CTRANSLATE2 = """
import sys
import ctranslate2, tokenizers
folder, text = sys.argv[1:]
tokenizer = tokenizers.Tokenizer.from_file(folder + "/tokenizer.json")
translator = ctranslate2.Translator(folder, compute_type="int8")
(result,) = translator.translate_batch([tokenizer.encode(text).tokens], beam_size=5)
print(tokenizer.decode([tokenizer.token_to_id(token) for token in result.hypotheses[0]]))
"""
HUGGING_FACE = """
import sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
folder, text = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
batch = tokenizer([text], return_tensors="pt")
print(tokenizer.decode(model.generate(**batch, num_beams=5)[0], skip_special_tokens=True))
"""
# A process's peak begins with that of the one which forks it: this one is small.
LAUNCHER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
line = process.stdout.readline()
seconds = time.perf_counter() - started
process.stdout.read()
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([seconds, usage.ru_maxrss, line.strip()]))
sys.exit(status != 0)
"""


@dataclass
class Start:
    """One command and what was seen of it."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    answer: str = ""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="one round")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        starts = commands(Path(folder))
        for number in range(1 if arguments.quick else arguments.rounds + 1):
            for start in starts if number % 2 else reversed(starts):
                seconds, megabytes, start.answer = once(start.command)
                if number or arguments.quick:  # the first round fills the file cache
                    start.seconds.append(seconds)
                    start.megabytes.append(megabytes)
    sizes = {
        "zhuyi": installed_megabytes("zhuyi"),
        "CTranslate2": installed_megabytes("ctranslate2", "tokenizers"),
        "Hugging Face": installed_megabytes("transformers", "torch"),
    }
    text = table(starts, sizes)
    values = {"versions": report.versions(), "starts": [vars(start) for start in starts], "installed_megabytes": sizes}
    (arguments.out / "cold_start.json").write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    (arguments.out / "cold_start.txt").write_text(text, encoding="utf-8")
    print(text)


def commands(folder: Path) -> list[Start]:
    """Who starts."""
    program = str(Path(sys.executable).with_name("zhuyi"))
    for form in ("ctranslate2", "hf"):
        export("zh-en", form, folder / form)
    return [
        Start("zhuyi --help", [program, "--help"]),
        Start("zhuyi translate", [program, "translate", "zh-en", TEXT]),
        *(
            Start(f"zhuyi translate --precision {name}", [program, "translate", "zh-en", TEXT, "--precision", name])
            for name in PRECISIONS
        ),
        Start("CTranslate2, int8", [sys.executable, "-c", CTRANSLATE2, str(folder / "ctranslate2"), TEXT]),
        Start("Hugging Face generate", [sys.executable, "-c", HUGGING_FACE, str(folder / "hf"), TEXT]),
    ]


def once(command: list[str]) -> tuple[float, float, str]:
    """Seconds until the answer can be read, megabytes at most, and the answer's first line."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, *command], stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}")
    seconds, memory, answer = json.loads(done.stdout)
    return seconds, memory * (1 if sys.platform == "darwin" else 1024) / 1e6, answer


def installed_megabytes(*names: str) -> float:
    """The files of these packages and of all that they require."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in seen:
            seen.add(name)
            for text in metadata.requires(name) or []:
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    waiting.append(requirement.name)
    files = [Path(str(file.locate())) for name in seen for file in metadata.files(name) or []]
    if "zhuyi" in seen:  # of an editable installation only a link is there
        files += [path for path in Path(zhuyi.__file__).parent.rglob("*") if "__pycache__" not in path.parts]
    return sum(path.stat().st_size for path in set(files) if path.is_file()) / 1e6


def table(starts: list[Start], sizes: dict[str, float]) -> str:
    """What was measured, in lines."""
    lines = [f"{'':34} {'seconds':>8} {'least':>6} {'most':>6} {'MB':>6}  answer"]
    for start in starts:
        middle, memory = statistics.median(start.seconds), statistics.median(start.megabytes)
        least, most = min(start.seconds), max(start.seconds)
        lines.append(f"{start.name:34} {middle:8.2f} {least:6.2f} {most:6.2f} {memory:6.0f}  {start.answer}")
    lines += ["", "installed, with all that is required:"]
    lines += [f"  {name:14} {size:7,.0f} MB" for name, size in sizes.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""Every document's links lead somewhere, its examples print what it shows, and no option is left out."""

import contextlib
import dataclasses
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest

from zhuyi.config import TrainConfig
from zhuyi.data.augmentation import Augmentation
from zhuyi.data.pairs import CleaningRules
from zhuyi.data.speech_examples import AugmentConfig
from zhuyi.data.speech_windows import Pauses
from zhuyi.data.tokenizers import TokenizerConfig
from zhuyi.decoding.config import DecodeConfig, GenerationConfig
from zhuyi.models.gman import GmanConfig
from zhuyi.models.vit import VitConfig
from zhuyi.tasks.forecasting import SensorDataConfig
from zhuyi.tasks.masked_language_modelling import MaskedTextConfig
from zhuyi.tasks.mixture import MixtureConfig, MixturePart
from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.tasks.picture_data import PictureDataConfig
from zhuyi.tasks.speech_data import SpeechDataConfig
from zhuyi.tasks.text_classification import LabelledDataConfig
from zhuyi.tasks.text_data import TextDataConfig
from zhuyi.tasks.transcription import TranscriptionConfig
from zhuyi.training.automatic.pairs import SIZES, Size

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.md")]
WITH_EXAMPLES = [ROOT / "docs" / f"{name}.md" for name in ("masks", "shapes", "data", "decoding")]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


def unfulfilled(text: str, name: str) -> list[str]:
    """Run a document's Python blocks in order, in one namespace; each that does not print the text block after it."""
    blocks = BLOCK.findall(text)
    namespace: dict[str, Any] = {}
    found = []
    for number, (language, code) in enumerate(blocks):
        if language != "python":
            continue
        following, shown = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, f"{name}, block {number + 1}", "exec"), namespace)
        if printed.getvalue() != (shown if following == "text" else ""):
            found.append(f"{name}, block {number + 1} printed\n{printed.getvalue()}")
    return found


@pytest.mark.parametrize("document", WITH_EXAMPLES, ids=lambda path: path.name)
def test_examples_print_what_is_shown(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    text = document.read_text(encoding="utf-8")
    assert "```python" in text
    found = unfulfilled(text, document.name)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```python\nprint(1)\n```\n\n```text\n1\n```\n", 0),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", 1),
        ("```python\nprint(1)\n```\n\n```sh\n1\n```\n", 1),
        ("```python\nx = 1\n```\n\nThen\n\n```python\nprint(x)\n```\n\n```text\n1\n```\n", 0),
        ("```python\nx = 1\n```\n\n```text\n1\n```\n", 1),
    ],
)
def test_examples_are_compared(text: str, wrong: int) -> None:
    assert len(unfulfilled(text, "example")) == wrong


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("training", TrainConfig),
        ("decoding", DecodeConfig),
        ("generation", GenerationConfig),
        ("speech", SpeechDataConfig),
        ("speech", AugmentConfig),
        ("speech", TranscriptionConfig),
        ("speech", Pauses),
        ("data", PairDataConfig),
        ("data", TextDataConfig),
        ("classification", LabelledDataConfig),
        ("classification", MaskedTextConfig),
        ("pictures", PictureDataConfig),
        ("pictures", Augmentation),
        ("pictures", VitConfig),
        ("traffic", SensorDataConfig),
        ("traffic", GmanConfig),
        ("text-to-text", MixtureConfig),
        ("text-to-text", MixturePart),
        ("data", CleaningRules),
        ("data", TokenizerConfig),
    ],
)
def test_every_option_is_described(name: str, config: type[Any]) -> None:
    text = re.sub(BLOCK, "", (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"))
    named = " ".join(re.findall(r"`([^`]+)`", text))
    missing = [
        field.name for field in dataclasses.fields(config) if not re.search(rf"(?<!\w){field.name}(?![\w.])", named)
    ]
    assert not missing, f"docs/{name}.md does not tell of {', '.join(missing)}"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.up_to_pairs:,.0f}")
def test_automatic_sizes_are_as_described(size: Size) -> None:
    cells = (
        "more" if math.isinf(size.up_to_pairs) else f"{size.up_to_pairs:,}",
        f"{size.d_model}",
        f"{size.num_heads}",
        " + ".join(map(str, size.layers)),
        f"{size.vocab_size:,}",
        f"{size.dropout}",
        f"{size.batch_tokens:,}",
        f"{size.learning_rate}",
        f"{size.warmup_steps:,}",
        f"{size.pairs_seen:,}",
    )
    assert f"| {' | '.join(cells)} |" in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")

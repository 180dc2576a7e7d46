"""From files of texts, labelled or not, to a tokenizer and cached rows of ids: for tasks of an encoder alone."""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from zhuyi.atomic import replacing
from zhuyi.data.corpus import Corpus, write_corpus
from zhuyi.data.labelled_texts import LabelledText, Layout, read_all_texts
from zhuyi.data.normalization import contains_han, simplify
from zhuyi.data.origins import forget_unless, origin_of
from zhuyi.data.pairs import CleaningReport
from zhuyi.data.splitting import hash_key, split_off
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig
from zhuyi.errors import InputError
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.text_data import find_tokenizer

SPLITS = ("train", "valid")
TEXT_COLUMNS: dict[str, Literal["ids", "text"]] = {"text": "text", "second": "text", "label": "text"}
TEXTS_A_CHUNK = 10_000


class EncoderDataConfig(Protocol):
    """What the configs of such tasks have in common."""

    @property
    def train(self) -> tuple[str, ...]: ...
    @property
    def valid(self) -> tuple[str, ...]: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def simplify(self) -> bool: ...
    @property
    def valid_size(self) -> int: ...
    @property
    def tokenizer(self) -> TokenizerConfig: ...


def check_encoder_data(config: Any) -> None:
    """Refuse what cannot be in a config of such a task.

    Raises: ValueError: names the key.
    """
    if config.valid_size < 1:
        raise ValueError(f"valid_size must be at least 1, got {config.valid_size}")
    if config.max_len < 4:
        raise ValueError(f"max_len must be at least 4, for a token and the signs, got {config.max_len}")
    if min(config.columns) < 1:
        raise ValueError(f"columns are counted from 1, got {', '.join(map(str, config.columns))}")
    if "-" in (*config.train, *config.valid, *config.test):
        raise ValueError("training needs to read its texts more than once: give a file, not -")
    try:
        is_ascii_below = "\n".encode(codecs.lookup(config.encoding).name) == b"\n"
    except (LookupError, UnicodeError):
        raise ValueError(
            f"encoding = {config.encoding} is none that Python knows; utf-8, latin-1, gb18030 are"
        ) from None
    if not is_ascii_below:
        raise ValueError(f"encoding = {config.encoding}: lines cannot be told apart in it; turn the file into utf-8")


def read_simplified(
    files: Sequence[str], layout: Layout, simplified: bool, report: CleaningReport
) -> Iterator[LabelledText]:
    """The texts of some files, in the characters that the run is trained on.

    Raises: InputError: no text, or a file that cannot be read.
    """
    for each in read_all_texts(files, layout, report):
        yield each._replace(text=in_characters(each.text, simplified), second=in_characters(each.second, simplified))


def in_characters(text: str, simplified: bool) -> str:
    """A text in simplified characters, where a run is trained on these."""
    return simplify(text) if simplified and contains_han(text) else text


def prepare_texts(
    config: EncoderDataConfig,
    folder: Path,
    seed: int,
    announce: Announce,
    *,
    begun: bool,
    check: Callable[[Sequence[LabelledText], Sequence[LabelledText]], None] = lambda train, valid: None,
) -> tuple[dict[str, Corpus], str]:
    """The texts of both splits, read once, and a note of what they were made from.

    Args:   begun: training has begun on what is there: it is used whatever has become of the files since.
            check: refuses what is wrong with the texts of `train` and `valid`, which still know their lines.
    Raises: InputError: no file, no text in it, or too few to hold some out.
    """
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    if not config.train:
        raise InputError("no training data: set data.train or give --train FILE")
    made_from = [asdict(config.layout), config.simplify, config.valid_size, asdict(config.tokenizer), seed]
    origin = origin_of(made_from, (*config.train, *config.valid), cache / "read-from.json", begun)
    made = [cache / name for split in SPLITS for name in (f"{split}-text.arrow", f"{split}.arrow")]
    forget_unless(cache / "read-from.json", origin, [cache / "cleaning.json", *made])
    if not (cache / "cleaning.json").exists():
        _read(config, cache, seed, announce, check)
    return {split: Corpus.open(cache / f"{split}-text.arrow") for split in SPLITS}, origin


def prepare_tokenizer(
    config: TokenizerConfig, folder: Path, origin: str, texts: Corpus, announce: Announce
) -> Tokenizer:
    """The run's tokenizer, trained on first and second texts where it is not there."""
    return find_tokenizer(
        config,
        folder,
        origin,
        lambda: (text for column in ("text", "second") for text in texts.texts(column)),
        announce,
    )


def prepare_rows(
    folder: Path,
    encoded_by: Any,
    texts: Mapping[str, Corpus],
    columns: Mapping[str, Literal["ids", "text"]],
    encode: Callable[[Sequence[tuple[str, str, str]]], Iterator[Sequence[Sequence[int] | str]]],
) -> dict[str, Corpus]:
    """The rows of both splits, tokenised once.

    Args:   encoded_by: whatever the rows follow from besides the texts, as JSON has it.
            encode: rows of the columns, of some (text, second text, label).
    """
    cache = folder / "cache"
    files = {split: cache / f"{split}.arrow" for split in SPLITS}
    forget_unless(cache / "encoded-by.json", json.dumps(encoded_by), list(files.values()))
    for split, path in files.items():
        if not path.exists():
            write_corpus(path, columns, (row for chunk in _chunks(texts[split]) for row in encode(chunk)))
    return {split: Corpus.open(path) for split, path in files.items()}


def _chunks(texts: Corpus) -> Iterator[list[tuple[str, str, str]]]:
    rows = zip(texts.texts("text"), texts.texts("second"), texts.texts("label"), strict=True)
    while chunk := list(islice(rows, TEXTS_A_CHUNK)):
        yield chunk


def _read(
    config: EncoderDataConfig,
    cache: Path,
    seed: int,
    announce: Announce,
    check: Callable[[Sequence[LabelledText], Sequence[LabelledText]], None],
) -> None:
    """Write the texts of both splits, then the report, whose presence says that both are there."""
    report = CleaningReport(things="texts")
    everything = list(read_simplified(config.train, config.layout, config.simplify, report))
    announce(report.summary())
    held_out: list[LabelledText] = []
    if config.valid:
        valid_report = CleaningReport(things="texts")
        held_out = list(read_simplified(config.valid, config.layout, config.simplify, valid_report))
        announce(f"validation: {valid_report.summary()}")
    check(everything, held_out)
    if not config.valid:
        keys = np.fromiter((hash_key(f"{each.text} {each.second}") for each in everything), np.uint64, len(everything))
        chosen = split_off(keys, keys, config.valid_size, seed)
        if not chosen.any():
            raise InputError(
                f"{len(everything):,} texts are too few, or too much alike, to hold some out for validation; give "
                "more, or validation texts of their own by --valid FILE"
            )
        held_out = [each for each, is_chosen in zip(everything, chosen, strict=True) if is_chosen]
        everything = [each for each, is_chosen in zip(everything, chosen, strict=True) if not is_chosen]
        announce(f"held out {len(held_out):,} texts for validation; none of them is in the rest")
    for split, kept in (("train", everything), ("valid", held_out)):
        rows = ((each.text, each.second, each.label) for each in kept)
        write_corpus(cache / f"{split}-text.arrow", TEXT_COLUMNS, rows)
    with replacing(cache / "cleaning.json") as path:
        path.write_text(json.dumps(report.as_dict(), ensure_ascii=False, indent=1), encoding="utf-8")

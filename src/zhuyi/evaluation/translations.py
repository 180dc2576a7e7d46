"""Translations against references, of one task or of several."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zhuyi.data.pairs import CleaningReport, read_pairs, refuse_another_encoding
from zhuyi.errors import InputError
from zhuyi.evaluation.wanted import Wanted, write_lines
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.predict import Translator
from zhuyi.tasks.mixture import MixtureConfig, MixturePart
from zhuyi.tasks.pair_data import PairDataConfig


def evaluate_translations(
    translator: Translator, wanted: Wanted, warn: Callable[[str], None], data: PairDataConfig | None = None
) -> dict[str, Any]:
    """BLEU and chrF with their signature, and the speed."""
    return evaluate_pairs(
        translator,
        wanted.files,
        data=data,
        options={"task": wanted.task, "prefix": wanted.prefix},
        columns=(wanted.columns or (1, 2)) if wanted.files else None,
        beam=wanted.beam,
        alpha=wanted.alpha,
        lowercase=wanted.lowercase,
        output=wanted.output,
        warn=warn,
    )


def evaluate_tasks(translator: Translator, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss`, `bleu` and `chrf` of each task that has test pairs, and their means; of one task all there is."""
    config: MixtureConfig = translator.config.data
    parts = {part.name: part for part in config.mixture if part.name in config.prefixes}
    if wanted.task is not None:
        translator.prefix(wanted.task)  # refuses one that is not there
    if wanted.files or wanted.task is not None:
        part = _part_meant(list(parts.values()), wanted)
        return _evaluate_task(translator, wanted, warn, config.pairs_of(part) if part else PairDataConfig())[0]
    tested = [name for name, part in parts.items() if part.test]
    if not tested:
        raise InputError("the run has no test pairs of its own; give some by --pairs FILE")
    if wanted.output or wanted.prefix is not None:
        raise InputError(f"--output and --prefix are for one task; choose it by --task {' or '.join(tested)}")
    found = {
        name: _evaluate_task(translator, replace(wanted, task=name), warn, config.pairs_of(parts[name]))
        for name in tested
    }
    tokens = sum(count for _, count in found.values())
    scores: dict[str, Any] = {
        "valid_loss": round(sum(each["valid_loss"] * count for each, count in found.values()) / max(1, tokens), 4)
    }
    scores |= {f"valid_loss_{name}": each["valid_loss"] for name, (each, _) in found.items()}
    for key in ("bleu", "chrf"):
        scores[key] = round(sum(each[key] for each, _ in found.values()) / len(found), 4)
        scores |= {f"{key}_{name}": each[key] for name, (each, _) in found.items()}
    return scores | {f"signature_{name}": each["signature"] for name, (each, _) in found.items()}


def _part_meant(parts: Sequence[MixturePart], wanted: Wanted) -> MixturePart | None:
    """The part by its name, the only one, or the one of the prefix that was given."""
    if wanted.task is not None:
        parts = [part for part in parts if part.name == wanted.task]
    elif len(parts) > 1:
        parts = [part for part in parts if part.prefix == wanted.prefix]
    return parts[0] if len(parts) == 1 else None


def _evaluate_task(
    translator: Translator, wanted: Wanted, warn: Callable[[str], None], data: PairDataConfig
) -> tuple[dict[str, Any], int]:
    """The scores of one task, and how many tokens its `valid_loss` is the mean of."""
    scores = evaluate_translations(translator, wanted, warn, data)
    options: dict[str, Any] = {"task": wanted.task, "prefix": wanted.prefix}
    files, columns = list(wanted.files or data.test), wanted.columns or (data.columns if not wanted.files else (1, 2))
    read = (pair for file in files for pair in read_pairs(file, columns=columns, report=CleaningReport()))
    pairs = [(pair.source, pair.target) for pair in read if translator.reaches(pair.source, pair.target, **options)]
    found = translator.score(pairs, **options)
    tokens = sum(each.tokens for each in found)
    return {"valid_loss": round(-sum(each.log_prob for each in found) / max(1, tokens), 4), **scores}, tokens


def evaluate_pairs(
    translator: Translator,
    pairs: Sequence[str] | None,
    *,
    data: PairDataConfig | None = None,
    options: Mapping[str, Any] | None = None,
    columns: tuple[int, ...] | None = None,
    beam: int | None = None,
    alpha: float | None = None,
    lowercase: bool = False,
    output: Path | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Translate the sources and score the result against the targets, both as they stand in the files.

    Args:   pairs: files of pairs; the run's own test set where None.
            data: whose test set, columns and target language count; the run's own where None.
            options: `task` or `prefix`, as `Translator.stream` takes them.
            columns: of those files; the run's own where None.
            lowercase: score without regard to case; the signature says so.
            output: where the translations are written too, one a line.
    Raises: InputError: there is no test set, or no pair in it.
    """
    data = data or translator.config.data
    files = list(pairs or data.test)
    if not files:
        raise InputError("the run has no test pairs of its own; give some by --pairs FILE")
    report = CleaningReport()
    kept = [pair for file in files for pair in read_pairs(file, columns=columns or data.columns, report=report)]
    refuse_another_encoding(files, report)
    if report.dropped:
        warn(report.summary())
    if not kept:
        raise InputError(f"{', '.join(files)}: no pair to score")
    started = time.perf_counter()
    sources = (pair.source for pair in kept)
    found = list(translator.stream(sources, beam=beam, alpha=alpha, **(options or {})))
    seconds = time.perf_counter() - started
    if output:
        write_lines(output, (each.text for each in found))
    return {
        **translation_scores(
            [each.text for each in found], [pair.target for pair in kept], data.target, lowercase=lowercase
        ),
        "sentences": len(kept),
        "beam": translator.decode_config(beam=beam).beam,
        "tokens_per_second": round(sum(len(each.tokens) + 1 for each in found) / seconds, 1),
    }

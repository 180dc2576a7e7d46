"""The likelihood of given translations, line by line."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from zhuyi.data.pairs import CleaningReport, Pair, read_pairs, refuse_another_encoding
from zhuyi.predict import Translator

SCORED_TOGETHER = 256


def score_lines(
    translator: Translator,
    pairs: str,
    columns: tuple[int, ...],
    as_json: bool,
    warn: Callable[[str], None],
    options: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """A line for each line of pairs: log-probability and perplexity, or nothing where the line holds no pair.

    Args:   options: `task` or `prefix`, as `Translator.score` takes them.
    """
    report = CleaningReport()
    stream = read_pairs(pairs, columns=columns, report=report)
    written = 0
    while group := list(islice(stream, SCORED_TOGETHER)):
        for pair, line in zip(group, _score_group(translator, group, as_json, warn, options or {}), strict=True):
            for _ in range(pair.origin[1] - written - 1):  # lines that held no pair
                yield ""
            yield line
            written = pair.origin[1]
    refuse_another_encoding([pairs], report)
    for _ in range(report.total - written):
        yield ""
    if report.dropped:
        warn(report.summary())


def _score_group(
    translator: Translator,
    group: Sequence[Pair],
    as_json: bool,
    warn: Callable[[str], None],
    options: Mapping[str, Any],
) -> Iterator[str]:
    fitting = [pair for pair in group if translator.reaches(pair.source, pair.target, **options)]
    scores = iter(translator.score([(pair.source, pair.target) for pair in fitting], **options))
    for pair in group:
        if pair not in fitting:
            file, line = pair.origin
            warn(f"{file}:{line}: longer than the model's {translator.model.max_len} tokens; not scored")
            yield ""
            continue
        score = next(scores)
        log_prob, perplexity = round(score.log_prob, 5), round(score.perplexity, 5)
        values = {"log_prob": log_prob, "perplexity": perplexity, "tokens": score.tokens}
        yield json.dumps(values) if as_json else f"{log_prob:.5f}\t{perplexity:.5f}"

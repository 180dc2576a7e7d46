"""How likely plain texts are, and words that were taken out of them."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zhuyi.data.corpus import Corpus, write_corpus
from zhuyi.data.pairs import CleaningReport
from zhuyi.errors import InputError
from zhuyi.evaluation.wanted import Wanted, files_to_score
from zhuyi.predict import Generator, WordFiller
from zhuyi.tasks.encoder_data import read_simplified
from zhuyi.tasks.language_modelling import score_text
from zhuyi.tasks.masked_language_modelling import ROW_COLUMNS, MaskedBatches, encode_masked, masked_word_scores


def evaluate_text(generator: Generator, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` (of this text), `perplexity`, and where all of it is learned `bits_per_character`."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "output", "task", "prefix")
    config = generator.config.data
    files = list(wanted.files or config.test)
    if not files:
        raise InputError("the run has no test text of its own; give some by --test FILE")
    started = time.perf_counter()
    report = CleaningReport()
    scores, tokens = score_text(generator.model, generator.tokenizer, config, files, report)
    if report.dropped:
        warn(report.summary())
    return {**scores, "tokens": tokens, "tokens_per_second": round(tokens / (time.perf_counter() - started), 1)}


def evaluate_masked_words(filler: WordFiller, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` and `accuracy` of words taken away, drawn as the run's seed draws them."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "output", "task", "prefix")
    filler.check_head()
    data = filler.config.data
    report = CleaningReport(things="texts")
    texts = read_simplified(files_to_score(wanted, data.test), data.layout, data.simplify, report)
    rows = encode_masked(data, filler.tokenizer, [(each.text, each.second, "") for each in texts])
    if report.dropped:
        warn(report.summary())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test.arrow")
        count = write_corpus(path, ROW_COLUMNS, rows)
        train = filler.config.train
        batches = MaskedBatches(Corpus.open(path), filler.tokenizer, data.mask_share, train.batch_tokens, train.seed)
        with torch.inference_mode():
            scores = masked_word_scores(filler.model, batches)
    return {**scores, "rows": count}

"""Labels of texts and of pictures against those that are true."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from zhuyi.data.images import list_pictures
from zhuyi.data.labelled_texts import read_all_texts
from zhuyi.data.pairs import CleaningReport
from zhuyi.errors import InputError
from zhuyi.evaluation.wanted import Wanted, files_to_score, write_lines
from zhuyi.metrics.classification_scores import classification_scores
from zhuyi.predict import Classifier, PictureClassifier
from zhuyi.tasks.image_classification import picture_probabilities
from zhuyi.tasks.picture_data import PICTURES_A_CHUNK, read_pictures
from zhuyi.tasks.text_classification import number_of


def evaluate_labels(classifier: Classifier, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` (of these texts), `accuracy` and `macro_f1`."""
    wanted.refuse("beam", "alpha", "lowercase", "task", "prefix")
    data = classifier.config.data
    layout = data.layout
    if wanted.columns:
        if len(wanted.columns) not in (2, 3) or len(wanted.columns) < len(data.columns):
            raise InputError(
                f"--columns {','.join(map(str, wanted.columns))}: expected those of label"
                + (", text and second text, such as 1,2,3" if len(data.columns) == 3 else " and text, such as 1,2")
            )
        layout = replace(layout, label=wanted.columns[0], columns=wanted.columns[1:])
    files = files_to_score(wanted, data.test)
    report = CleaningReport(things="texts")
    kept = list(read_all_texts(files, layout, report))
    if report.dropped:
        warn(report.summary())
    numbers = {name: number for number, name in enumerate(classifier.labels)}
    expected = [number_of(each.label, numbers, each.origin) for each in kept]
    started = time.perf_counter()
    is_pairs = len(layout.columns) == 2
    found = classifier.classify([each.text for each in kept], [each.second for each in kept] if is_pairs else None)
    seconds = time.perf_counter() - started
    if wanted.output:
        write_lines(wanted.output, (each.label for each in found))
    return {
        "valid_loss": _mean_loss([found[i].probabilities[each.label] for i, each in enumerate(kept)]),
        **classification_scores([numbers[each.label] for each in found], expected, len(numbers)),
        "texts": len(kept),
        "texts_per_second": round(len(kept) / seconds, 1),
    }


def evaluate_pictures(classifier: PictureClassifier, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` (of these pictures), `accuracy` and `macro_f1`."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "task", "prefix")
    data, labels = classifier.config.data, classifier.labels
    report = CleaningReport(things="pictures")
    pictures = list_pictures(files_to_score(wanted, data.test), labels, report)
    numbers = {name: number for number, name in enumerate(labels)}
    names, expected, found, probabilities = list[str](), list[int](), list[int](), list[float]()
    started = time.perf_counter()
    stream = read_pictures(pictures, data.shape, report)
    while chunk := list(islice(stream, PICTURES_A_CHUNK)):
        labelled = [number_of(pictures[row].label, numbers, (pictures[row].name, 0)) for row, _ in chunk]
        probs = picture_probabilities(classifier.model, np.stack([pixels for _, pixels in chunk]), data)
        names += [pictures[row].name for row, _ in chunk]
        expected += labelled
        probabilities += probs[np.arange(len(chunk)), labelled].tolist()
        found += probs.argmax(axis=1).tolist()
    seconds = time.perf_counter() - started
    if report.dropped:
        warn(report.summary())
    if wanted.output:
        write_lines(wanted.output, (f"{name}\t{labels[each]}" for name, each in zip(names, found, strict=True)))
    return {
        "valid_loss": _mean_loss(probabilities),
        **classification_scores(found, expected, len(labels)),
        "pictures": len(found),
        "pictures_per_second": round(len(found) / seconds, 1),
    }


def _mean_loss(probabilities: Sequence[float]) -> float:
    """The mean negative log-likelihood of what had these probabilities; nothing is less likely than a number can be."""
    return -sum(math.log(max(each, sys.float_info.min)) for each in probabilities) / max(1, len(probabilities))

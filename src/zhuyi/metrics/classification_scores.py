"""How many labels are right, over all texts and label by label."""

from collections.abc import Sequence

import numpy as np


def classification_scores(found: Sequence[int], expected: Sequence[int], num_labels: int) -> dict[str, float]:
    """`accuracy`, and `macro_f1`: the mean of the labels' F1, each label counting the same however rare.

    A label that nobody gave and nobody expected counts for nothing; one that was expected and never found, or found and
    never expected, has an F1 of 0.

    Shape:  found, expected (N,) of 0 .. num_labels - 1.
    Source: van Rijsbergen 1979, chapter 7 (F1); Sokolova and Lapalme 2009, table 3 (macro average of the labels' F1).
    """
    table = np.zeros((num_labels, num_labels), np.int64)
    np.add.at(table, (np.asarray(expected, np.int64), np.asarray(found, np.int64)), 1)
    right = np.diag(table)
    seen = table.sum(axis=0) + table.sum(axis=1)  # found plus expected: F1 = 2 right / (found + expected)
    f1 = 2 * right[seen > 0] / seen[seen > 0]
    return {"accuracy": float(right.sum() / max(1, table.sum())), "macro_f1": float(f1.mean()) if len(f1) else 0.0}

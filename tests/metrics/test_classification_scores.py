"""Accuracy and macro F1 against their definitions, label by label."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.metrics.classification_scores import classification_scores


def by_definition(found: list[int], expected: list[int], num_labels: int) -> float:
    scores = []
    for label in range(num_labels):
        hits = sum(f == e == label for f, e in zip(found, expected, strict=True))
        if label not in found and label not in expected:
            continue
        precision = hits / found.count(label) if label in found else 0.0
        recall = hits / expected.count(label) if label in expected else 0.0
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(scores) / len(scores)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_macro_f1_is_the_mean_over_labels(pairs: list[tuple[int, int]]) -> None:
    found, expected = [a for a, _ in pairs], [b for _, b in pairs]
    scores = classification_scores(found, expected, 4)
    assert scores["macro_f1"] == pytest.approx(by_definition(found, expected, 4))
    assert scores["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


def test_a_worked_example() -> None:
    # Label 0: precision 2/3, recall 1; label 1: precision 1, recall 1/2; F1 4/5 and 2/3.
    scores = classification_scores([0, 0, 0, 1], [0, 0, 1, 1], 2)
    assert scores == pytest.approx({"accuracy": 0.75, "macro_f1": (4 / 5 + 2 / 3) / 2})


def test_always_the_commonest_label_is_good_at_nothing_else() -> None:
    scores = classification_scores([0] * 10, [0] * 9 + [1], 2)
    assert scores["accuracy"] == 0.9
    assert scores["macro_f1"] == pytest.approx((2 * 0.9 / 1.9) / 2)

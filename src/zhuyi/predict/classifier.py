"""A classification run in memory: texts to labels with probabilities, and to embeddings."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from zhuyi.data.windows import windows
from zhuyi.predict.text_encoder import BATCH_TOKENS, EncoderRun
from zhuyi.tasks.text_classification import label_probabilities


@dataclass(frozen=True)
class Classification:
    """The likeliest label of a text or a picture.

    Args:   probabilities: of all labels, in the model's order.
            flags: `cut`: the text was longer than the model reads, and its end was left out.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    flags: tuple[str, ...] = ()

    def as_json(self) -> str:
        """One line of JSON."""
        values = {
            "label": self.label,
            "probability": round(self.probability, 5),
            "probabilities": {label: round(probability, 5) for label, probability in self.probabilities.items()},
            "flags": self.flags,
        }
        return json.dumps(values, ensure_ascii=False)


class Classifier(EncoderRun):
    """A classification run in memory: `model` is the module, `config` what it was made from."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels' names, in the model's order."""
        return tuple(self.config.data.labels)

    def classify(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> list[Classification]:
        """Label texts, or pairs of them; as many answers come back, in the same order.

        Args: seconds: of pairs, the second texts.
        """
        rows = self._encoder.rows(texts, seconds)
        if not rows:
            return []
        found = label_probabilities(self.model, rows, BATCH_TOKENS)
        return [
            Classification(
                self.labels[int(probs.argmax())],
                float(probs.max()),
                dict(zip(self.labels, probs.tolist(), strict=True)),
                ("cut",) if row.is_cut else (),
            )
            for row, probs in zip(rows, found, strict=True)
        ]

    def stream(self, texts: Iterable[str]) -> Iterator[Classification]:
        """As `classify`, one after the other, in memory bounded by a window of texts."""
        for window in windows(texts):
            yield from self.classify(window)

"""A classification run in memory: texts to labels with probabilities, and to embeddings."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from zhuyi.data.encoder_rows import EncoderRow
from zhuyi.data.windows import windows
from zhuyi.errors import InputError
from zhuyi.predict.text_encoder import BATCH_TOKENS, EncoderRun
from zhuyi.tasks.text_classification import label_probabilities


@dataclass(frozen=True)
class Classification:
    """The likeliest label of a text or a picture.

    Args:   probabilities: of all labels, in the model's order.
            flags: `cut`: the text was longer than the model reads, and its end was left out; `single`: there was no
            second text, of a run that labels pairs; `empty`: there was nothing to read.
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

        Args:   seconds: of pairs, the second texts.
        Raises: InputError: the run was trained on pairs, and there are none.
        """
        if seconds is None and self.of_pairs:
            raise InputError("this run labels pairs of texts: give the second ones too, classify(texts, seconds)")
        rows = self._encoder.rows(texts, seconds)
        if not rows:
            return []
        found = label_probabilities(self.model, rows, BATCH_TOKENS)
        return [
            Classification(
                self.labels[int(probs.argmax())],
                float(probs.max()),
                dict(zip(self.labels, probs.tolist(), strict=True)),
                (*(("cut",) if row.is_cut else ()), *(("empty",) if row.is_empty else ())),
            )
            for row, probs in zip(rows, found, strict=True)
        ]

    def classify_lines(self, lines: Sequence[str]) -> list[Classification]:
        """As `classify`, of a text a line; where the run was trained on pairs, of TEXT<TAB>SECOND."""
        if not self.of_pairs:
            return self.classify(lines)
        pairs = [line.partition("\t") for line in lines]
        found = self.classify([text for text, _, _ in pairs], [second for _, _, second in pairs])
        return [
            each if tab else replace(each, flags=(*each.flags, "single"))
            for each, (_, tab, _) in zip(found, pairs, strict=True)
        ]

    def stream(self, lines: Iterable[str]) -> Iterator[Classification]:
        """As `classify_lines`, one after the other, in memory bounded by a window of texts."""
        for window in windows(lines):
            yield from self.classify_lines(window)

    def _row(self, text: str) -> EncoderRow:
        """One text as the model reads it; where the run was trained on pairs, TEXT<TAB>SECOND."""
        first, _, second = text.partition("\t")
        return self._encoder.rows([first], [second])[0] if self.of_pairs else super()._row(text)

    @property
    def of_pairs(self) -> bool:
        """Whether the run labels pairs of texts."""
        return len(self.config.data.columns) == 3  # those of the label and both texts

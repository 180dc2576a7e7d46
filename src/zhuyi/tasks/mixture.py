"""Several tasks told apart by a prefix: pairs and plain text, each with its share."""

import re
from dataclasses import dataclass, field
from typing import Literal

from zhuyi.data.pairs import CleaningRules
from zhuyi.data.spans import count_spans, longest_within
from zhuyi.data.texts import Documents
from zhuyi.data.tokenizers import TokenizerConfig
from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.tasks.text_data import TextDataConfig


@dataclass(frozen=True)
class MixturePart:
    """One of the tasks of a model, or plain text to learn a language from.

    Args:   name: by which a user chooses the task, and which its scores are named after.
            objective: `pairs` of what is read and what is written, or `spans` taken out of plain text.
            train, valid, test: files, of pairs or of text, `.gz` or not; of text, `test` is only what `disjoint` keeps
            out of training: lines, or the columns of a TSV.
            prefix: what every source begins with, so that the model knows what is wanted.
            weight: its share of the rows trained on, beside the other parts' weights.
            columns: which columns of a TSV are source and target, from 1.
            target: the target's language code, which chooses how BLEU cuts words.
            documents: of plain text: whole files, paragraphs or lines, which follow one another without a break.
    """

    name: str
    train: tuple[str, ...]
    objective: Literal["pairs", "spans"] = "pairs"
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    prefix: str = ""
    weight: float = 1.0
    columns: tuple[int, int] = (1, 2)
    target: str = "tgt"
    documents: Documents = "file"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w-]*", self.name):
            raise ValueError(f"name = '{self.name}': expected letters, digits, - and _, such as zh-en")
        if not self.train:
            raise ValueError(f"{self.name} has no files in train")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"the weight of {self.name} must be above 0, got {self.weight}")
        if self.objective == "spans" and self.prefix:
            raise ValueError(f"{self.name} takes spans out of text and has no prefix, got '{self.prefix}'")


@dataclass(frozen=True)
class MixtureConfig:
    """The parts of a mixture and how they become ids; without parts, those of an imported model.

    Args:   valid_size: pairs held out of a part where it has no `valid`.
            disjoint: leave out of a part's `train` what shares a sentence with its `valid` or `test`; of plain text,
            what stands in any part's, or is held out of one.
            valid_share: the last part of a plain text, held out likewise.
            max_len: tokens of a side, end sign included; longer pairs are left out, and texts are cut to fit.
            span_share, mean_span: how much of a text is taken away, and how many tokens at a time.
            sentinels: signs for what was taken away, at the end of the vocabulary.
    """

    mixture: tuple[MixturePart, ...] = ()
    valid_size: int = 500
    disjoint: bool = False
    valid_share: float = 0.02
    max_len: int = 128
    span_share: float = 0.15
    mean_span: float = 3.0
    sentinels: int = 100
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    cleaning: CleaningRules = field(default_factory=CleaningRules)

    def __post_init__(self) -> None:
        names = [part.name for part in self.mixture]
        if len(set(names)) < len(names):
            raise ValueError(f"two parts of the mixture have one name: {', '.join(names)}")
        if not self.tokenizer.joint:
            raise ValueError("all parts of a mixture share one tokenizer: leave tokenizer.joint out")
        if not 0 < self.span_share < 1 or not 1 <= self.mean_span < float("inf"):
            raise ValueError(
                f"span_share lies between 0 and 1 and mean_span is at least 1, got {self.span_share} and "
                f"{self.mean_span}"
            )
        spans = [part for part in self.mixture if part.objective == "spans"]
        if spans and not self.segment_len:
            raise ValueError(f"max_len = {self.max_len} is too short to take spans out of a text")
        needed = count_spans(self.segment_len, self.span_share, self.mean_span)[1] + 1 if spans else 0
        if self.sentinels < needed:
            raise ValueError(f"sentinels = {self.sentinels}, but texts of {self.max_len} tokens take up to {needed}")
        for part in self.mixture:  # what is wrong with their files and sizes
            _ = self.pairs_of(part) if part.objective == "pairs" else self.text_of(part)

    @property
    def train(self) -> tuple[str, ...]:
        """All parts' files."""
        return tuple(file for part in self.mixture for file in part.train)

    @property
    def valid(self) -> tuple[str, ...]:
        """All parts' files."""
        return tuple(file for part in self.mixture for file in part.valid)

    @property
    def test(self) -> tuple[str, ...]:
        """All parts' files."""
        return tuple(file for part in self.mixture for file in part.test)

    @property
    def prefixes(self) -> dict[str, str]:
        """What a source of each task begins with, by the task's name."""
        return {part.name: part.prefix for part in self.mixture if part.objective == "pairs"}

    @property
    def segment_len(self) -> int:
        """How many tokens of a plain text are taken together, such that both sides keep to `max_len`."""
        return longest_within(self.max_len, self.span_share, self.mean_span)

    def check_score(self, name: str) -> None:
        """Whether evaluation gives such a score.

        Raises: ValueError: it is one of pairs, and there are none.
        """
        if self.mixture and not self.prefixes and name != "loss":
            raise ValueError(f"{name} is a score of pairs, but every part of data.mixture takes spans; choose loss")

    def describe(self) -> str:
        """The data in a line, for people."""
        return "; ".join(f"{part.name}: {', '.join(part.train)}" for part in self.mixture)

    def pairs_of(self, part: MixturePart) -> PairDataConfig:
        """A part as the data of a translation; its prefix is left out."""
        return PairDataConfig(
            target=part.target,
            train=part.train,
            valid=part.valid,
            test=part.test,
            columns=part.columns,
            disjoint=self.disjoint,
            valid_size=self.valid_size,
            max_len=self.max_len,
            tokenizer=self.tokenizer,
            cleaning=self.cleaning,
        )

    def text_of(self, part: MixturePart) -> TextDataConfig:
        """A part as plain text."""
        return TextDataConfig(
            train=part.train,
            valid=part.valid,
            test=part.test,
            documents=part.documents,
            valid_share=self.valid_share,
            max_len=max(2, self.segment_len),
            tokenizer=self.tokenizer,
        )

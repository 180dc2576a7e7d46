"""What a request asks of the engine, and how its answers get from the engine's thread to those who wait."""

import asyncio
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zhuyi.decoding import Rule
from zhuyi.decoding.config import Constraint, GenerationConfig
from zhuyi.predict import Translation
from zhuyi.serving.runs import ServedRun
from zhuyi.tasks.glossary import Glossary


@dataclass(frozen=True)
class TranslateOptions:
    """How texts are translated, as `Translator.translate` has it; texts of equal options share a batch."""

    beam: int | None = None
    n_best: int = 1
    alpha: float | None = None
    rule: Rule | None = None
    seed: int = 1
    task: str | None = None
    prefix: str | None = None
    constraint: Constraint | None = None
    same_length: bool = False
    placeholders: bool | None = None


@dataclass(eq=False)
class Job:
    """One request's work.

    Args:   cost: about how many characters or tokens it is.
            loop: of those who wait for it.
            answers: what they get: parts of the answer, then `END` or an exception.
            has_begun: there is an answer of it already.
    """

    run: ServedRun
    cost: int
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    answers: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)
    has_begun: bool = False


class End:
    """That an answer is complete."""


END = End()


@dataclass(eq=False)
class TranslationJob(Job):
    """Texts to translate; the answer is one list.

    Args:   glossaries: of each text, or none at all.
    """

    texts: Sequence[str] = ()
    glossaries: Sequence[Glossary | None] = ()
    options: TranslateOptions = field(default_factory=TranslateOptions)
    found: dict[int, Translation] = field(default_factory=dict)


@dataclass(eq=False)
class GenerationJob(Job):
    """Prompts to continue, as texts or as ids; the answers are chunks."""

    prompts: Sequence[str | Sequence[int]] = ()
    decode: GenerationConfig = field(default_factory=GenerationConfig)
    samples: int = 1
    seed: int = 1
    unfinished: int = 0


@dataclass(eq=False)
class CallJob(Job):
    """A function to call once; the answer is what it returns, or its exception."""

    function: Callable[[], Any] = lambda: None


@dataclass(eq=False)
class BatchedJob(Job):
    """Items for one call of a function over those of several requests; the answer is a list of as many."""

    kind: Hashable = None
    items: Sequence[Any] = ()
    function: Callable[[list[Any]], Sequence[Any]] = list


@dataclass(eq=False)
class PiecewiseJob(Job):
    """Work in pieces, between which others get their turn; the answer is what the generator returns."""

    function: Callable[[], Generator[None, None, Any]] | None = None
    pieces: Generator[None, None, Any] | None = None


class Outbox:
    """Answers on their way out of the engine's thread: those of one step go together."""

    def __init__(self) -> None:
        self._answers: dict[asyncio.AbstractEventLoop, list[tuple[Job, Any]]] = {}

    def put(self, job: Job, answer: Any) -> None:
        self._answers.setdefault(job.loop, []).append((job, answer))

    def flush(self) -> None:
        answers, self._answers = self._answers, {}
        for loop, of_loop in answers.items():
            try:
                loop.call_soon_threadsafe(_hand_over, of_loop)
            except RuntimeError:  # the loop is closed, and with it everyone who waited
                continue


def _hand_over(answers: list[tuple[Job, Any]]) -> None:
    for job, answer in answers:
        job.answers.put_nowait(answer)

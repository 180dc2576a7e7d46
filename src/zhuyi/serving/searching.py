"""How the texts of several requests are searched for together: translated, or continued."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from zhuyi.decoding.config import GenerationConfig
from zhuyi.serving.jobs import GenerationJob, TranslateOptions, TranslationJob
from zhuyi.serving.runs import ServedRun
from zhuyi.tasks.continuation import Chunk, ContinuationSearch
from zhuyi.tasks.text_search import TextSearch


def shared(decode: GenerationConfig) -> GenerationConfig:
    """What a search's texts have in common; the rest is each one's own."""
    return replace(decode, max_new_tokens=1, stop=())


@dataclass(frozen=True)
class Found:
    """What a step found for a job.

    Args:   is_last: with it the job is done.
    """

    job: Any
    answer: Any
    tokens: int
    is_last: bool


class Searching(Protocol):
    """How texts of one kind are searched for."""

    def open(self) -> Any:
        """A search with no texts in it."""
        ...

    def admit(self, search: Any, job: Any) -> Iterator[None]:
        """Take a job in, piece by piece: each `yield` comes after a moment's work."""
        ...

    def drop(self, search: Any, job: Any) -> None: ...

    def advance(self, search: Any) -> list[Found]: ...


class Translating:
    """Texts that are translated: those of one run and equal options."""

    def __init__(self, run: ServedRun, options: TranslateOptions, batch_tokens: int) -> None:
        self._translator, self._options, self._batch_tokens = run.predictor, options, batch_tokens

    def open(self) -> TextSearch:
        options = self._options
        search: TextSearch = self._translator.open_search(
            beam=options.beam,
            n_best=options.n_best,
            alpha=options.alpha,
            rule=options.rule,
            seed=options.seed,
            task=options.task,
            prefix=options.prefix,
            constraint=options.constraint,
            same_length=options.same_length,
            placeholders=options.placeholders,
            batch_tokens=self._batch_tokens,
        )
        return search

    def admit(self, search: TextSearch, job: TranslationJob) -> Iterator[None]:
        turn = 0
        for place, text in enumerate(job.texts):
            if place not in job.found:
                plan = []
                for part in search.plan(self._translator.read(text), job.glossaries[place] if job.glossaries else None):
                    plan.append(part)
                    yield
                turn += search.admit_plan((job, place), plan, turn=turn)
                yield

    def drop(self, search: TextSearch, job: TranslationJob) -> None:
        search.drop([(job, place) for place in range(len(job.texts))])

    def advance(self, search: TextSearch) -> list[Found]:
        found = []
        key: Any
        for key, translation in search.advance():
            job, place = key
            job.found[place] = translation
            is_last = len(job.found) == len(job.texts)
            answer = [job.found[i] for i in range(len(job.texts))] if is_last else None
            found.append(Found(job, answer, len(translation.tokens), is_last))
        return found


class Continuing:
    """Texts that are continued: those of one run and equal options of drawing."""

    def __init__(self, run: ServedRun, decode: GenerationConfig) -> None:
        self._generator, self._decode = run.predictor, shared(decode)

    def open(self) -> ContinuationSearch:
        return ContinuationSearch(self._generator.model, self._generator.tokenizer, self._decode)

    def admit(self, search: ContinuationSearch, job: GenerationJob) -> Iterator[None]:
        job.unfinished = len(job.prompts) * job.samples
        limit, stop = job.decode.max_new_tokens, job.decode.stop
        for i, prompt in enumerate(job.prompts):
            ids = self._generator.begin(prompt) if isinstance(prompt, str) else prompt
            for k in range(job.samples):
                search.admit((job, i, k), ids, sample=k, seed=job.seed, max_new_tokens=limit, stop=stop)
            yield

    def drop(self, search: ContinuationSearch, job: GenerationJob) -> None:
        search.drop([(job, i, k) for i in range(len(job.prompts)) for k in range(job.samples)])

    def advance(self, search: ContinuationSearch) -> list[Found]:
        found = []
        for piece in search.advance():
            job, prompt, sample = piece.key
            job.has_begun = True
            job.unfinished -= piece.written is not None
            tokens = len(piece.written.tokens) if piece.written else 0
            found.append(Found(job, Chunk(prompt, sample, piece.text, piece.written), tokens, not job.unfinished))
        return found

"""Which words of texts and of their translations belong together, between the steps of others."""

from collections.abc import Generator, Sequence

from zhuyi.errors import InputError
from zhuyi.predict.alignment import Alignment, align
from zhuyi.serving.engine import Engine
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.runs import ServedRun
from zhuyi.tasks.tag_placement import Link


async def aligned(
    engine: Engine, run: ServedRun, pairs: Sequence[tuple[str, str]], options: TranslateOptions
) -> list[Alignment | None]:
    """Of each text and its translation, by where the decoder looked; None: they are too long, or it looks nowhere."""
    if not pairs:
        return []

    def one_by_one() -> Generator[None, None, list[Alignment | None]]:
        found: list[Alignment | None] = []
        for source, target in pairs:
            try:
                maps = run.predictor.attention(source, target, task=options.task, prefix=options.prefix)
                found.append(align(maps))
            except InputError:
                found.append(None)
            yield
        return found

    cost = sum(len(source) + len(target) for source, target in pairs)
    answer: list[Alignment | None] = await engine.piecewise(run, one_by_one, cost=cost)
    return answer


async def linked(
    engine: Engine, run: ServedRun, pairs: Sequence[tuple[str, str]], options: TranslateOptions
) -> list[list[Link]]:
    """Of each text and its translation, which words of the one came from which of the other."""
    if not pairs:
        return []

    def one_by_one() -> Generator[None, None, list[list[Link]]]:
        found: list[list[Link]] = []
        for source, target in pairs:
            found.append(
                (yield from run.predictor.word_links(source, target, task=options.task, prefix=options.prefix))
            )
            yield
        return found

    cost = sum(len(source) + len(target) for source, target in pairs)
    answer: list[list[Link]] = await engine.piecewise(run, one_by_one, cost=cost)
    return answer

"""Which words of texts and of their translations belong together, by where the decoder looked."""

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
    """Of each text and its translation; None where they are longer than one look of the model, or it has none."""
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


def links(alignment: Alignment | None, source: str, target: str) -> list[Link]:
    """The alignment's words by their places in the texts; none of those that are not written there as they are."""
    if alignment is None:
        return []
    sources, targets = _places(alignment.source, source), _places(alignment.target, target)
    return [
        Link(*begun, *become)
        for from_source, from_target in alignment.pairs
        if (begun := sources[from_source]) and (become := targets[from_target])
    ]


def _places(words: Sequence[str], text: str) -> list[tuple[int, int] | None]:
    """Where each word stands, one behind the other; tokens may be of a text that was normalised first."""
    found: list[tuple[int, int] | None] = []
    here = 0
    for word in words:
        place = text.find(word, here)
        if place < 0:
            found.append(None)
            continue
        here = place + len(word)
        found.append((place, here))
    return found

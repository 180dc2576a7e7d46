"""HTML through a translation run, by the engine."""

import asyncio
from collections.abc import Sequence

from zhuyi.errors import InputError
from zhuyi.predict import Translation
from zhuyi.serving.engine import Engine
from zhuyi.serving.html_text import Stretch, join, stretches
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.runs import ServedRun
from zhuyi.serving.word_links import linked
from zhuyi.tasks.glossary import Entry, Glossary


async def translate_html(engine: Engine, run: ServedRun, pages: Sequence[str], options: TranslateOptions) -> list[str]:
    """Pages of HTML, or pieces of such, translated together: their tags kept, and what is no prose let be.

    Raises: InputError: they are too long together.
    """
    if (size := sum(map(len, pages))) > (most := engine.settings.max_text_characters):
        raise InputError(f"a request holds {size:,} characters of HTML; it may hold {most:,}")
    cut = await asyncio.to_thread(lambda: [stretches(page) for page in pages])
    parts = [part for of_page in cut for part in of_page if isinstance(part, Stretch)]
    found: list[Translation] = []
    for first in range(0, len(parts), engine.settings.max_texts):
        few = parts[first : first + engine.settings.max_texts]
        glossaries = [_kept(run, part) for part in few]
        found += await engine.translate(
            run, [part.text for part in few], options, glossaries if any(glossaries) else ()
        )
    tagged = [i for i, part in enumerate(parts) if any(span.start < span.end for span in part.spans)]
    of_tagged = await linked(engine, run, [(parts[i].text, found[i].text) for i in tagged], options)
    links = dict(zip(tagged, of_tagged, strict=True))

    def joined() -> list[str]:
        answers = iter((each.text, links.get(i, ())) for i, each in enumerate(found))
        return [join(of_page, [next(answers) for part in of_page if isinstance(part, Stretch)]) for of_page in cut]

    return await asyncio.to_thread(joined)


def _kept(run: ServedRun, part: Stretch) -> Glossary | None:
    """What is to stand in the translation as it stands in the text, so that it is found there again."""
    if not part.keep:
        return None
    found: Glossary = run.predictor.read_glossary(Glossary(Entry(words, (words,)) for words in part.keep))
    return found

"""HTML through a translation run, by the engine."""

import asyncio
from collections.abc import Sequence

from zhuyi.serving.engine import Engine
from zhuyi.serving.html_text import Stretch, join, stretches
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.runs import ServedRun


async def translate_html(engine: Engine, run: ServedRun, pages: Sequence[str], options: TranslateOptions) -> list[str]:
    """Pages of HTML, or pieces of such, translated in one batch: their tags kept, and what is no prose let be."""
    cut = await asyncio.to_thread(lambda: [stretches(page) for page in pages])
    texts = [part.text for parts in cut for part in parts if isinstance(part, Stretch)]
    found = iter(await engine.translate(run, texts, options))

    def joined() -> list[str]:
        return [join(parts, [(next(found).text, ()) for part in parts if isinstance(part, Stretch)]) for parts in cut]

    return await asyncio.to_thread(joined)

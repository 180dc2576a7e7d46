"""Languages as the server's clients name them, and which one a text is in."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

from zhuyi.decoding import is_translatable
from zhuyi.serving.runs import ServedRun
from zhuyi.tasks.languages import canonical

AUTO = "auto"
SHOWN = {"zh": "zh-Hans"}  # as LibreTranslate shows it


def shown(code: str) -> str:
    """A run's language as clients are told it."""
    return SHOWN.get(canonical(code), code)


# Of letters that it has never seen the library says that all languages are equally likely.
TELLS = 1e-6


class Detected(NamedTuple):
    """A language, and how sure it is, from 0 to 100."""

    language: str
    confidence: float


def pairs(runs: Iterable[ServedRun]) -> dict[tuple[str, str], ServedRun]:
    """The runs that translate from one language to another; of several for one pair the first."""
    found: dict[tuple[str, str], ServedRun] = {}
    for run in runs:
        if "translate" in run.abilities and run.source and run.target:
            found.setdefault((canonical(run.source), canonical(run.target)), run)
    return found


def codes(of_pairs: Iterable[tuple[str, str]]) -> list[str]:
    """All languages of some pairs, in order."""
    return list(dict.fromkeys(code for pair in of_pairs for code in pair))


class Detector:
    """Tells in which of some languages a text is; a language that the library does not know is never found.

    py3langid reads its model (4.6 MB, no pickle) at the first text that there is a choice for.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        self._languages = tuple(languages)
        self._lock = Lock()

    def detect(self, texts: Sequence[str]) -> list[Detected]:
        """The languages of some texts together, the likeliest first; none where there is nothing to tell by."""
        texts = [text for text in texts if is_translatable(text)]
        if not texts or not self._languages:
            return []
        with self._lock:
            known = self._identifier
        if known is None:
            return [Detected(self._languages[0], 100.0)]
        sums, total = dict[str, float](), 0
        for text in texts:
            shares = dict(known.rank(text))
            if max(shares.values()) - min(shares.values()) < TELLS:
                continue
            total += len(text)
            for language, share in shares.items():
                sums[language] = sums.get(language, 0.0) + share * len(text)
        found = [Detected(language, round(100 * share / total, 2)) for language, share in sums.items()]
        return sorted((each for each in found if each.confidence > 0), key=lambda each: -each.confidence)

    @cached_property
    def _identifier(self) -> Any:
        if len(self._languages) < 2:
            return None
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        chosen = set(self._languages) & set(identifier.labels)
        if len(chosen) < 2:
            return None
        identifier.set_languages(chosen)
        return identifier

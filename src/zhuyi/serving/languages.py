"""Languages as the server's clients name them, and which one a text is in."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

from zhuyi.decoding import is_translatable
from zhuyi.serving.runs import ServedRun

AUTO = "auto"
# What a run calls zh is simplified Chinese, by whatever name a client asks for it.
ALIASES = {name: "zh" for name in ("zh-hans", "zh-cn", "zh-sg", "zh-hans-cn", "zh-hans-sg", "cmn", "cmn-hans")}
SHOWN = {"zh": "zh-Hans"}  # as LibreTranslate shows it
NAMES = {
    "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan",
    "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "eo": "Esperanto",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "ga": "Irish", "gl": "Galician", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
    "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian",
    "kk": "Kazakh", "km": "Khmer", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian",
    "mn": "Mongolian", "ms": "Malay", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian",
    "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "zh": "Chinese", "zh-hant": "Chinese (traditional)",
}  # fmt: skip


def canonical(code: str) -> str:
    """A language's code as runs name it."""
    code = code.strip().replace("_", "-").lower()
    return ALIASES.get(code, code)


def shown(code: str) -> str:
    """A run's language as clients are told it."""
    return SHOWN.get(canonical(code), code)


def name_of(code: str) -> str:
    """A language's name in English; its code, where it is none of the known ones."""
    return NAMES.get(canonical(code), code)


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

"""Measure what a glossary and kept placeholders do to a run's translations.

    python examples/glossary.py zh-en --pairs test.tsv.gz
    python examples/glossary.py en-zh --pairs test.tsv.gz --columns 2,1 [--count 200] [--show 10]

Three tables' worth on the first sentences of the pairs: each with a term that its translation must have (the longest
word of its reference; and the longest that the free translation lacks), and each with placeholders, tags or a URL put
into it. Sentences whose reference is one word are left out. Chinese words are rjieba's (extra text).
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

import zhuyi
from zhuyi.data.normalization import contains_han
from zhuyi.data.pairs import CleaningReport, read_pairs
from zhuyi.data.whole_words import chinese_segmenter
from zhuyi.errors import InputError
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.predict import Translator
from zhuyi.tasks.terms import joins

Pairs = list[tuple[str, str]]

URL = "https://example.org/a?b=1&c={n}"
KINDS: dict[str, Callable[[str, str], str]] = {
    "{name}": lambda text, word: text.replace(word, "{name}", 1),
    "%s": lambda text, word: text.replace(word, "%s", 1),
    "<b>..</b>": lambda text, word: text.replace(word, f"<b>{word}</b>", 1),
    "URL": lambda text, word: text.replace(word, f" {URL} ", 1),
    "several": lambda text, word: (
        f"<p>{{count}} %(n)d</p>{text.replace(word, f'<i>{word}</i> {{0}}', 1)}<br/>a.b@c.org"
    ),
}
KEPT = re.compile(r"\{name\}|%s|</?[bip]>|<br/>|" + re.escape(URL) + r"|\{count\}|%\(n\)d|\{0\}|a@c\.org")


def words(text: str) -> list[str]:
    """The words of a text, without punctuation."""
    if contains_han(text):
        return [word for word in chinese_segmenter()(text) if re.fullmatch(r"\w+", word)]
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)


def has_term(text: str, term: str) -> bool:
    """Whether a term stands in a text, in whole words where it has letters; at a beginning with a capital too."""
    for form in (term, term[:1].upper() + term[1:]):
        for place in (match.start() for match in re.finditer(re.escape(form), text)):
            before, after = text[max(0, place - 1) : place] + form[0], form[-1] + text[place + len(form) :][:1]
            if not any(len(pair) == 2 and all(map(joins, pair)) for pair in (before, after)):
                return True
    return False


def longest(candidates: Sequence[str]) -> str:
    """The longest, of equals the first; "" of none."""
    return max(candidates, key=len, default="")


def forced(translator: Translator, pairs: Pairs, terms: Sequence[str], language: str) -> tuple[list[str], list[object]]:
    """Translations that must have a term each, and the row of the table."""
    started = time.perf_counter()
    found = translator.translate(
        [source for source, _ in pairs], glossary=[{"": term} if term else None for term in terms]
    )
    seconds = time.perf_counter() - started
    asked = [(each.text, term) for each, term in zip(found, terms, strict=True) if term]
    have = sum(has_term(text, term) for text, term in asked)
    return [each.text for each in found], [
        len(asked),
        f"{100 * have / max(1, len(asked)):.1f} %",
        *_scores([each.text for each in found], pairs, language),
        f"{seconds:.1f}",
    ]


def _scores(texts: Sequence[str], pairs: Pairs, language: str) -> tuple[str, str]:
    scores = translation_scores(texts, [target for _, target in pairs], language)
    return f"{scores['bleu']:.1f}", f"{scores['chrf']:.1f}"


def with_placeholders(pairs: Pairs) -> list[str]:
    """Each source with something to keep in the place of a word, or around one; each kind in its turn."""
    kinds = list(KINDS.values())
    return [kinds[i % len(kinds)](source, longest(words(source))) for i, (source, _) in enumerate(pairs)]


def measure(translator: Translator, pairs: Pairs, show: int) -> tuple[Table, bool]:
    """The table, and whether all that was demanded is there."""
    language = translator.config.data.target
    table = Table("", "asked", "have it", "BLEU", "chrF", "seconds", title=f"{len(pairs)} sentences")
    started = time.perf_counter()
    free = [each.text for each in translator.translate([source for source, _ in pairs])]
    missing = [
        longest([w for w in words(target) if not has_term(text, w)])
        for (_, target), text in zip(pairs, free, strict=True)
    ]
    chosen = [longest(words(target)) for _, target in pairs]
    have = sum(map(has_term, free, chosen))
    rows: list[list[object]] = [
        [
            "free",
            0,
            f"({100 * have / len(pairs):.1f} %)",
            *_scores(free, pairs, language),
            f"{time.perf_counter() - started:.1f}",
        ]
    ]
    texts = {}
    for name, terms in {"a word of the reference": chosen, "one that was not there": missing}.items():
        texts[name], row = forced(translator, pairs, terms, language)
        rows.append([name, *row])
    sources = with_placeholders(pairs)
    started = time.perf_counter()
    kept = [each.text for each in translator.translate(sources)]
    seconds = time.perf_counter() - started
    whole = [sorted(KEPT.findall(a)) == sorted(KEPT.findall(b)) for a, b in zip(sources, kept, strict=True)]
    rows.append(["placeholders", len(sources), f"{100 * sum(whole) / len(whole):.1f} %", "", "", f"{seconds:.1f}"])
    for row in rows:
        table.add_row(*map(str, row))
    for i in range(show):
        print(f"{pairs[i][0]}\n  reference  {pairs[i][1]}\n  free       {free[i]}")
        for terms, found in ((chosen, texts["a word of the reference"]), (missing, texts["one that was not there"])):
            print(f"  {terms[i]:10} {found[i]}")
        print(f"  {sources[i]}\n             {kept[i]}")
    return table, all(whole) and all(row[2] == "100.0 %" for row in rows[1:])


def main() -> None:
    """Read the options and print the table; the exit status is 1 where something demanded is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's folder or the name of a shipped model")
    parser.add_argument("--pairs", type=Path, required=True, help="sentences and their translations")
    parser.add_argument("--columns", default="1,2", help="which columns are source and target")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--show", type=int, default=0, help="print so many of the sentences too")
    options = parser.parse_args()
    if not options.pairs.is_file():
        sys.exit(f"{options.pairs}: no such file; give pairs of sentences by --pairs, Tatoeba's test part for one")
    first, second = (int(number) for number in options.columns.split(","))
    try:
        pairs = [
            (pair.source, pair.target)
            for pair in read_pairs(str(options.pairs), columns=(first, second), report=CleaningReport())
        ]
        pairs = [pair for pair in pairs if min(len(words(side)) for side in pair) > 1][: options.count]
        table, whole = measure(zhuyi.load(options.run), pairs, options.show)
    except InputError as error:
        sys.exit(f"error: {error}")
    Console(width=100).print(table)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()

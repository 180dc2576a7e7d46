"""Questions and answers of the Egret forum as pairs that training reads.

    python recipes/chat/prepare.py data/dialogue-zh/egret-wenda-corpus.zip --out data/chat

writes `data/chat/train.tsv` and `data/chat/test.tsv`, a question and its answer a line; the last tenth is for tests.
The corpus (egret-wenda-corpus, Apache License 2.0) has 2,908 questions, each with the answer that was called the best.
"""

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path

FIELD = " +++$+++ "


def read_lines(archive: zipfile.ZipFile, ending: str) -> Iterator[list[str]]:
    """The fields of each line of the file whose name ends so."""
    (name,) = (name for name in archive.namelist() if name.endswith(f"master/{ending}"))
    for line in archive.read(name).decode("utf-8").splitlines():
        yield line.split(FIELD)


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Each conversation's question and answer, white space made one space."""
    with zipfile.ZipFile(path) as archive:
        texts = {number: " ".join(FIELD.join(rest).split()) for number, _, *rest in read_lines(archive, LINES)}
        for *_, members in read_lines(archive, CONVERSATIONS):
            question, answer = (texts[number.strip()] for number in members.strip("[] ").split(","))
            if question and answer:
                yield question, answer


LINES, CONVERSATIONS = "egret_wenda_lines.txt", "egret_wenda_conversations.txt"


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = list(read_pairs(arguments.archive))
    arguments.out.mkdir(parents=True, exist_ok=True)
    cut = len(pairs) - len(pairs) // 10
    for name, part in (("train.tsv", pairs[:cut]), ("test.tsv", pairs[cut:])):
        text = "".join(f"{question}\t{answer}\n" for question, answer in part)
        (arguments.out / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{arguments.out / name}: {len(part):,} pairs")


if __name__ == "__main__":
    main()

"""Questions and answers as one text: by a template, with the answer marked as what is to be learned."""

from collections.abc import Iterator, Sequence

from zhuyi.data.pairs import EMPTY_SIDE, CleaningReport, read_pairs
from zhuyi.data.texts import Piece

QUESTION = "{question}"
DEFAULT_TEMPLATE = "问：{question}\n答："


def check_template(template: str) -> None:
    """Raise ValueError where a template does not hold one question."""
    if template.count(QUESTION) != 1:
        raise ValueError(f"template must hold {QUESTION} once, got {template!r}")


def asked(template: str, question: str) -> str:
    """What stands before the answer."""
    return template.replace(QUESTION, question)


def read_dialogues(
    files: Sequence[str], template: str, columns: tuple[int, int] = (1, 2), *, report: CleaningReport
) -> Iterator[Piece]:
    """Each pair of question and answer as a document; lines that hold none are left out, and counted.

    Args:   files: of pairs, as `read_pairs` takes them.
    Raises: InputError: a file cannot be read.
    """
    for file in files:
        for pair in read_pairs(file, columns=columns, report=report):
            if not pair.source.strip() or not pair.target.strip():
                report.drop(EMPTY_SIDE, pair.origin)
                continue
            report.kept += 1
            yield Piece(asked(template, pair.source.strip()), ends=False, is_learned=False)
            yield Piece(pair.target.strip())

"""Word and character error rates by jiwer."""

from collections.abc import Sequence

from zhuyi.errors import InputError


def speech_scores(found: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """`wer` and `cer`: edits over the number of words, or of characters, of the expected texts; fractions.

    Where nothing is expected at all, every word found is one error too many: the rate is of one word.

    Raises: InputError: the extra `audio` is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise InputError(f'error rates need the extra audio ({error}): pip install "zhuyi[audio]"') from None
    pairs = [(want, have) for want, have in zip(expected, found, strict=True) if want.strip()]
    # jiwer knows no text without a word: what was found in those is counted beside it.
    invented = [have for want, have in zip(expected, found, strict=True) if not want.strip()]
    rates = {}
    for name, process, parts in (("wer", jiwer.process_words, str.split), ("cer", jiwer.process_characters, str.strip)):
        edits, total = sum(len(parts(text)) for text in invented), 0
        if pairs:
            counts = process([want for want, _ in pairs], [have for _, have in pairs])
            edits += counts.substitutions + counts.deletions + counts.insertions
            total = counts.hits + counts.substitutions + counts.deletions
        rates[name] = edits / max(1, total)
    return rates

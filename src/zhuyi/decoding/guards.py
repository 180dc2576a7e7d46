"""What keeps a search from harm: loops, endless output, input with nothing to translate."""

import re
import unicodedata
from collections.abc import Sequence

MAX_PERIOD = 8
MAX_REPEATS = 4
_KEYCAP = re.compile("[0-9#*]\ufe0f?\u20e3")


def repeat_limit(period: int, max_repeats: int = MAX_REPEATS) -> int:
    """Return how often a group of `period` tokens must stand in a row to be called a loop."""
    # "ha ha ha ha" and "......" are text; four times the same eight tokens are not.
    return 2 * max_repeats if period <= 2 else max_repeats


def trim_repetition(
    tokens: Sequence[int],
    max_period: int = MAX_PERIOD,
    max_repeats: int = MAX_REPEATS,
    *,
    allowed_repeats: int = 0,
) -> tuple[list[int], bool]:
    """Cut a looped tail to one period, and say whether there was one."""
    count = len(tokens)
    for period in range(1, min(max_period, count) + 1):
        start = count
        while start > period and tokens[start - 1] == tokens[start - 1 - period]:
            start -= 1
        if count - start + period >= period * (repeat_limit(period, max_repeats) + allowed_repeats):
            return list(tokens[:start]), True
    return list(tokens), False


def repeats(tokens: Sequence[int], max_period: int = MAX_PERIOD) -> int:
    """Count how often the most repeated group of tokens stands in a row; 0 where none follows itself."""
    most = 0
    for period in range(1, max_period + 1):
        run = 0
        for newer, older in zip(tokens[period:], tokens, strict=False):
            run = run + 1 if newer == older else 0
            most = max(most, run // period)
    return most + 1 if most else 0


def max_output_tokens(source_tokens: int, limit: int, ratio: float = 2.0, extra: int = 10) -> int:
    """Bound an output's length by its input's, and by what the model can count to."""
    return max(1, min(limit, int(ratio * source_tokens) + extra))


def is_translatable(text: str) -> bool:
    """Tell whether a text has a letter or a digit; what has none comes back as it is."""
    if any(map(str.isalpha, text)):  # nearly always, and at once
        return True
    return any(unicodedata.category(char)[0] in "LN" for char in _KEYCAP.sub("", text))

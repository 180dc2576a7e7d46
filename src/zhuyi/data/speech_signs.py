"""The signs that stand before and within the text of speech: language, task, no speech, times (Radford et al. 2022)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError

SpeechTask = Literal["transcribe", "translate"]
SECONDS_A_STEP = 0.02  # between one sign of a time and the next
START, NO_TIMES, NO_SPEECH = "<|startoftranscript|>", "<|notimestamps|>", ("<|nospeech|>", "<|nocaptions|>")
TRANSCRIBE, TRANSLATE, FIRST_TIME = "<|transcribe|>", "<|translate|>", "<|0.00|>"
# Every sign between the end of text and the times, as the published vocabularies have them, languages left out.
BEFORE_LANGUAGES = ("<|endoftext|>", START)
AFTER_LANGUAGES = (TRANSLATE, TRANSCRIBE, "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", NO_TIMES)
NUM_TIMES = 1501  # 0.00 to 30.00
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass(frozen=True)
class SpeechSigns:
    """The ids of the signs; of a vocabulary trained here there are a start and an end alone.

    Args:   languages: ids by code.
            first_time: of 0.00 seconds; the following ids are 0.02 seconds apart.
    """

    start: int
    end: int
    languages: Mapping[str, int]
    transcribe: int | None = None
    translate: int | None = None
    no_speech: int | None = None
    no_times: int | None = None
    first_time: int | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "SpeechSigns":
        """Find the signs by their names."""
        ids = {tokenizer.pieces[i]: i for i in sorted(tokenizer.signs.others)}
        languages = {found[1]: i for name, i in ids.items() if (found := _LANGUAGE.fullmatch(name))}
        no_speech = [ids[name] for name in NO_SPEECH if name in ids]
        return cls(
            tokenizer.signs.bos,
            tokenizer.signs.eos,
            languages,
            ids.get(TRANSCRIBE),
            ids.get(TRANSLATE),
            no_speech[0] if no_speech else None,
            ids.get(NO_TIMES),
            ids.get(FIRST_TIME),
        )

    @property
    def has_times(self) -> bool:
        return self.first_time is not None and self.no_times is not None

    def seconds(self, token: int) -> float | None:
        """The time that a sign stands for; None where it is no such sign."""
        if self.first_time is None or token < self.first_time:
            return None
        return (token - self.first_time) * SECONDS_A_STEP

    def prefix(self, language: str = "", task: SpeechTask = "transcribe", *, times: bool = False) -> tuple[int, ...]:
        """What stands before a text.

        Args:   language: a code; empty where the model was not taught to tell them.
                times: whether the text is to have times within.
        Raises: InputError: there is no sign for it.
        """
        found = [self.start]
        if language:
            if language not in self.languages:
                known = ", ".join(self.languages) or "no signs for any"
                raise InputError(f"language '{language}' is none of this model's; it has {known}")
            found.append(self.languages[language])
            sign = self.transcribe if task == "transcribe" else self.translate
            if sign is None:
                raise InputError(f"this model has no sign for the task '{task}'")
            found.append(sign)
        elif task == "translate":
            raise InputError("this model was taught no other task than to write down what is said: it cannot translate")
        if not times and self.no_times is not None:
            found.append(self.no_times)
        if times and not self.has_times:
            raise InputError("this model has no signs for times")
        return tuple(found)

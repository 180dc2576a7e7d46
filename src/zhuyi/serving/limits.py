"""How much one request may ask for; what is more is refused before it waits."""

from collections.abc import Sequence

from zhuyi.decoding.config import GenerationConfig
from zhuyi.errors import InputError
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.refusals import WrongOption
from zhuyi.serving.settings import ServeSettings


def check_translation(texts: Sequence[str], options: TranslateOptions, settings: ServeSettings) -> None:
    """Refuse texts too many or too long, and searches too wide.

    Raises: InputError
    """
    check_texts(len(texts), sum(map(len, texts)), settings)
    for name, value in (("beam", options.beam or 1), ("n_best", options.n_best)):
        check_width(name, value, settings)


def check_width(name: str, value: int, settings: ServeSettings) -> None:
    """Refuse more hypotheses than a request may hold here.

    Raises: InputError
    """
    if not 1 <= value <= settings.max_beam:
        raise WrongOption(name, f"{name} is {value}; it must be from 1 to {settings.max_beam} here")


def check_generation(
    prompts: Sequence[str | Sequence[int]], decode: GenerationConfig, samples: int, settings: ServeSettings
) -> None:
    """Refuse prompts too many or too long, and texts to write that are.

    Raises: InputError
    """
    if not prompts or not all(map(len, (prompt for prompt in prompts if not isinstance(prompt, str)))):
        raise InputError("there is nothing to continue: a request has one prompt at least, and a prompt of ids one id")
    if not 1 <= samples <= settings.max_beam:
        raise WrongOption(
            "n", f"{samples} continuations of a prompt were asked for; it must be from 1 to {settings.max_beam}"
        )
    check_texts(len(prompts) * samples, sum(map(len, prompts)), settings)
    tokens = len(prompts) * samples * decode.max_new_tokens
    if tokens > settings.max_new_tokens:
        raise InputError(
            f"{len(prompts) * samples} texts of up to {decode.max_new_tokens:,} tokens are more than the "
            f"{settings.max_new_tokens:,} tokens that one request may have written; ask for less"
        )


def check_texts(count: int, characters: int, settings: ServeSettings) -> None:
    """Refuse texts too many or too long.

    Raises: InputError
    """
    if count > settings.max_texts:
        raise InputError(f"a request holds {count:,} texts; it may hold {settings.max_texts:,}")
    if characters > settings.max_text_characters:
        raise InputError(
            f"a request holds {characters:,} characters of text; it may hold {settings.max_text_characters:,}"
        )

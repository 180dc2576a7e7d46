"""A run beside the published model it was made from, both on the same few texts."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zhuyi.decoding import Greedy, Request, Rule, run
from zhuyi.interop.published_folder import PublishedFolder
from zhuyi.predict import Translator, load
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.translation import open_search

TEXTS = (
    "The house is small.",
    "Where do you come from, and where will you go?",
    "In 1996, about 40 % of them (12,300 people) spoke two languages.",
    "I don't know what she meant by that.",
    "Nothing!",
)
NEW_TOKENS = 24
# Of the largest logit: what float32 leaves of sums over a hidden state.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """What came of comparing a run with transformers.

    Args:   difference: the largest between logits (or hidden states); None: not compared.
            reason: why not.
            texts: how many of the probe's texts came out the same, of how many; None: none are written.
    """

    difference: float | None = None
    reason: str = ""
    texts: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.difference is None:
            return f"not compared with transformers ({self.reason})"
        alike = f"; {self.texts[0]} of {self.texts[1]} texts alike" if self.texts else ""
        return f"with transformers, on a probe: numbers differ by at most {self.difference:.1e}{alike}"


def compare(run_folder: RunFolder, folder: PublishedFolder) -> Comparison:
    """Compare a run with the folder it was made from, where transformers is installed.

    Raises: ArithmeticError: they do not compute the same.
    """
    try:
        import transformers
    except ImportError:
        return Comparison(reason="it is not installed")
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            return PROBES[str(folder.config["model_type"])](load(run_folder.path, "float32", "cpu"), folder)
    finally:
        transformers.utils.logging.set_verbosity(before)


def translator_probe(ours: Translator, folder: PublishedFolder) -> Comparison:
    """Logits of an encoder-decoder, the ids of texts, and what greedy search writes of them."""
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(folder.path, dtype=torch.float32).eval()
    config = ours.config.model
    sizes = [getattr(config, key, None) or config.vocab_size for key in ("source_vocab_size", "target_vocab_size")]
    generator = torch.Generator().manual_seed(1)
    src, tgt = (torch.randint(size, (3, 7 + 2 * i), generator=generator) for i, size in enumerate(sizes))
    mask = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    theirs = model(input_ids=src, attention_mask=mask.long(), decoder_input_ids=tgt).logits
    difference = checked_difference(ours.model(src, tgt, mask), theirs)
    tokenizer = their_tokenizer(folder)
    if tokenizer is None:
        return Comparison(difference)
    model.generation_config.forced_eos_token_id = None  # it would take the place of a cut text's last token
    written = write_freely(ours, TEXTS, Greedy(), NEW_TOKENS)
    same = 0
    for text, found in zip(TEXTS, written, strict=True):
        ids = tokenizer(text).input_ids
        if ids != ours.source_tokenizer.encode(text):
            raise ArithmeticError(f"the tokenizer cuts {text!r} into {ours.source_tokenizer.encode(text)}, not {ids}")
        row = model.generate(torch.tensor([ids]), num_beams=1, do_sample=False, max_new_tokens=NEW_TOKENS)[0]
        same += tokenizer.decode(row, skip_special_tokens=True).strip() == found.strip()
    return Comparison(difference, texts=(same, len(TEXTS)))


def write_freely(ours: Translator, texts: Any, rule: Rule, max_new_tokens: int) -> list[str]:
    """What a search writes where no guard steps in, as in other libraries."""
    decode = ours.config.decode
    search = open_search(
        ours.model,
        rule,
        ours.target_tokenizer.signs,
        decode.forbidden,
        guarded=False,
        renormalize=decode.renormalize,
    )
    requests = [Request(i, tuple(ours.source_tokenizer.encode(text)), max_new_tokens) for i, text in enumerate(texts)]
    found = {event.id: event.hypotheses[0] for event in run(search, requests, max_rows=64) if event.hypotheses}
    return [ours.target_tokenizer.decode(found[i].tokens) for i in range(len(found))]


def checked_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors.

    Raises: ArithmeticError: it is more than rounding explains.
    """
    if ours.shape != theirs.shape:
        raise ArithmeticError(
            f"the run's numbers have the shape {tuple(ours.shape)}, transformers' {tuple(theirs.shape)}"
        )
    difference = float((ours - theirs).abs().max())
    allowed = TOLERANCE * max(1.0, float(theirs.abs().max()))
    if not difference <= allowed:
        raise ArithmeticError(
            f"on a probe the run's numbers differ from transformers' by up to {difference:.2g}, and {allowed:.2g} "
            "would be rounding; nothing was written"
        )
    return difference


def their_tokenizer(folder: PublishedFolder) -> Any:
    """The published tokenizer as transformers opens it; None where it cannot."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder.path)
    except (ImportError, OSError, ValueError):  # it wants a package more, or a file
        return None


PROBES: dict[str, Callable[[Any, PublishedFolder], Comparison]] = {
    "marian": translator_probe,
}

"""A run beside the published model it was made from, both on the same few texts."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zhuyi.data.augmentation import middle
from zhuyi.data.images import open_picture, to_pixels
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Greedy, Request, Rule, Search, run
from zhuyi.interop.published_folder import PublishedFolder
from zhuyi.predict import Classifier, Generator, PictureClassifier, Transcriber, Translator, WordFiller
from zhuyi.tasks.continuation import begin
from zhuyi.tasks.picture_data import as_numbers, normalized
from zhuyi.tasks.sentence_search import open_search

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
    """What came of comparing a run with another library on the same model.

    Args:   difference: the largest between logits (or hidden states); None: not compared.
            reason: why not.
            texts: how many of the probe's texts came out the same, of how many; None: none are written.
    """

    difference: float | None = None
    reason: str = ""
    texts: tuple[int, int] | None = None
    library: str = "transformers"

    def __str__(self) -> str:
        if self.difference is None:
            return f"not compared with {self.library} ({self.reason})"
        alike = f"; {self.texts[0]} of {self.texts[1]} texts alike" if self.texts else ""
        return f"with {self.library}, on a probe: numbers differ by at most {self.difference:.1e}{alike}"


def compare(predictor: Any, folder: PublishedFolder) -> Comparison:
    """Compare a run in memory with a folder of Hugging Face form, where transformers is installed.

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
            return PROBES[str(folder.config["model_type"])](predictor, folder)
    finally:
        transformers.utils.logging.set_verbosity(before)


def translator_probe(ours: Translator, folder: PublishedFolder) -> Comparison:
    """Logits of an encoder-decoder, the ids of texts, and what greedy search writes of them."""
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(folder.path, dtype=torch.float32).eval()
    config = ours.config.model
    src, mask = some_ids(config.source_vocab_size, 1)
    tgt, _ = some_ids(config.target_vocab_size, 2)
    # Without a cache: theirs has no place for a decoder that is deeper than its encoder.
    theirs = model(input_ids=src, attention_mask=mask.long(), decoder_input_ids=tgt, use_cache=False).logits
    difference = checked_difference(ours.model(src, tgt, mask), theirs)
    tokenizer = their_tokenizer(folder)
    if tokenizer is None:
        return Comparison(difference)
    model.generation_config.forced_eos_token_id = None  # it would take the place of a cut text's last token
    rows = [checked_ids(ours.source_tokenizer, tokenizer, text)[-ours.model.max_len :] for text in TEXTS]
    beyond = range(ours.target_tokenizer.vocab_size, config.target_vocab_size)  # which the run never writes
    never = [*(model.generation_config.suppress_tokens or []), *beyond]
    same = 0
    for ids, found in zip(rows, write_freely(ours, rows, Greedy(), NEW_TOKENS), strict=True):
        row = model.generate(
            torch.tensor([ids]),
            num_beams=1,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            use_cache=False,
            suppress_tokens=sorted(set(never)) or None,
        )[0]
        same += tokenizer.decode(row, skip_special_tokens=True).strip() == found.strip()
    return Comparison(difference, texts=(same, len(TEXTS)))


def generator_probe(ours: Generator, folder: PublishedFolder) -> Comparison:
    """Logits of a decoder, the ids of texts, and how greedy search continues them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32).eval()
    ids, mask = some_ids(ours.config.model.vocab_size, 1)
    theirs = model(input_ids=ids, attention_mask=mask.long()).logits
    difference = checked_difference(ours.model(ids, mask)[mask], theirs[mask])
    tokenizer = their_tokenizer(folder)
    if tokenizer is None:
        return Comparison(difference)
    reach = max(1, ours.model.max_len - NEW_TOKENS)
    rows = [checked_ids(ours.tokenizer, tokenizer, text, ends=False)[:reach] for text in TEXTS]
    same = 0
    for prompt, found in zip(rows, continue_freely(ours, rows, Greedy(), NEW_TOKENS), strict=True):
        row = model.generate(
            torch.tensor([prompt]),
            num_beams=1,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=ours.tokenizer.signs.eos,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
        )[0]
        same += tokenizer.decode(row[len(prompt) :], skip_special_tokens=True) == found
    return Comparison(difference, texts=(same, len(TEXTS)))


def encoder_probe(ours: WordFiller | Classifier, folder: PublishedFolder) -> Comparison:
    """Hidden states of an encoder, what its heads say of them, and the ids of texts."""
    import transformers

    config = ours.config.model
    name = (folder.config.get("architectures") or ["AutoModel"])[0]
    model = getattr(transformers, name).from_pretrained(folder.path, dtype=torch.float32).eval()
    ids, mask = some_ids(config.vocab_size, 1)
    segments = (torch.arange(ids.shape[1]) > 2).long().expand_as(ids) if config.num_segments else None
    options = {} if segments is None else {"token_type_ids": segments}
    theirs = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, **options)
    hidden = ours.model(ids, mask, segments)
    pairs = [(hidden[mask], theirs.hidden_states[-1][mask])]
    if config.num_labels:
        pairs.append((ours.model.classifier(ours.model.pooler(hidden)), theirs.logits))
    elif config.masked_word_head:
        logits = theirs.prediction_logits if config.next_sentence_head else theirs.logits
        pairs.append((ours.model.masked_word_head(hidden)[mask], logits[mask]))
    difference = max(checked_difference(own, other) for own, other in pairs)
    tokenizer = their_tokenizer(folder)
    if tokenizer is not None:
        for text in TEXTS:
            checked_ids(ours.tokenizer, tokenizer, text)
    return Comparison(difference)


def picture_probe(ours: PictureClassifier, folder: PublishedFolder) -> Comparison:
    """Logits (or hidden states) of pictures, at the model's size and at a larger one, and a picture's numbers."""
    import transformers

    config, data = ours.config.model, ours.config.data
    name = (folder.config.get("architectures") or ["ViTModel"])[0]
    model = getattr(transformers, name).from_pretrained(folder.path, dtype=torch.float32).eval()
    generator, difference = torch.Generator().manual_seed(1), 0.0
    for size in (config.image_size, config.image_size + config.patch_size):
        images = torch.randn(2, config.num_channels, size, size, generator=generator)
        theirs = model(images, interpolate_pos_encoding=size != config.image_size, output_hidden_states=True)
        if config.num_labels:
            pairs = [(ours.model(images), theirs.logits)]
        else:
            pairs = [(ours.model.states(images), theirs.last_hidden_state)]
            pairs += [(ours.model(images), theirs.pooler_output)] if config.d_pooler else []
        difference = max(difference, *(checked_difference(own, other) for own, other in pairs))
    if data.fit == "stretch" and (folder.path / "preprocessor_config.json").exists():
        pixels = torch.randint(256, (41, 37, 3), dtype=torch.uint8, generator=generator).numpy()
        image = open_picture(pixels, "a probe").convert("L" if data.channels == 1 else "RGB")
        processor = transformers.AutoImageProcessor.from_pretrained(folder.path, backend="pil")
        theirs = processor(image, return_tensors="pt")["pixel_values"]
        own = middle(as_numbers(to_pixels(image, data.shape)[None]), data.image_size)
        checked_difference(normalized(own, data), theirs)
    return Comparison(difference)


def speech_probe(ours: Transcriber, folder: Any) -> Comparison:
    """Logits over windows of noise, and the ids of texts."""
    import transformers

    config, kind = ours.config.model, transformers.WhisperForConditionalGeneration
    if isinstance(folder, PublishedFolder):
        model = kind.from_pretrained(folder.path, dtype=torch.float32).eval()
    else:
        model = kind(transformers.WhisperConfig(**folder.config)).eval()
        model.load_state_dict(folder.weights(), strict=False)
        model.tie_weights()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, config.num_mel_bins, config.frames, generator=generator)
    tgt, _ = some_ids(config.vocab_size, 2)
    theirs = model(input_features=features, decoder_input_ids=tgt, use_cache=False).logits
    difference = checked_difference(ours.model(features, tgt), theirs)
    tokenizer: Any = their_tokenizer(folder) if isinstance(folder, PublishedFolder) else None
    for text in TEXTS if tokenizer is not None else ():
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if ids != ours.tokenizer.encode(text)[:-1]:
            raise ArithmeticError(f"the run cuts {text!r} otherwise than transformers does; nothing was written")
    return Comparison(difference)


def some_ids(vocab_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ids of three rows and where they are real. Shape: each (3, T)."""
    length = 7 + 2 * seed
    ids = torch.randint(vocab_size, (3, length), generator=torch.Generator().manual_seed(seed))
    return ids, torch.arange(length) < torch.tensor([length, 4, 1])[:, None]


def checked_ids(ours: Tokenizer, theirs: Any, text: str, *, ends: bool = True) -> list[int]:
    """A text's ids, the same by both tokenizers.

    Args:   ends: whether theirs too puts an end sign behind it (and perhaps a begin sign before it).
    Raises: ArithmeticError: they differ.
    """
    ids: list[int] = theirs(text).input_ids
    found = ours.encode(text)
    found = found if ends else found[:-1]
    if ids != found and ids != [ours.signs.bos, *found]:
        raise ArithmeticError(f"the run cuts {text!r} into {found}, and transformers into {ids}; nothing was written")
    return ids


def write_freely(ours: Translator, rows: Sequence[Sequence[int]], rule: Rule, max_new_tokens: int) -> list[str]:
    """What a search writes of the ids of some texts where no guard steps in, as in other libraries."""
    decode = ours.decode_config()
    search = open_search(
        ours.model,
        rule,
        ours.target_tokenizer.signs,
        decode.forbidden,
        guarded=False,
        renormalize=decode.renormalize,
    )
    return _texts(search, rows, ours.target_tokenizer, max_new_tokens)


def continue_freely(ours: Generator, rows: Sequence[Sequence[int]], rule: Rule, max_new_tokens: int) -> list[str]:
    """The same of a model that continues texts."""
    signs = ours.tokenizer.signs
    search = Search(lambda some: begin(ours.model, some, torch.device("cpu")), ours.model.step, rule, eos_id=signs.eos)
    return _texts(search, rows, ours.tokenizer, max_new_tokens)


def _texts(search: Search, rows: Sequence[Sequence[int]], tokenizer: Tokenizer, max_new_tokens: int) -> list[str]:
    requests = [Request(i, tuple(row), max_new_tokens) for i, row in enumerate(rows)]
    found = {event.id: event.hypotheses[0] for event in run(search, requests, max_rows=64) if event.hypotheses}
    # A vocabulary may be larger than its tokenizer, and then all of it can be written here.
    kept = ([token for token in found[i].tokens if token < tokenizer.vocab_size] for i in range(len(rows)))
    return [tokenizer.decode(tokens) for tokens in kept]


def checked_difference(ours: Tensor, theirs: Tensor, library: str = "transformers") -> float:
    """The largest difference of two tensors.

    Raises: ArithmeticError: it is more than rounding explains.
    """
    if ours.shape != theirs.shape:
        raise ArithmeticError(
            f"the run's numbers have the shape {tuple(ours.shape)}, those of {library} {tuple(theirs.shape)}"
        )
    difference = float((ours - theirs).abs().max())
    allowed = TOLERANCE * max(1.0, float(theirs.abs().max()))
    if not difference <= allowed:
        raise ArithmeticError(
            f"on a probe the run's numbers differ from those of {library} by up to {difference:.2g}, and {allowed:.2g} "
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
    "pegasus": translator_probe,
    "t5": translator_probe,
    "gpt2": generator_probe,
    "bert": encoder_probe,
    "distilbert": encoder_probe,
    "vit": picture_probe,
    "deit": picture_probe,
    "whisper": speech_probe,
}

"""A run as a model folder of Hugging Face transformers."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from zhuyi.data.special_tokens import BOS, EOS, PAD, UNK
from zhuyi.data.tokenizers import Signs, Tokenizer
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.interop import bert, gpt2, marian, t5, vit, whisper
from zhuyi.models.bert import to_published as bert_weights
from zhuyi.models.gpt import to_published as gpt_weights
from zhuyi.models.t5 import to_published as t5_weights
from zhuyi.models.vit import to_published as vit_weights
from zhuyi.models.whisper import to_published as whisper_weights
from zhuyi.run_folder import named_weights, write_tensors
from zhuyi.tasks.sentence_search import never_written


@dataclass(frozen=True)
class Written:
    """What a folder is to hold.

    Args:   tokenizers: the tokenizer's JSON by the file's name, and what opens it in tokenizer_config.json.
            preprocessing: how pictures become numbers, of a model that reads these in the place of texts.
            readme: what stands above what is not carried.
            verbatim: the tokenizer takes texts as they stand, there as here.
    """

    weights: dict[str, Tensor]
    config: dict[str, Any]
    readme: str
    generation: dict[str, Any] | None = None
    tokenizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokenizer_config: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] | None = None
    verbatim: bool = False


def write_hugging_face(predictor: Any, folder: Path, published: Path | None = None) -> None:
    """Write what transformers' `from_pretrained` reads.

    Args:   predictor: a run in memory.
            published: the tokenizer's files that an imported run keeps.
    Raises: InputError: transformers has no such model.
    """
    name = predictor.config.model.name
    if name not in WRITERS:
        raise InputError(f"cannot export to hf: Marian and Pegasus are Transformers, this is a {name}")
    written = WRITERS[name](predictor)
    write_tensors(folder / "model.safetensors", written.weights)
    _write_json(folder / "config.json", written.config)
    if written.generation is not None:
        _write_json(folder / "generation_config.json", written.generation)
    if written.preprocessing is not None:
        _write_json(folder / "preprocessor_config.json", written.preprocessing)
    if not written.tokenizers:
        (folder / "README.md").write_text(written.readme, encoding="utf-8")
        return
    if published is not None:
        shutil.copytree(published, folder, dirs_exist_ok=True)
        (folder / "README.md").write_text(written.readme + FROM_PUBLISHED, encoding="utf-8")
        return
    _write_json(folder / "tokenizer_config.json", written.tokenizer_config)
    for file, values in written.tokenizers.items():
        _write_json(folder / file, values)
    two = TWO_TOKENIZERS if len(written.tokenizers) > 1 else ""
    normalized = "" if written.verbatim else NORMALIZED
    (folder / "README.md").write_text(written.readme + normalized + OPENED_BY + two, encoding="utf-8")


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _transformer(translator: Any) -> Written:
    """As Marian, or with the norm first as Pegasus."""
    config, model = translator.config.model, translator.model
    marian.check_expressible(config)
    tables = model.source_positions.table.detach(), model.target_positions.table.detach()
    source, target = translator.source_tokenizer, translator.target_tokenizer
    tokenizers = {"tokenizer.json": source} | ({} if target is source else {"tokenizer.target.json": target})
    return Written(
        weights=marian.to_published(config, named_weights(model), tables),
        config=marian.written_config(config, target.signs),
        readme=README,
        generation=generation_config(translator.config.decode, config.max_len, target.signs),
        tokenizers={name: tokenizer.library_values() for name, tokenizer in tokenizers.items()},
        tokenizer_config=tokenizer_config(config.max_len),
    )


def _t5(translator: Any) -> Written:
    config, tokenizer = translator.config.model, translator.target_tokenizer
    return Written(
        weights=t5_weights(named_weights(translator.model), gated=config.gated),
        config=t5.written_config(config, tokenizer.signs),
        readme=README.replace(MOVED, SAME),
        generation=generation_config(translator.decode_config(), config.max_len, tokenizer.signs),
        tokenizers={"tokenizer.json": tokenizer.library_values()},
        tokenizer_config=tokenizer_config(config.max_len),
    )


def _gpt(generator: Any) -> Written:
    """As GPT-2. The end sign, which is behind every text here, is not put behind a prompt there."""
    config, tokenizer = generator.config.model, generator.tokenizer
    if not config.bias:
        raise InputError("cannot export to hf: the model has bias = false, but all maps of a GPT-2 have a bias")
    signs = tokenizer.signs
    is_after_sign = len(generator.begin("a")) > len(tokenizer.encode("a")[:-1])
    return Written(
        weights=gpt_weights(named_weights(generator.model)),
        config=gpt2.written_config(config, signs),
        readme=GENERATOR_README.replace("BEFORE", "tokenizer.eos_token + " if is_after_sign else "")
        + (AFTER_SIGN if is_after_sign else ""),
        generation=gpt2.written_generation(generator.config.decode, signs),
        verbatim=generator.config.data.tokenizer.verbatim,
        tokenizers={"tokenizer.json": tokenizer.library_values() | {"post_processor": None}},
        tokenizer_config=tokenizer_config(config.max_len),
    )


def _bert(predictor: Any) -> Written:
    """As BERT, or without segments as DistilBERT; what it reads stands between a begin and an end sign."""
    config, tokenizer = predictor.config.model, predictor.tokenizer
    family = bert.family_of(config)
    labels = getattr(predictor, "labels", ())
    config_values = bert.written_config(config, family, tokenizer.signs, labels)
    values = tokenizer.library_values() | {"post_processor": _between_signs(tokenizer)}
    mask = {"id": tokenizer.vocab_size, "content": "[MASK]", "special": True, "normalized": False}
    values["added_tokens"] = [mask | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)]
    return Written(
        weights=bert_weights(named_weights(predictor.model), family),
        config=config_values,
        readme=ENCODER_README.replace("CLASS", config_values["architectures"][0]),
        tokenizers={"tokenizer.json": values},
        tokenizer_config=tokenizer_config(config.max_len)
        | {"cls_token": BOS, "sep_token": EOS, "mask_token": "[MASK]", "model_input_names": bert.inputs_of(family)},
    )


def _vit(classifier: Any) -> Written:
    """As ViT, or with a distillation token as DeiT."""
    config = classifier.config.model
    values = vit.written_config(config, classifier.labels)
    return Written(
        weights=vit_weights(named_weights(classifier.model), config, vit.family_of(config)),
        config=values,
        readme=PICTURE_README.replace("CLASS", values["architectures"][0]),
        preprocessing=vit.written_preprocessing(classifier.config.data),
    )


def _between_signs(tokenizer: Tokenizer) -> dict[str, Any]:
    def token(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    first = [token(BOS, 0), text("A", 0), token(EOS, 0)]
    ids = {BOS: tokenizer.signs.bos, EOS: tokenizer.signs.eos}
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, text("B", 1), token(EOS, 1)],
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ids.items()},
    }


def _whisper(transcriber: Any) -> Written:
    """With every sign that the vocabulary has; what stands before a text is said by `generate`'s options."""
    config, tokenizer, model = transcriber.config.model, transcriber.tokenizer, transcriber.model
    values = tokenizer.library_values() | {"post_processor": None}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    signs = sorted({tokenizer.signs.eos, tokenizer.signs.bos, *tokenizer.signs.others})
    values["added_tokens"] = [{"id": i, "content": tokenizer.pieces[i], "special": True, **plain} for i in signs]
    end = tokenizer.pieces[tokenizer.signs.eos]
    names = {"eos_token": end, "bos_token": end, "pad_token": tokenizer.pieces[tokenizer.signs.pad], "unk_token": end}
    return Written(
        weights=whisper_weights(named_weights(model), model.encoder_positions),
        config=whisper.written_config(config, tokenizer),
        readme=SPEECH_README,
        generation=whisper.written_generation(transcriber.config.decode, config, tokenizer),
        tokenizers={"tokenizer.json": values},
        tokenizer_config=tokenizer_config(config.max_len) | names,
        preprocessing=whisper.written_preprocessing(config),
    )


WRITERS: dict[str, Callable[[Any], Written]] = {
    "transformer": _transformer,
    "t5": _t5,
    "gpt": _gpt,
    "bert": _bert,
    "vit": _vit,
    "whisper": _whisper,
}


def generation_config(decode: DecodeConfig, max_len: int, signs: Signs) -> dict[str, Any]:
    """The run's search, as far as `generate` has its options."""
    values: dict[str, Any] = {
        "pad_token_id": signs.pad,
        "bos_token_id": signs.bos,
        "eos_token_id": signs.eos,
        "decoder_start_token_id": signs.bos,
        "suppress_tokens": sorted(never_written(signs, decode.forbidden)) or None,
        **({"renormalize_logits": True} if decode.renormalize else {}),
        "max_length": max_len,
        "num_beams": decode.beam,
    }
    if decode.beam > 1:
        values["length_penalty"] = 0.0 if decode.length_rule == "none" else decode.alpha
        # "exact" would be "never"; but without zhuyi's limits of length that searches on to `max_length`.
        values["early_stopping"] = decode.stop == "first"
    return values


def tokenizer_config(max_len: int) -> dict[str, Any]:
    """How transformers is to open `tokenizer.json`: with the library that it was written by."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_len,
        "pad_token": PAD,
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


MOVED = """\
The logits are zhuyi's, within rounding. The hidden dimensions stand in another order: sines before cosines, as the
positions of Marian and Pegasus are.
"""
SAME = """\
The logits are zhuyi's, within rounding.
"""

README = """\
# A translation model trained with zhuyi, for Hugging Face transformers

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
batch = tokenizer(["..."], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

The logits are zhuyi's, within rounding. The hidden dimensions stand in another order: sines before cosines, as the
positions of Marian and Pegasus are.

What is not carried:

- `generate` ranks hypotheses by `log_prob / length ** length_penalty`. zhuyi's length rule `gnmt` has no counterpart
  there; its alpha is written as `length_penalty`, and another hypothesis may win. The stop rule `exact` is written as
  `early_stopping = false`, which may stop a little earlier; `"never"` is exact but slow.
- No guards: nothing cuts long texts into sentences, ends loops or bounds an output by its input's length. A
  `decode.constraint` is not kept.
"""

GENERATOR_README = """\
# A language model trained with zhuyi, for Hugging Face transformers

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
batch = tokenizer([BEFORE"..."], return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

The logits are zhuyi's, within rounding. What is not carried:

- A window that slides: a text ends where the model's positions do.
- Texts before which writing ends (`decode.stop`): `generate` takes them as `stop_strings`.
"""

AFTER_SIGN = """\
- The end sign before a prompt, which says that a text begins: put `tokenizer.eos_token` there, as above.
"""

SPEECH_README = """\
# A speech recogniser trained with zhuyi, for Hugging Face transformers

```python
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

model, tokenizer = WhisperForConditionalGeneration.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
features = WhisperFeatureExtractor.from_pretrained(FOLDER)(SAMPLES, sampling_rate=16000, return_tensors="pt")
print(tokenizer.batch_decode(model.generate(features.input_features), skip_special_tokens=True))
```

The spectrogram and the logits are zhuyi's, within rounding. What is not carried:

- One window at a time: nothing cuts long recordings where nobody speaks, and nothing keeps silence and noise without a
  text.
"""

ENCODER_README = """\
# An encoder trained with zhuyi, for Hugging Face transformers

```python
from transformers import AutoTokenizer, CLASS

model, tokenizer = CLASS.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
print(model(**tokenizer(["..."], return_tensors="pt", padding=True, truncation=True)))
```

The hidden states and the head's logits are zhuyi's, within rounding. zhuyi's embedding of a text is the mean of its
hidden states, both signs counted, at length 1. What is not carried:

"""

PICTURE_README = """\
# A model of pictures trained with zhuyi, for Hugging Face transformers

```python
from PIL import Image
from transformers import AutoImageProcessor, CLASS

model, processor = CLASS.from_pretrained(FOLDER), AutoImageProcessor.from_pretrained(FOLDER)
print(model(**processor(Image.open("...").convert("RGB"), return_tensors="pt")))
```

The logits are zhuyi's, within rounding. What is not carried:

- Pictures are not turned as the camera noted, and what is transparent does not become white. Of a model of grey
  pictures (`num_channels` 1) convert to `"L"`.
- Where a picture is no square, the processor rounds its longer side before it cuts the middle out; a pixel may differ.
"""

NORMALIZED = """\
- Text is not normalised before it is tokenised (one form of white space, width and punctuation). Where it matters, call
  `zhuyi.data.normalization.normalize(text)` first; a run trained on simplified characters also wants them simplified.
"""

OPENED_BY = """\
- There is no SentencePiece file: the tokenizer is the file of the `tokenizers` library that zhuyi wrote, which
  `AutoTokenizer` opens and `MarianTokenizer` does not. A text that holds a special sign's letters, such as `</s>`, is
  read as that sign.
"""

FROM_PUBLISHED = """\
- The tokenizer's files are those that the model was imported with, unchanged.
"""

TWO_TOKENIZERS = """\
- `AutoTokenizer` has one vocabulary, the source's. The target's is `tokenizer.target.json`: decode with
  `PreTrainedTokenizerFast(tokenizer_file="tokenizer.target.json")`.
"""

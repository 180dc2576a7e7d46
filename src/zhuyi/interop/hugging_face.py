"""A run as a model folder of Hugging Face transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

from zhuyi.data.special_tokens import BOS, EOS, PAD, UNK
from zhuyi.data.tokenizers import Signs
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.interop import marian
from zhuyi.models.transformer import TransformerConfig
from zhuyi.predict import Translator
from zhuyi.run_folder import named_weights, write_tensors


def write_hugging_face(translator: Translator, folder: Path, published: Path | None = None) -> None:
    """Write what transformers' `AutoModelForSeq2SeqLM.from_pretrained` and `AutoTokenizer.from_pretrained` read.

    Args:   published: the tokenizer's files that an imported run keeps.
    Raises: InputError: neither Marian nor Pegasus is such a model.
    """
    config, model = translator.config.model, translator.model
    if not isinstance(config, TransformerConfig):
        raise InputError(f"cannot export to hf: Marian and Pegasus are Transformers, this is a {config.name}")
    marian.check_expressible(config)
    tables = model.source_positions.table.detach(), model.target_positions.table.detach()
    write_tensors(folder / "model.safetensors", marian.to_published(config, named_weights(model), tables))
    signs = translator.target_tokenizer.signs
    documents = {
        "config.json": marian.written_config(config, signs),
        "generation_config.json": generation_config(translator.config.decode, config.max_len, signs),
    }
    for name, values in documents.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if published is not None:
        shutil.copytree(published, folder, dirs_exist_ok=True)
        (folder / "README.md").write_text(README + FROM_PUBLISHED, encoding="utf-8")
        return
    values = tokenizer_config(config.max_len)
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    source, target = translator.source_tokenizer, translator.target_tokenizer
    source.save(folder / "tokenizer.json")
    if target is not source:
        target.save(folder / "tokenizer.target.json")
    text = README + NORMALIZED + (TWO_TOKENIZERS if target is not source else "")
    (folder / "README.md").write_text(text, encoding="utf-8")


def generation_config(decode: DecodeConfig, max_len: int, signs: Signs) -> dict[str, Any]:
    """The run's search, as far as `generate` has its options."""
    never = {signs.pad, signs.bos, signs.unk} - {signs.eos} if decode.forbidden is None else set(decode.forbidden)
    values: dict[str, Any] = {
        "pad_token_id": signs.pad,
        "bos_token_id": signs.bos,
        "eos_token_id": signs.eos,
        "decoder_start_token_id": signs.bos,
        "suppress_tokens": sorted(never) or None,
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

NORMALIZED = """\
- Text is not normalised before it is tokenised (one form of white space, width and punctuation). Where it matters, call
  `zhuyi.data.normalization.normalize(text)` first; a run trained on simplified characters also wants them simplified.
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

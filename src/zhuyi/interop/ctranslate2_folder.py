"""Runs as model folders of CTranslate2."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zhuyi.data.encoder_rows import mask_id
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError
from zhuyi.interop.ctranslate2_probe import CLASSIFIER, check_encoder, check_generator, check_translator
from zhuyi.interop.ctranslate2_specs import bert_spec, gpt_spec, t5_spec, transformer_spec
from zhuyi.interop.probe import Comparison
from zhuyi.predict import Classifier, Generator, Translator, WordFiller
from zhuyi.run_folder import named_weights


@dataclass(frozen=True)
class Written:
    """What a folder is to hold.

    Args:   spec: CTranslate2's description of the model, with its weights and its vocabulary.
            tokenizers: by the file's name; left out where there are published ones.
            readme: with the tokenizers of zhuyi, and with published ones.
            arrays: what CTranslate2 has no place for and the README's code uses.
    """

    spec: Any
    tokenizers: dict[str, Tokenizer]
    readme: str
    published_readme: str
    arrays: dict[str, Any] = field(default_factory=dict)


def write_ctranslate2(predictor: Any, folder: Path, published: Path | None = None) -> Comparison:
    """Write what CTranslate2 reads, float32 weights which it converts to the type it is asked for, and have it read it.

    Args:   published: the tokenizer's files that an imported run keeps.
    Returns: how what it computes compares with the run.
    Raises: InputError: CTranslate2 has no such model, or it is not installed.
            ArithmeticError: it computes something else.
    """
    name = predictor.config.model.name
    if name not in WRITERS:
        raise InputError(f"cannot export to ctranslate2: what it runs is {', '.join(WRITERS)}, this is a {name}")
    writer, check = WRITERS[name]
    written = writer(predictor)
    written.spec.validate()
    written.spec.optimize()
    written.spec.save(str(folder))
    if written.arrays:
        np.savez(folder / CLASSIFIER, **written.arrays)
    if published is not None:
        shutil.copytree(published, folder, dirs_exist_ok=True)
    else:
        for file, tokenizer in written.tokenizers.items():
            values = json.dumps(tokenizer.library_values(), ensure_ascii=False, indent=1)
            (folder / file).write_text(values + "\n", encoding="utf-8")
    readme = written.readme if published is None else written.published_readme
    (folder / "README.md").write_text(readme, encoding="utf-8")
    return check(predictor, folder)


def vocabulary(tokenizer: Tokenizer, size: int, extra: Mapping[int, str] | None = None) -> list[str]:
    """A piece for each id, no two alike; `extra` are those that the tokenizer lacks, by their ids."""
    names = dict(enumerate(tokenizer.pieces[:size])) | dict(extra or {})
    return [names.get(i) or f"<unused_{i}>" for i in range(size)]


def _transformer(translator: Translator) -> Written:
    config, model = translator.config.model, translator.model
    weights = named_weights(model) | {
        "source_positions.table": model.source_positions.table.detach(),
        "target_positions.table": model.target_positions.table.detach(),
    }
    spec = transformer_spec(config, weights)
    spec.config.layer_norm_epsilon = model.encoder_layers[0].self_residual.norm.eps
    source, target = translator.source_tokenizer, translator.target_tokenizer
    pieces = vocabulary(target, config.target_vocab_size)
    spec.register_source_vocabulary(vocabulary(source, config.source_vocab_size))
    spec.register_target_vocabulary(pieces)
    _set_signs(spec, target, pieces)
    names = ("tokenizer.json",) * 2 if target is source else ("tokenizer.source.json", "tokenizer.target.json")
    values = {"SOURCE": names[0], "TARGET": names[1], "MAX_LEN": str(config.max_len), "PREFIX": ""}
    tokenizers = dict(zip(names, (source, target), strict=True))
    return Written(spec, tokenizers, _filled(TRANSLATOR, values), _filled(PUBLISHED_TRANSLATOR, values))


def _t5(translator: Translator) -> Written:
    """Its signs for spans are counted down from the end, as T5 has them."""
    config, tokenizer = translator.config.model, translator.target_tokenizer
    last = tokenizer.vocab_size + translator.config.data.sentinels - 1
    sentinels = {last - k: f"<extra_id_{k}>" for k in range(translator.config.data.sentinels)}
    pieces = vocabulary(tokenizer, config.vocab_size, sentinels)
    spec = t5_spec(config, named_weights(translator.model))
    spec.config.layer_norm_epsilon = config.norm_epsilon
    spec.register_source_vocabulary(pieces)
    spec.register_target_vocabulary(pieces)
    _set_signs(spec, tokenizer, pieces)
    prefixes = ", ".join(f"`{prefix}` ({name})" for name, prefix in translator.config.data.prefixes.items())
    prefix = _filled(PREFIX, {"PREFIXES": prefixes}) if prefixes else ""
    values = {"SOURCE": "tokenizer.json", "TARGET": "tokenizer.json", "MAX_LEN": str(config.max_len), "PREFIX": prefix}
    tokenizers = {"tokenizer.json": tokenizer}
    return Written(spec, tokenizers, _filled(TRANSLATOR, values), _filled(PUBLISHED_TRANSLATOR, values))


def _set_signs(spec: Any, tokenizer: Tokenizer, pieces: list[str]) -> None:
    signs = tokenizer.signs
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = (
        pieces[i] for i in (signs.unk, signs.bos, signs.eos)
    )
    spec.config.decoder_start_token = pieces[signs.bos]


def _gpt(generator: Generator) -> Written:
    config, tokenizer = generator.config.model, generator.tokenizer
    pieces = vocabulary(tokenizer, config.vocab_size)
    spec = gpt_spec(config, named_weights(generator.model))
    spec.config.layer_norm_epsilon = config.norm_epsilon
    spec.register_vocabulary(pieces)
    end = pieces[tokenizer.signs.eos]  # it stands between texts, so that one begins with it too
    spec.config.bos_token, spec.config.eos_token = end, end
    spec.config.unk_token = pieces[tokenizer.signs.unk]
    values = {"MAX_LEN": str(config.max_len), "END": end}
    return Written(
        spec, {"tokenizer.json": tokenizer}, _filled(GENERATOR, values), _filled(PUBLISHED_GENERATOR, values)
    )


def _bert(predictor: Classifier | WordFiller) -> Written:
    """The encoder, and its pooler; a classifier behind it is a matrix that anybody can multiply with."""
    config, tokenizer = predictor.config.model, predictor.tokenizer
    if config.next_sentence_head:
        raise InputError(
            "cannot export to ctranslate2: the model has a head that tells if one sentence follows another, and heads "
            "have no place there; try --to hf"
        )
    pieces = vocabulary(tokenizer, config.vocab_size, {mask_id(tokenizer): "[MASK]"})
    spec = bert_spec(config, named_weights(predictor.model))
    spec.config.layer_norm_epsilon = config.norm_epsilon
    spec.register_vocabulary(pieces)
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = (
        pieces[i] for i in (tokenizer.signs.unk, tokenizer.signs.bos, tokenizer.signs.eos)
    )
    arrays: dict[str, Any] = {}
    if isinstance(predictor, Classifier):
        linear = predictor.model.classifier.linear
        arrays = {"weight": linear.weight.detach().numpy(), "bias": linear.bias.detach().numpy()}
        arrays["labels"] = np.array(predictor.labels)
    values = {
        "BOS": str(tokenizer.signs.bos),
        "USE": CLASSIFY if arrays else EMBED,
        "MAX_LEN": str(predictor.config.data.max_len),
        "HEAD": WORD_HEAD if config.masked_word_head else "",
    }
    return Written(
        spec,
        {"tokenizer.json": tokenizer},
        _filled(ENCODER.replace("IDS", OWN_IDS), values),
        _filled(ENCODER.replace("IDS", PUBLISHED_IDS), values),
        arrays,
    )


def _filled(text: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


WRITERS: dict[str, tuple[Callable[[Any], Written], Callable[[Any, Path], Comparison]]] = {
    "transformer": (_transformer, check_translator),
    "t5": (_t5, check_translator),
    "gpt": (_gpt, check_generator),
    "bert": (_bert, check_encoder),
}

PUBLISHED_TRANSLATOR = """\
# A translation model imported into zhuyi, for CTranslate2

```python
import ctranslate2
from transformers import AutoTokenizer

translator, tokenizer = ctranslate2.Translator(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
source = tokenizer.convert_ids_to_tokens(tokenizer("...").input_ids)
(result,) = translator.translate_batch([source], beam_size=5, max_decoding_length=MAX_LEN)
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(result.hypotheses[0]), skip_special_tokens=True))
```

The tokenizer's files are those that the model was imported with, unchanged. The model counts to MAX_LEN tokens on
either side; beyond that CTranslate2 raises an error. What the run forbids (`decode.forbidden`), CTranslate2 does not:
`suppress_sequences=[["<pad>"]]` says so.
"""

TRANSLATOR = """\
# A translation model trained with zhuyi, for CTranslate2

```python
import ctranslate2
from tokenizers import Tokenizer

translator = ctranslate2.Translator(FOLDER, compute_type="int8")
source, target = Tokenizer.from_file(f"{FOLDER}/SOURCE"), Tokenizer.from_file(f"{FOLDER}/TARGET")
(result,) = translator.translate_batch(
    [source.encode("...").tokens], beam_size=5, max_decoding_length=MAX_LEN, disable_unk=True
)
ids = map(target.token_to_id, result.hypotheses[0])
print(target.decode([i for i in ids if i is not None]))
```

The end sign `</s>` belongs to the source and comes with the tokens. The model counts to MAX_LEN tokens on either side;
beyond that CTranslate2 raises an error. The weights are in float32; `compute_type` converts them as they are loaded.
PREFIX
What is not carried:

- Text is not normalised before it is tokenised (one form of white space, width and punctuation). Where it matters, call
  `zhuyi.data.normalization.normalize(text)` first; a run trained on simplified characters also wants them simplified.
- zhuyi never writes `<pad>`, `<s>` and `<unk>`; here `disable_unk=True` and
  `suppress_sequences=[["<pad>"], ["<s>"]]` say so. CTranslate2 writes one token at least
  (`min_decoding_length=1`), zhuyi may write none.
- CTranslate2 ranks hypotheses by `log_prob / length ** length_penalty` and stops when `beam_size` of them have ended
  (zhuyi's `length_rule = "power"`, `stop = "first"`). zhuyi's `gnmt` and `exact` have no counterpart there.
- No guards: nothing cuts long texts into sentences, ends loops or bounds an output by its input's length. A
  `decode.constraint` is not kept.
"""

PREFIX = """
What is to be done is said by the tokens that stand before a text's own, `source.encode(prefix).tokens[:-1]`, of one of
these prefixes: PREFIXES. The signs for spans, `<extra_id_0>` and so on, are pieces of the model and not of the
tokenizer; zhuyi never writes them in an answer.
"""

GENERATOR = """\
# A language model trained with zhuyi, for CTranslate2

```python
import ctranslate2
from tokenizers import Tokenizer

generator = ctranslate2.Generator(FOLDER, compute_type="int8")
tokenizer = Tokenizer.from_file(f"{FOLDER}/tokenizer.json")
start = tokenizer.encode("...").tokens[:-1]
(result,) = generator.generate_batch([start], max_length=50, sampling_topk=1, include_prompt_in_result=False)
print(tokenizer.decode(result.sequences_ids[0]))
```

The end sign `END`, which comes last with the tokens, is behind every text that the model was trained on: `tokens[:-1]`
leaves it out, so that the text goes on. A prompt that begins a text may begin with it. `sampling_topk=1` takes the
likeliest token; `sampling_topk=0, sampling_temperature=0.8` draws. With `beam_size`, give prompts of unequal lengths
`max_batch_size=1`: side by side, results would begin with the ends of the longer ones. The weights are in float32;
`compute_type` converts them as they are loaded.

What is not carried:

- A window that slides: the model counts to MAX_LEN tokens, prompt included; beyond that CTranslate2 raises an error.
- zhuyi never writes `<pad>`, `<s>` and `<unk>`; here `disable_unk=True` and
  `suppress_sequences=[["<pad>"], ["<s>"]]` say so.
- `min_p` and stop strings.
"""

PUBLISHED_GENERATOR = """\
# A language model imported into zhuyi, for CTranslate2

```python
import ctranslate2
from transformers import AutoTokenizer

generator, tokenizer = ctranslate2.Generator(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
start = tokenizer.convert_ids_to_tokens(tokenizer("...").input_ids)
(result,) = generator.generate_batch([start], max_length=50, sampling_topk=1, include_prompt_in_result=False)
print(tokenizer.decode(result.sequences_ids[0]))
```

The tokenizer's files are those that the model was imported with, unchanged. The model counts to MAX_LEN tokens, prompt
included; beyond that CTranslate2 raises an error.
"""

ENCODER = """\
# An encoder from zhuyi, for CTranslate2

```python
import ctranslate2
import numpy as np
IDS
found = ctranslate2.Encoder(FOLDER).forward_batch([ids])
USE
```

The model reads MAX_LEN tokens at most. Its weights are in float32; `compute_type="int8"` converts them as they are
loaded. A pair of texts is one row, with `token_type_ids=[[0, ..., 1, ...]]` beside it.
HEAD"""

OWN_IDS = """\
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(f"{FOLDER}/tokenizer.json")
ids = [BOS, *tokenizer.encode("...").ids]"""

PUBLISHED_IDS = """\
from transformers import AutoTokenizer

ids = AutoTokenizer.from_pretrained(FOLDER)("...").input_ids"""

EMBED = """\
mean = np.array(found.last_hidden_state)[0].mean(axis=0)
print(mean / np.linalg.norm(mean))"""

CLASSIFY = """\
head = np.load(f"{FOLDER}/classifier.npz")
logits = np.array(found.pooler_output) @ head["weight"].T + head["bias"]
print(head["labels"][logits.argmax(axis=1)])"""

WORD_HEAD = """
What is not carried: the head that fills in words, for which CTranslate2 has no place.
"""

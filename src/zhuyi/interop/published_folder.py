"""A model folder of Hugging Face form: its JSON files, its weights, and what its config says that we do not know."""

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError
from zhuyi.run_folder import read_tensors

# Of every model's config: names, notes of its making, and what changes neither numbers nor texts.
NEVER_MATTERS = (
    "architectures model_type transformers_version dtype torch_dtype _name_or_path name_or_path _num_labels id2label "
    "label2id use_cache return_dict output_hidden_states output_attentions torchscript tokenizer_class "
    "task_specific_params finetuning_task gradient_checkpointing chunk_size_feed_forward model_max_length "
    "initializer_range initializer_factor use_return_dict _attn_implementation attn_implementation n_special save_step "
    "_from_model_config _commit_hash"
)
# How texts are written: older configs say it among the rest, newer ones in a file of its own.
GENERATION = (
    "max_length min_length max_new_tokens min_new_tokens do_sample early_stopping num_beams num_beam_groups "
    "diversity_penalty temperature top_k top_p min_p typical_p repetition_penalty length_penalty no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate "
    "forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens "
    "begin_suppress_tokens renormalize_logits"
)
SIGN_KEYS = "pad_token_id bos_token_id eos_token_id decoder_start_token_id"
# Of the former, what has no counterpart here and must stand at what does nothing.
GENERATION_ONLY: dict[str, tuple[Any, ...]] = {
    "do_sample": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0,),
    "repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "exponential_decay_length_penalty": (None,),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "num_return_sequences": (1,),
}


@dataclass(frozen=True)
class Keys:
    """What each key of a config is to us; one that is nowhere here must be null, false or empty.

    Args:   used: read by the import; names with spaces between.
            irrelevant: changes nothing of what we compute, at any value.
            only: the values that we have; any other is refused by name.
    """

    used: str
    irrelevant: str = ""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def check(self, values: Mapping[str, Any], origin: Path) -> None:
        """Compare a config with the table.

        Raises: InputError: names the first key that would have to be ignored.
        """
        fine = {*self.used.split(), *self.irrelevant.split(), *NEVER_MATTERS.split()}
        for key, value in values.items():
            if key in fine:
                continue
            if key in self.only:
                if value not in self.only[key]:
                    wanted = " or ".join(json.dumps(each) for each in self.only[key])
                    raise InputError(
                        f"{origin}: {key} = {json.dumps(value)} has no counterpart in zhuyi, which has {wanted}; "
                        "the model cannot be imported"
                    )
            elif value not in (None, False, [], {}, ""):
                raise InputError(
                    f"{origin}: the key {key} = {json.dumps(value)} is not known to zhuyi and might change what the "
                    "model computes; the model cannot be imported"
                )


class PublishedFolder:
    """The files of one published model."""

    def __init__(self, path: Path) -> None:
        """Open a folder.

        Raises: InputError: it has no config.json.
        """
        self.path = path
        self.config_path = path / "config.json"
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; give one with a config.json of Hugging Face form")
        if (path / "adapter_config.json").exists():
            raise InputError(f"{path} holds adapters alone; merge them into their model first")
        self.config = self.json("config.json")
        if not self.config:
            raise InputError(f"{path}: no config.json here; give a model folder of Hugging Face form")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file's object; an empty one where there is no such file."""
        path = self.path / name
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not readable as JSON: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{path}: holds no JSON object")
        return values

    def json_list(self, name: str) -> list[dict[str, Any]]:
        """A JSON file's list of objects."""
        values = json.loads((self.path / name).read_text(encoding="utf-8"))
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise InputError(f"{self.path / name}: holds no list of JSON objects")
        return values

    def check_architecture(self, known: str) -> None:
        """Raise InputError where the model is none of these (names with spaces between): it has another head, say."""
        for name in self.config.get("architectures") or []:
            if name not in known.split():
                raise InputError(
                    f"{self.config_path}: a {name} cannot be imported; what can be is {', '.join(known.split())}"
                )

    def generation(self) -> dict[str, Any]:
        """How the model is said to write, from wherever it is said."""
        written = {key: value for key, value in self.config.items() if key in GENERATION.split()}
        return written | self.json("generation_config.json")

    def weights(self) -> dict[str, Tensor]:
        """All weights by their names, numbers as float32.

        Raises: InputError: no file of weights, or one that is broken.
        """
        found: dict[str, Tensor] = {}
        for path in self._weight_files():
            found |= read_tensors(path) if path.suffix == ".safetensors" else _read_bin(path)
        return {name: x.float() if x.is_floating_point() else x for name, x in found.items()}

    def _weight_files(self) -> list[Path]:
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (self.path / name).exists():
                return [self.path / name]
            if (self.path / f"{name}.index.json").exists():
                shards = sorted(set(self.json(f"{name}.index.json").get("weight_map", {}).values()))
                for shard in shards:
                    if Path(shard).name != shard:
                        raise InputError(f"{self.path / name}.index.json: the shard {shard} is not in this folder")
                return [self.path / shard for shard in shards]
        raise InputError(f"{self.path}: neither model.safetensors nor pytorch_model.bin here, nor shards of them")


def _read_bin(path: Path) -> dict[str, Tensor]:
    """A pickle of tensors, by the reader that runs no code in it."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a file of weights alone, or broken ({first}); convert it to model.safetensors"
        ) from None
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise InputError(f"{path}: holds more than weights; convert it to model.safetensors")
    return values


def check_signs(said: Mapping[str, Any], signs: Mapping[str, int], origin: Path) -> None:
    """Raise InputError where what is said of writing names another sign than the model's config, or several."""
    for key, wanted in signs.items():
        given = said.get(key)
        if given is not None and given not in (wanted, [wanted]):
            raise InputError(f"{origin}: {key} = {given}, but the model's config says {wanted}; one only can be")


def length_notes(folder: PublishedFolder, reach: int) -> tuple[str, ...]:
    """For people, limits of what is written that are not carried; one beyond `reach` tokens changes nothing."""
    said = folder.generation()
    return tuple(
        f"{key} = {said[key]} is not carried: an output is bounded by the length of its text"
        for key in ("max_length", "max_new_tokens")
        if said.get(key) and said[key] < reach
    )


def decode_values(folder: PublishedFolder, eos: int, bos: int) -> dict[str, Any]:
    """The section [decode] that does what the folder says of writing.

    Raises: InputError: it says what we cannot do.
    """
    said = folder.generation()
    origin = folder.path / "generation_config.json"
    known = " ".join(key for key in GENERATION.split() if key not in GENERATION_ONLY)
    Keys(f"{known} {SIGN_KEYS}", only=GENERATION_ONLY).check(said, origin)
    check_signs(said, {"eos_token_id": eos, "decoder_start_token_id": bos, "forced_eos_token_id": eos}, origin)
    forbidden = list(said.get("suppress_tokens") or [])
    for words in said.get("bad_words_ids") or []:
        if len(words) != 1:
            raise InputError(f"{origin}: bad_words_ids has {words}, but zhuyi forbids single ids alone")
        forbidden += words
    beam = int(said.get("num_beams") or 1)
    return {
        "beam": beam,
        "length_rule": "power",
        "alpha": float(1.0 if said.get("length_penalty") is None else said["length_penalty"]),
        "stop": "first" if said.get("early_stopping") is True else "exact",
        "forbidden": sorted(set(forbidden)),
        "renormalize": bool(said.get("renormalize_logits")),
    }


@dataclass(frozen=True)
class Imported:
    """What a published folder is as a run: the sections of its config, its tokenizers and its weights.

    Args:   tokenizers: by their file's name in the run.
            tokenizer_files: of the folder, which the run keeps for an export.
            our_weights: of the model's config and our names of all its weights.
            notes: what was left out, for people.
    """

    task: str
    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any]
    decode: dict[str, Any] | None
    tokenizers: Mapping[str, Tokenizer]
    tokenizer_files: Sequence[str]
    our_weights: Callable[[Any, Iterable[str]], dict[str, Tensor]]
    notes: tuple[str, ...] = ()

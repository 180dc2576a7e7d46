"""Whisper as published by Hugging Face, both ways, and as published by OpenAI, from there."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhuyi.data.audio import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from zhuyi.data.speech_signs import (
    AFTER_LANGUAGES,
    BEFORE_LANGUAGES,
    NO_SPEECH,
    NO_TIMES,
    NUM_TIMES,
    SECONDS_A_STEP,
    START,
    SpeechSigns,
)
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError
from zhuyi.interop.published_folder import (
    GENERATION,
    GENERATION_ONLY,
    SIGN_KEYS,
    Imported,
    Keys,
    PublishedFolder,
)
from zhuyi.interop.published_tokenizers import LANGUAGES, MULTILINGUAL_VOCABULARY, SPEECH_FILES, speech_tokenizer
from zhuyi.models.whisper import POSITIONS, WhisperConfig, from_published, sines_then_cosines
from zhuyi.tasks.transcription import TranscriptionConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu-tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
POSITIONS_A_SECOND = 50
KEYS = Keys(
    used=(
        "vocab_size num_mel_bins encoder_layers encoder_attention_heads decoder_layers decoder_attention_heads "
        "decoder_ffn_dim encoder_ffn_dim activation_function d_model dropout attention_dropout activation_dropout "
        "max_source_positions max_target_positions pad_token_id eos_token_id decoder_start_token_id "
        f"{GENERATION}"
    ),
    # Layers left out and features masked are ways to train; the classifier's are of a head of another kind; the first
    # ids are said again, and better, by the language and the task; no code scales the embeddings.
    irrelevant=(
        "bos_token_id init_std encoder_layerdrop decoder_layerdrop apply_spec_augment mask_time_prob mask_time_length "
        "mask_time_min_masks mask_feature_prob mask_feature_length mask_feature_min_masks classifier_proj_size "
        "use_weighted_layer_sum median_filter_width num_hidden_layers forced_decoder_ids "
        "scale_embedding"
    ),
    only={"is_encoder_decoder": (True,), "tie_word_embeddings": (True,)},
)
ARCHITECTURES = "WhisperForConditionalGeneration WhisperModel"
DEFAULTS: dict[str, Any] = {
    "vocab_size": 51865,
    "num_mel_bins": 80,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "activation_function": "gelu",
    "d_model": 384,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "pad_token_id": 50256,
    "eos_token_id": 50256,
    "decoder_start_token_id": 50257,
}
# Of the ways to write. The heads that align words serve times of words, which we have none of.
WRITING = Keys(
    used=(
        "suppress_tokens begin_suppress_tokens max_initial_timestamp_index no_timestamps_token_id lang_to_id "
        "task_to_id is_multilingual language task return_timestamps max_length max_new_tokens num_beams length_penalty "
        f"early_stopping forced_eos_token_id {SIGN_KEYS}"
    ),
    irrelevant=(
        "alignment_heads prev_sot_token_id forced_decoder_ids median_filter_width top_k top_p temperature typical_p "
        "num_return_sequences output_scores return_dict_in_generate bad_words_ids"
    ),
    only={key: values for key, values in GENERATION_ONLY.items() if key != "begin_suppress_tokens"},
)
PREPROCESSING = Keys(
    used="feature_size sampling_rate hop_length n_fft chunk_length n_samples nb_max_frames",
    irrelevant="feature_extractor_type processor_class padding_side padding_value return_attention_mask mel_filters",
    only={"dither": (0.0,)},
)

UNSPOKEN = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}",
    "♪♪", "♪♪♪",
)  # fmt: skip
NOTES = "♩♪♫♬♭♮♯"  # of these, what their characters begin with is forbidden already


def read_whisper(folder: "PublishedFolder | OpenAICheckpoint") -> Imported:
    """A Whisper as a run of speech recognition.

    Raises: InputError: it is something that cannot be taken over.
    """
    origin = folder.config_path
    KEYS.check(folder.config, origin)
    if isinstance(folder, PublishedFolder):
        folder.check_architecture(ARCHITECTURES)
    values = DEFAULTS | {key: value for key, value in folder.config.items() if value is not None}
    for ours, theirs in (("heads", "attention_heads"), ("feed-forward width", "ffn_dim")):
        if values[f"encoder_{theirs}"] != values[f"decoder_{theirs}"]:
            raise InputError(
                f"{origin}: encoder_{theirs} = {values[f'encoder_{theirs}']} and decoder_{theirs} = "
                f"{values[f'decoder_{theirs}']}, but zhuyi's Whisper has one {ours} for both; it cannot be imported"
            )
    if values["activation_function"] not in ACTIVATIONS:
        raise InputError(
            f"{origin}: activation_function = {values['activation_function']}; zhuyi has {', '.join(ACTIVATIONS)}"
        )
    _check_preprocessing(folder, values)
    weights = _with_prefix(folder.weights())
    tokenizer = speech_tokenizer(
        folder.path, values["vocab_size"], values["decoder_start_token_id"], values["eos_token_id"]
    )
    said = folder.generation()
    if isinstance(folder, OpenAICheckpoint):
        said |= {"suppress_tokens": _never_written(tokenizer)}
    WRITING.check(said, folder.path / "generation_config.json")
    model = {
        "name": "whisper",
        "d_model": values["d_model"],
        "num_heads": values["encoder_attention_heads"],
        "d_ff": values["encoder_ffn_dim"],
        "num_encoder_layers": values["encoder_layers"],
        "num_decoder_layers": values["decoder_layers"],
        "dropout": values["dropout"],
        "attention_dropout": values["attention_dropout"],
        "feed_forward_dropout": values["activation_dropout"],
        "activation": ACTIVATIONS[values["activation_function"]],
        "num_mel_bins": values["num_mel_bins"],
        "window_seconds": values["max_source_positions"] / POSITIONS_A_SECOND,
        "half_positions": _is_half(weights.get(POSITIONS), values, origin),
        "max_len": values["max_target_positions"],
        "vocab_size": values["vocab_size"],
    }
    return Imported(
        task="speech-recognition",
        model=model,
        data={
            "language": _language(said, tokenizer, values["vocab_size"]),
            "window_seconds": model["window_seconds"],
            "num_mel_bins": model["num_mel_bins"],
            "max_len": model["max_len"],
            "tokenizer": {"kind": "byte-bpe", "vocab_size": max(300, values["vocab_size"]), "verbatim": True},
        },
        train={},
        decode=_decode_values(said, folder.path),
        tokenizers={"tokenizer.json": tokenizer},
        tokenizer_files=SPEECH_FILES,
        our_weights=lambda config, wanted: from_published(weights, wanted),
    )


def _with_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The body alone is stored under shorter names."""
    if any(name.startswith("model.") for name in weights):
        return weights
    return {f"model.{name}": weight for name, weight in weights.items()}


def _check_preprocessing(folder: "PublishedFolder | OpenAICheckpoint", values: Mapping[str, Any]) -> None:
    said = folder.json("preprocessor_config.json")
    path = folder.path / "preprocessor_config.json"
    PREPROCESSING.check(said, path)
    wanted = {
        "feature_size": values["num_mel_bins"],
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP_SAMPLES,
        "n_fft": WINDOW_SAMPLES,
        "chunk_length": values["max_source_positions"] / POSITIONS_A_SECOND,
    }
    for key, number in wanted.items():
        if said.get(key, number) != number:
            raise InputError(f"{path}: {key} = {said[key]}, but {number} was expected; the model cannot be imported")


def _is_half(stored: Tensor | None, values: Mapping[str, Any], origin: Path) -> bool:
    """Whether the encoder's positions are those of the paper as they are, or rounded to float16.

    Raises: InputError: they are neither.
    """
    ours = sines_then_cosines(values["max_source_positions"], values["d_model"])
    if stored is None or torch.equal(stored, ours):
        return False
    if stored.shape == ours.shape:
        if float((stored - ours).abs().max()) < 1e-6:
            return False
        # Half of float16's last place, where two machines' sines do not round alike.
        if float((stored - ours.half().float()).abs().max()) < 6e-4:
            return True
    raise InputError(f"{origin}: the encoder's positions are not the fixed sinusoids of Whisper; it cannot be imported")


def _never_written(tokenizer: Tokenizer) -> list[int]:
    """What the authors' code forbids where nothing is said: signs of tasks, and symbols that nobody speaks.

    Source: the authors' code; the lists in Hugging Face's folders come from there.
    """
    signs = {START, *AFTER_LANGUAGES, *NO_SPEECH} - {NO_TIMES}
    found = {i for i, piece in enumerate(tokenizer.pieces) if piece in signs}
    found |= {tokenizer.encode(text)[0] for text in (" -", " '")}  # within a word both may stand
    for symbol in (*UNSPOKEN, *NOTES):
        for text in (symbol, f" {symbol}"):
            first, *others = tokenizer.encode(text)[:-1]
            if not others or symbol in NOTES:
                found.add(first)
    return sorted(found)


def _language(said: Mapping[str, Any], tokenizer: Tokenizer, vocab_size: int) -> str:
    """What the run's `data.language` is: empty for a model of one language, which takes no sign for it."""
    signs = SpeechSigns.of(tokenizer)
    several = said.get("is_multilingual", "lang_to_id" in said or vocab_size >= MULTILINGUAL_VOCABULARY)
    if not (several and signs.languages and signs.transcribe is not None):
        return ""
    given = str(said.get("language") or "").removeprefix("<|").removesuffix("|>")
    return given if given in signs.languages else "auto"


def _decode_values(said: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The section [decode] that does what the folder says of writing."""
    default = TranscriptionConfig()
    beam = int(said.get("num_beams") or 1)
    latest = said.get("max_initial_timestamp_index")
    return {
        "beam": beam if beam > 1 else default.beam,
        "alpha": float(1.0 if said.get("length_penalty") is None else said["length_penalty"]),
        "stop": "first" if beam == 1 or said.get("early_stopping") is True else "exact",
        "forbidden": sorted(set(said.get("suppress_tokens") or [])),
        "forbidden_first": sorted(set(said.get("begin_suppress_tokens") or [])),
        "latest_first_time": 30.0 if latest is None else latest * SECONDS_A_STEP,
    }


class OpenAICheckpoint:
    """A `.pt` file of the authors, under the names that Hugging Face has for the same.

    The tokenizer's file lies beside it: `multilingual.tiktoken` or `gpt2.tiktoken` of the authors' repository, or those
    of Hugging Face.
    """

    def __init__(self, file: Path) -> None:
        """Read the file, by the reader that runs no code in it.

        Raises: InputError: it is broken, or holds something else.
        """
        self.path, self.config_path = file.parent, file
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            first = " ".join(str(error).split())[:200]
            raise InputError(f"{file}: not a checkpoint of weights alone, or broken ({first})") from None
        if not isinstance(found, dict) or not {"dims", "model_state_dict"} <= found.keys():
            raise InputError(f"{file}: not a Whisper checkpoint of OpenAI, which holds dims and model_state_dict")
        dims: dict[str, int] = found["dims"]
        self._weights: dict[str, Tensor] = found["model_state_dict"]
        if dims["n_audio_state"] != dims["n_text_state"]:
            raise InputError(f"{file}: n_audio_state and n_text_state differ; zhuyi's Whisper has one width for both")
        # Behind the pieces of text, in every published vocabulary, come the signs; the last has one language more.
        languages = len(LANGUAGES) - (dims["n_vocab"] <= MULTILINGUAL_VOCABULARY)
        end = dims["n_vocab"] - NUM_TIMES - len(AFTER_LANGUAGES) - languages - len(BEFORE_LANGUAGES)
        self.config = {
            "model_type": "whisper",
            "vocab_size": dims["n_vocab"],
            "num_mel_bins": dims["n_mels"],
            "d_model": dims["n_text_state"],
            "encoder_layers": dims["n_audio_layer"],
            "decoder_layers": dims["n_text_layer"],
            "encoder_attention_heads": dims["n_audio_head"],
            "decoder_attention_heads": dims["n_text_head"],
            "encoder_ffn_dim": 4 * dims["n_audio_state"],
            "decoder_ffn_dim": 4 * dims["n_text_state"],
            "max_source_positions": dims["n_audio_ctx"],
            "max_target_positions": dims["n_text_ctx"],
            "eos_token_id": end,
            "pad_token_id": end,
            "decoder_start_token_id": end + 1,
        }

    def json(self, name: str) -> dict[str, Any]:
        """There is no file but the one."""
        return {}

    def generation(self) -> dict[str, Any]:
        """What the authors' code does: no text begins with a space or its end, nor with a time beyond a second."""
        end, space = self.config["eos_token_id"], 220
        return {"begin_suppress_tokens": [space, end], "max_initial_timestamp_index": 50}

    def weights(self) -> dict[str, Tensor]:
        """Under Hugging Face's names, as float32."""
        return {_their_name(name): weight.float() for name, weight in self._weights.items()}


_OPENAI = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.ln_post": "encoder.layer_norm",
    "decoder.token_embedding": "decoder.embed_tokens",
    "decoder.ln": "decoder.layer_norm",
    "attn": "self_attn",
    "cross_attn": "encoder_attn",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "out_proj",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
}


def _their_name(name: str) -> str:
    """Hugging Face's name of one of OpenAI's weights."""
    if name.endswith("positional_embedding"):
        return f"model.{name.partition('.')[0]}.embed_positions.weight"
    module, _, kind = name.rpartition(".")
    if module in _OPENAI:
        return f"model.{_OPENAI[module]}.{kind}"
    stack, _, number, inside = module.split(".", 3)  # encoder.blocks.0.attn.query, decoder.blocks.0.mlp.0
    parts = [inside] if inside in _OPENAI else inside.split(".")
    return ".".join(["model", stack, "layers", number, *(_OPENAI.get(part, part) for part in parts), kind])


def written_config(config: WhisperConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Their `config.json`.

    Raises: InputError: the window is no whole number of seconds, which their features want.
    """
    if config.window_seconds != int(config.window_seconds):
        raise InputError(
            f"cannot export to hf: windows of {config.window_seconds} seconds, but theirs are whole seconds; train "
            "with data.window_seconds = 4.0, say"
        )
    d_ff, signs = config.layer.d_ff, tokenizer.signs
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "num_mel_bins": config.num_mel_bins,
        "d_model": config.d_model,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": d_ff,
        "decoder_ffn_dim": d_ff,
        "activation_function": {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}[config.activation],
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.feed_forward_dropout,
        "scale_embedding": False,
        "max_source_positions": config.frames // 2,
        "max_target_positions": config.max_len,
        "bos_token_id": signs.eos,
        "pad_token_id": signs.pad,
        "eos_token_id": signs.eos,
        "decoder_start_token_id": signs.bos,
        "tie_word_embeddings": True,
    }


def written_generation(decode: TranscriptionConfig, config: WhisperConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """How `generate` is to write, as far as it has the run's options."""
    signs, own = SpeechSigns.of(tokenizer), tokenizer.signs
    never = own.all() - {own.eos} - set(own.others) if decode.forbidden is None else decode.forbidden
    values: dict[str, Any] = {
        "pad_token_id": own.pad,
        "bos_token_id": own.eos,
        "eos_token_id": own.eos,
        "decoder_start_token_id": own.bos,
        "suppress_tokens": sorted(never) or None,
        "begin_suppress_tokens": list(decode.forbidden_first) or None,
        "max_length": config.max_len,
        "is_multilingual": bool(signs.languages),
        "return_timestamps": False,
    }
    if signs.languages:
        values["lang_to_id"] = {f"<|{code}|>": i for code, i in signs.languages.items()}
        values["task_to_id"] = {"transcribe": signs.transcribe, "translate": signs.translate}
    if signs.no_times is not None:
        values["no_timestamps_token_id"] = signs.no_times
        values["max_initial_timestamp_index"] = round(decode.latest_first_time / SECONDS_A_STEP)
    return values


def written_preprocessing(config: WhisperConfig) -> dict[str, Any]:
    """Their `preprocessor_config.json`."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config.num_mel_bins,
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP_SAMPLES,
        "n_fft": WINDOW_SAMPLES,
        "chunk_length": int(config.window_seconds),
        "padding_value": 0.0,
        "return_attention_mask": False,
    }

"""Whisper, imported from either form and exported again, computes and writes what transformers does."""

import base64
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.published import whisper_folder

import zhuyi
from zhuyi.data.audio import log_mel, windowed
from zhuyi.errors import InputError
from zhuyi.interop import export, import_run
from zhuyi.interop.published_tokenizers import LANGUAGES
from zhuyi.tasks.transcription import Listener, Manner

pytestmark = pytest.mark.peers

VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "128-bins": {"num_mel_bins": 128, "encoder_layers": 3, "decoder_layers": 1},
    "odd": {"d_model": 42, "encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 53,
            "decoder_ffn_dim": 53, "num_mel_bins": 17, "max_source_positions": 77, "max_target_positions": 43},
    "scaled": {"scale_embedding": True, "activation_function": "relu", "vocab_size": 480},
    "english": {"languages": ()},
    "gelu-new": {"activation_function": "gelu_new", "decoder_layers": 2, "dropout": 0.1, "activation_dropout": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_probe_agrees(variant: str, tmp_path: Path) -> None:
    """Logits, and ids of texts."""
    whisper_folder(tmp_path / "hf", **VARIANTS[variant])
    comparison = import_run(tmp_path / "hf", tmp_path / "run")
    assert comparison.difference is not None and comparison.difference < 1e-5
    run = zhuyi.load(tmp_path / "run")
    assert run.config.data.language == ("" if variant == "english" else "auto")


def sounds(count: int) -> list[np.ndarray]:
    """Tones that rise or fall, each in another noise."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(count):
        time = np.arange(int(rng.integers(8000, 32000))) / 16000
        tone = np.sin(2 * np.pi * rng.uniform(100, 3000) * time ** rng.uniform(0.5, 2.0))
        found.append((tone * rng.uniform(0.1, 1) + 0.1 * rng.standard_normal(len(time))).astype(np.float32))
    return found


@pytest.mark.parametrize("times", [False, True])
def test_greedy_ids_are_those_of_generate(times: bool, tmp_path: Path) -> None:
    """50 inputs; the language is found out by both."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    model = whisper_folder(tmp_path / "hf", talkative=True)
    import_run(tmp_path / "hf", tmp_path / "run")
    run = zhuyi.load(tmp_path / "run")
    manner = Manner("auto", times=times, guarded=False)
    config = replace(run.decode_config(beam=1), temperatures=(0.0,))
    listener = Listener(run.model, run.tokenizer, config, manner)
    pieces = sounds(50)
    languages = listener.detect_languages(pieces)
    found = [heard.attempt for heard in listener.hear(pieces, languages)]
    assert len({hypothesis.tokens for hypothesis in found}) > 25  # different sounds, different texts
    assert len(set(languages)) > 1
    features = log_mel(windowed(pieces, 2.0), 80)
    for i in range(50):
        ids = model.generate(
            features[i : i + 1],
            return_timestamps=times,
            task="transcribe",
            max_new_tokens=24,
            force_unique_generate_call=True,  # not window after window, as far as the times say
        )[0].tolist()
        prefix = list(listener.prefix(languages[i]))
        written = ids[len(prefix) :] if ids[: len(prefix)] == prefix else ids
        assert list(found[i].tokens)[:24] == [token for token in written if token != run.tokenizer.signs.eos], i


def test_export_gives_the_same_model(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = whisper_folder(tmp_path / "hf", num_mel_bins=128)
    import_run(tmp_path / "hf", tmp_path / "run")
    comparison = export(tmp_path / "run", "hf", tmp_path / "out")
    assert comparison is not None and comparison.difference is not None and comparison.difference < 1e-5
    again = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=1e-6)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.feature_size, extractor.n_samples) == (128, 32000)
    assert again.generation_config.suppress_tokens == model.generation_config.suppress_tokens


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("config.json", {"decoder_attention_heads": 4}, "decoder_attention_heads"),
    ("config.json", {"decoder_ffn_dim": 38}, "decoder_ffn_dim"),
    ("config.json", {"activation_function": "tanh"}, "activation_function"),
    ("config.json", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("config.json", {"something_new": 3}, "something_new"),
    ("preprocessor_config.json", {"hop_length": 128}, "hop_length"),
    ("preprocessor_config.json", {"dither": 0.5}, "dither"),
    ("generation_config.json", {"repetition_penalty": 1.5}, "repetition_penalty"),
]


@pytest.mark.parametrize(("file", "change", "named"), REFUSED)
def test_what_cannot_be_taken_over_is_refused_by_name(
    file: str, change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    whisper_folder(tmp_path / "hf")
    path = tmp_path / "hf" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=named):
        import_run(tmp_path / "hf", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def openai_name(name: str) -> str:
    """OpenAI's name of one of Hugging Face's weights, written independently of the import."""
    for theirs, ours in (
        ("model.", ""), ("encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("decoder.embed_positions.weight", "decoder.positional_embedding"), ("embed_tokens", "token_embedding"),
        ("layers.", "blocks."), ("encoder_attn_layer_norm", "cross_attn_ln"), ("self_attn_layer_norm", "attn_ln"),
        ("final_layer_norm", "mlp_ln"), ("encoder_attn", "cross_attn"), ("self_attn", "attn"), ("q_proj", "query"),
        ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out"), ("fc1", "mlp.0"), ("fc2", "mlp.2"),
        ("encoder.layer_norm", "encoder.ln_post"), ("decoder.layer_norm", "decoder.ln"),
    ):  # fmt: skip
        name = name.replace(theirs, ours)
    return name


def test_openai_checkpoint_with_its_ranks(tmp_path: Path) -> None:
    """A .pt in half precision beside a .tiktoken: the same numbers, and the published order of the signs."""
    transformers = pytest.importorskip("transformers")
    pieces = [*(bytes([i]) for i in range(256)), b"th", b" th", b" the", b"in", b"ing"]
    size = len(pieces) + 2 + 99 + 6 + 1501
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=50, num_mel_bins=8,
        max_target_positions=30, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).half().float().eval()
    dims = {
        "n_mels": 8, "n_audio_ctx": 50, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1, "n_vocab": size,
        "n_text_ctx": 30, "n_text_state": 16, "n_text_head": 2, "n_text_layer": 1,
    }  # fmt: skip
    weights = {openai_name(n): w.half() for n, w in model.state_dict().items() if n != "proj_out.weight"}
    torch.save({"dims": dims, "model_state_dict": weights}, tmp_path / "tiny.pt")
    ranks = "".join(f"{base64.b64encode(piece).decode()} {i}\n" for i, piece in enumerate(pieces))
    (tmp_path / "multilingual.tiktoken").write_text(ranks)
    comparison = import_run(tmp_path / "tiny.pt", tmp_path / "run")
    assert comparison.difference is not None and comparison.difference < 1e-5
    run = zhuyi.load(tmp_path / "run")
    assert run.config.model.half_positions and run.tokenizer.pieces[-1] == "<|30.00|>"
    assert run.tokenizer.encode(" the king")[:-1] == [258, 32, 107, 260]
    # Bytes are ids here. Of what is several, a space and the first byte of notes; no letter, and none of ,.!?%&$'-
    unspoken = {*b'"#()*+/:;<=>@[\\]^_`{|}~', 0x20, 0xE2}
    signs = ("translate", "transcribe", "startoftranscript", "startoflm", "startofprev", "nospeech")
    expected = unspoken | {run.tokenizer.pieces.index(f"<|{name}|>") for name in signs}
    assert set(run.config.decode.forbidden) == expected
    (tmp_path / "tiny.pt").write_bytes((tmp_path / "tiny.pt").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"tiny\.pt: not a checkpoint"):
        import_run(tmp_path / "tiny.pt", tmp_path / "other")


def test_ranks_become_merges(tmp_path: Path) -> None:
    """Texts are cut as merging the pair of lowest rank again and again cuts them."""
    from zhuyi.interop.published_tokenizers import speech_tokenizer

    pieces = [*(bytes([i]) for i in range(256)), b"th", b" th", b" the", b"in", b"ing", b" thing"]
    ranks = {piece: i for i, piece in enumerate(pieces)}
    (tmp_path / "x.tiktoken").write_text("".join(f"{base64.b64encode(p).decode()} {i}\n" for p, i in ranks.items()))
    tokenizer = speech_tokenizer(tmp_path, len(pieces) + 2 + 99 + 6 + 1501, len(pieces) + 1, len(pieces))

    def cut(word: bytes) -> list[int]:
        parts = [bytes([byte]) for byte in word]
        while True:
            pairs = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
            if not pairs:
                return [ranks[part] for part in parts]
            i = min(pairs)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]

    for words in (["the"], [" the"], [" thing", " in"], [" bathing", " \u4f60"]):
        text = "".join(words)
        assert tokenizer.encode(text)[:-1] == [i for word in words for i in cut(word.encode())], text
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.pieces[len(pieces) :][:5] == [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|zh|>",
        "<|de|>",
    ]
    assert tokenizer.pieces[-1] == "<|30.00|>"


def test_languages_are_those_of_transformers() -> None:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES as THEIRS

    assert list(THEIRS) == list(LANGUAGES)

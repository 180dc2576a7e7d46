from pathlib import Path
from typing import Any

import pytest
import torch

from zhuyi import visualize
from zhuyi.config import RunConfig, TrainConfig
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.errors import InputError
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.predict import Translator
from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.visualize import draw


@pytest.fixture(scope="module", params=["sinusoidal", "learned"])
def translator(request: pytest.FixtureRequest) -> Translator:
    tokenizer = train_tokenizer(
        ["我们看见了猫。", "We saw a cat."] * 3, TokenizerConfig(kind="character", vocab_size=40)
    )
    torch.manual_seed(1)
    size = tokenizer.vocab_size
    config = TransformerConfig(
        d_model=14, num_heads=2, d_ff=10, num_encoder_layers=2, num_decoder_layers=3, max_len=20,
        positions=request.param, source_vocab_size=size, target_vocab_size=size,
    )  # fmt: skip
    run = RunConfig("translation", config, PairDataConfig(), TrainConfig(max_steps=1))
    return Translator(Transformer(config).eval(), run, (tokenizer, tokenizer))


def test_maps_of_a_model(translator: Translator, tmp_path: Path) -> None:
    draw(translator, "看见了猫", tmp_path / "map.png", target="a cat", place="encoder", layer=2, head=1)
    draw(translator, "看见了猫", tmp_path / "map.html", target="a cat", layer=3)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "map.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(("place", "side"), [("cross", "source"), ("encoder", "source"), ("decoder", "target")])
def test_positions_of_a_model(
    place: str, side: str, translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(visualize, "draw_positions", lambda table, path, title: drawn.append((table, path, title)))
    draw(translator, None, tmp_path / "positions.png", place=place, positions=True)
    ((table, path, title),) = drawn
    assert path == tmp_path / "positions.png"
    assert torch.equal(table, getattr(translator.model, f"{side}_positions").table)
    kind = translator.config.model.positions
    assert title == ("Sinusoidal positions" if kind == "sinusoidal" else f"Learned positions of the {side}")


@pytest.mark.parametrize(
    ("text", "name", "options", "message"),
    [
        (None, "map.png", {}, "no text"),
        ("猫", "map.jpg", {}, r"ends in \.jpg; .* \.png or \.html"),
        ("猫", "map", {}, "ends in nothing"),
        (None, "positions.html", {"positions": True}, r"\.png$"),
        ("猫", "nowhere/map.png", {}, "no folder"),
        ("猫", "map.html", {"layer": 9}, "no layer 9 in the cross; it has 3"),
        ("猫", "map.png", {"place": "middle"}, "choose from encoder, decoder, cross"),
    ],
)
def test_errors_say_what_to_do(
    text: str | None, name: str, options: dict[str, Any], message: str, translator: Translator, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        draw(translator, text, tmp_path / name, target="cat", **options)
    assert list(tmp_path.iterdir()) == []

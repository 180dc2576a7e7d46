from pathlib import Path
from typing import Any

import pytest
import torch

from zhuyi.config import RunConfig, TrainConfig
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.decoding.config import GenerationConfig
from zhuyi.errors import InputError
from zhuyi.models.bert import Bert, BertConfig
from zhuyi.models.gpt import Gpt, GptConfig
from zhuyi.models.t5 import T5, T5Config
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.predict import Classifier, Generator, Translator, WordFiller
from zhuyi.predict.text_encoder import TextEncoder
from zhuyi.tasks import TASKS
from zhuyi.tasks.mixture import MixtureConfig
from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.tasks.text_classification import LabelledDataConfig
from zhuyi.tasks.text_data import TextDataConfig
from zhuyi.visualize import View, draw, positions


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
    draw(translator, "看见了猫", tmp_path / "map.png", View(target="a cat", place="encoder", layer=2, head=1))
    draw(translator, "看见了猫", tmp_path / "map.html", View(target="a cat", layer=3))
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "map.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(("place", "side"), [("cross", "source"), ("encoder", "source"), ("decoder", "target")])
def test_positions_of_a_model(
    place: str, side: str, translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(positions, "draw_positions", lambda table, path, title: drawn.append((table, path, title)))
    draw(translator, None, tmp_path / "positions.png", View(place=place, positions=True))
    ((table, path, title),) = drawn
    assert path == tmp_path / "positions.png"
    assert torch.equal(table, getattr(translator.model, f"{side}_positions").table)
    kind = translator.config.model.positions
    assert title == ("Sinusoidal positions" if kind == "sinusoidal" else f"Learned positions of the {side}")


# Models of one stack


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["我们看见了猫。", "We saw a cat."] * 3, TokenizerConfig(kind="character", vocab_size=40))


@pytest.fixture(scope="module")
def generator(tokenizer: Tokenizer) -> Generator:
    torch.manual_seed(1)
    config = GptConfig(d_model=14, num_heads=2, num_layers=3, max_len=9, vocab_size=tokenizer.vocab_size)
    run = RunConfig("language-modelling", config, TextDataConfig(), TrainConfig(max_steps=1), GenerationConfig())
    return Generator(Gpt(config).eval(), run, tokenizer)


def encoder_run(tokenizer: Tokenizer, columns: tuple[int, ...] = (1, 2)) -> Classifier:
    torch.manual_seed(1)
    config = BertConfig(d_model=15, num_heads=3, d_ff=11, num_layers=2, max_len=9, vocab_size=tokenizer.vocab_size + 1)
    run = RunConfig("text-classification", config, LabelledDataConfig(columns=columns), TrainConfig(max_steps=1))
    return Classifier(TextEncoder(Bert(config).eval(), tokenizer, 9), run)


def test_a_language_model_looks_back_at_what_it_has_read(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = generator.attention("看见了猫")
    assert (maps.source_tokens, maps.target_tokens) == ((), ("看", "见", "了", "猫"))
    assert maps.read_tokens == ("</s>", "看", "见", "了")
    assert set(maps.maps) == {f"decoder.{i}.self" for i in range(3)}
    # What looks at a place moves with what is read there, and never before it.
    other = generator.attention("看见我猫").maps["decoder.2.self"]
    changed = (other - maps.maps["decoder.2.self"]).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.tolist() == [False, False, False, True]
    assert not maps.maps["decoder.0.self"].triu(1).any()
    assert maps.maps["decoder.0.self"].sum(-1).allclose(torch.ones(()))
    draw(generator, "看见了猫", tmp_path / "map.png", View(layer=2, head=1))
    draw(generator, "看见了猫", tmp_path / "map.html", View(place="decoder"))
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    drawn: list[Any] = []
    monkeypatch.setattr(positions, "draw_positions", lambda table, path, title: drawn.append((table, title)))
    draw(generator, None, tmp_path / "positions.png", View(positions=True))
    assert torch.equal(drawn[0][0], generator.model.positions.table) and drawn[0][1] == "Learned positions"


def test_an_encoder_looks_at_all_of_the_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = encoder_run(tokenizer)
    maps = run.attention("看见了猫")
    assert (maps.source_tokens, maps.target_tokens) == (("<s>", "看", "见", "了", "猫", "</s>"), ())
    assert {name: tuple(each.shape) for name, each in maps.maps.items()} == {
        f"encoder.{i}.self": (3, 6, 6) for i in range(2)
    }
    draw(run, "看见了猫", tmp_path / "map.png")
    draw(run, "看见了猫", tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert '"place": "encoder"' in page and '"place": "decoder"' not in page
    pair = encoder_run(tokenizer, (1, 2, 3)).attention("看见\t猫")
    assert pair.source_tokens == ("<s>", "看", "见", "</s>", "猫", "</s>")
    filler = WordFiller(TextEncoder(run.model, tokenizer, 9), run.config)
    assert filler.attention("看[MASK]猫").source_tokens == ("<s>", "看", "[MASK]", "猫", "</s>")
    for task in ("language-modelling", "masked-language-modelling", "text-classification"):
        assert "attention" in TASKS[task].commands


def test_what_a_model_of_one_stack_cannot_show(generator: Generator, tokenizer: Tokenizer, tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    for run, there in ((generator, "decoder"), (encoder_run(tokenizer), "encoder")):
        with pytest.raises(InputError, match=f"no maps of the place 'cross'; choose from {there}"):
            draw(run, "猫", out, View(place="cross"))
        with pytest.raises(InputError, match="--target does not apply to a run of"):
            draw(run, "猫", out, View(target="cat"))
        with pytest.raises(InputError, match="the text is empty"):
            draw(run, "", out)
        with pytest.raises(InputError, match="longer than the 9 tokens"):
            draw(run, "猫" * 10, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "name", "options", "message"),
    [
        (None, "map.png", {}, "nothing to look into; give a text, or --positions"),
        ("猫", "map.jpg", {}, r"ends in \.jpg; .* \.png or \.html"),
        ("猫", "map", {}, "ends in nothing"),
        (None, "positions.html", {"positions": True}, r"\.png$"),
        ("猫", "map.png", {"sensor": "3"}, "--sensor does not apply to a run of translation; leave it out"),
        ("猫", "map.png", {"sensor": "3", "begin": "x"}, "--sensor, --begin do not apply .* leave them out"),
        ("猫", "map.png", {"rollout": True, "layer": 1}, "leave --layer and --head out"),
        ("猫", "map.png", {"rollout": True, "place": "cross"}, "a rollout is of self-attention"),
        ("猫", "map.png", {"rollout": True, "positions": True}, "choose one of"),
        ("猫", "nowhere/map.png", {}, "no folder"),
        ("猫", "map.html", {"layer": 9}, "no layer 9 in the cross; it has 3"),
        ("猫", "map.png", {"place": "middle"}, "choose from encoder, decoder, cross"),
    ],
)
def test_errors_say_what_to_do(
    text: str | None, name: str, options: dict[str, Any], message: str, translator: Translator, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        draw(translator, text, tmp_path / name, View(**{"target": "cat", **options}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("side", "place", "both_ways"), [("source", "", True), ("target", "decoder", False)])
def test_positions_of_a_t5_are_what_distances_add(
    side: str, place: str, both_ways: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(positions, "draw_distances", lambda table, path, title: drawn.append((table, title)))
    model = T5(T5Config(d_model=14, num_heads=2, head_dim=5, d_ff=22, num_buckets=9, max_distance=13, vocab_size=29))
    run = RunConfig("text-to-text", model.config, MixtureConfig(), TrainConfig(max_steps=1))
    positions.draw_model_positions(model, run, tmp_path / "positions.png", "target" if place else "source")
    assert drawn == [
        (getattr(model, f"{'encoder' if both_ways else 'decoder'}_positions"), f"Relative positions of the {side}")
    ]
    monkeypatch.undo()
    positions.draw_model_positions(model, run, tmp_path / "positions.png", "target" if place else "source")
    assert (tmp_path / "positions.png").stat().st_size > 5_000


def test_a_rollout_is_drawn_where_layers_read_one_another(translator: Translator, tmp_path: Path) -> None:
    pictures = []
    for name, view in (("mean", View(target="a cat", place="encoder")), ("all", View(target="a cat", rollout=True))):
        draw(translator, "看见了猫", tmp_path / f"{name}.png", view)
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] != pictures[1]
    draw(translator, "看见了猫", tmp_path / "map.html", View(target="a cat", place="decoder", rollout=True))
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert '"first": {"place": "decoder", "layer": -1, "head": -1}' in page

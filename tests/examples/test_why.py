"""The two studies, gone through on made-up pairs, and the variants that one of them is of."""

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zhuyi.models.seq2seq import Seq2Seq, Seq2SeqConfig

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def quick(script: str, out: Path) -> str:
    """What the script says, run in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), "--quick", "--out", str(out)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(
    scope="module",
    params=[("why_attention", 3, 3), pytest.param(("why_qkv", 9, 2), marks=pytest.mark.slow)],
    ids=lambda param: param[0],
)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, int, int]:
    name, models, pictures = request.param
    out = tmp_path_factory.mktemp(name)
    return quick(f"{name}.py", out), out, models, pictures


def test_a_study_trains_measures_and_draws(study: tuple[str, Path, int, int]) -> None:
    said, out, models, pictures = study
    assert len(list((out / "runs").glob("*/model.safetensors"))) == models
    (page,) = out.glob("*.md")
    text = page.read_text(encoding="utf-8")
    assert text in said
    shown = sorted(path.name for path in out.glob("*.png"))
    assert len(shown) == pictures
    for name in shown:
        assert f"({name})" in text
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    first = [row for row in rows if len(row) == len(rows[0])]
    assert len(first) == 2 + models  # header and ruler
    for row in first[2:]:
        assert all(float(cell.strip(" |M").replace(",", "")) >= 0 for cell in row[1:]), row


def test_the_documents_have_a_place_for_what_is_measured() -> None:
    for name in ("why-attention", "why-qkv"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert text.count("<!-- measured -->\n") == text.count("<!-- end of measured -->") == 1
        assert f"python examples/{name.replace('-', '_')}.py --minutes" in text


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, under their own names for as long as the test takes."""
    found = {}
    for name in ("studies", "why_attention", "why_qkv"):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found[name] = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, found[name])
        spec.loader.exec_module(found[name])
    yield found


def variant(module: ModuleType, name: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    sizes = {"d_model": 14, "num_heads": 2, "d_ff": 11, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = module.VariantConfig(**sizes, source_vocab_size=19, target_vocab_size=19, variant=name, **changes)
    return module.VariantTransformer(config).double().eval()


SRC, TGT = torch.tensor([[3, 4, 5, 2]]), torch.tensor([[1, 7, 8]])


@torch.no_grad()
def test_without_the_scale_is_attention_with_scale_one(examples: dict[str, ModuleType]) -> None:
    model = variant(examples["why_qkv"], "no scale")
    x = torch.randn(1, 4, 14, dtype=torch.float64)
    attention = model.encoder_layers[0].self_attention
    q, k, v = (part.unflatten(-1, (2, 7)).transpose(1, 2) for part in F.linear(x, attention.w_qkv.weight).chunk(3, -1))
    expected = (torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x), attention.w_o(expected), rtol=0, atol=1e-12)
    cross = model.decoder_layers[0].cross_attention
    torch.testing.assert_close(cross.w_q(x), math.sqrt(7) * F.linear(x, cross.w_q.weight), rtol=0, atol=1e-12)


@torch.no_grad()
def test_queries_are_keys_and_values_are_what_is_read(examples: dict[str, ModuleType]) -> None:
    x = torch.randn(1, 4, 14, dtype=torch.float64)
    same = variant(examples["why_qkv"], "W_Q = W_K")
    q, k, v = same.encoder_layers[0].self_attention.w_qkv(x).chunk(3, dim=-1)
    assert torch.equal(q, k)
    assert not torch.allclose(q, v)
    cross = same.decoder_layers[0].cross_attention
    assert torch.equal(cross.w_kv(x)[..., :14], cross.w_q(x))
    plain = variant(examples["why_qkv"], "no W_V")
    for projection in (plain.encoder_layers[0].self_attention.w_qkv, plain.decoder_layers[0].cross_attention.w_kv):
        assert torch.equal(projection(x)[..., -14:], x)


@torch.no_grad()
def test_without_positions_the_sources_order_means_nothing(examples: dict[str, ModuleType]) -> None:
    for name, means_nothing in (("no positions", True), ("published", False)):
        model = variant(examples["why_qkv"], name)
        found = torch.allclose(model(SRC.flip(1), TGT), model(SRC, TGT), atol=1e-12)
        assert found == means_nothing


def test_one_hot_embeddings_are_nearly_orthogonal_and_not_learnt(examples: dict[str, ModuleType]) -> None:
    embedding = examples["why_qkv"].OneHot(50, 4000)
    products = embedding.weight @ embedding.weight.T
    torch.testing.assert_close(products, torch.eye(50), rtol=0, atol=0.1)
    assert not list(embedding.parameters())
    model = variant(examples["why_qkv"], "one-hot", tie_embeddings="none")
    assert "output_projection.weight" in dict(model.named_parameters())
    assert not any("embedding" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("no scale", {}),
        ("no positions", {}),
        ("W_Q = W_K", {}),
        ("no W_V", {}),
        ("one-hot", {"tie_embeddings": "none"}),
    ],
)
@torch.no_grad()
def test_variants_write_step_by_step_as_all_at_once(
    examples: dict[str, ModuleType], name: str, changes: dict[str, Any]
) -> None:
    model = variant(examples["why_qkv"], name, **changes)
    expected, state = model(SRC, TGT), model.start(model.encode(SRC), TGT[:, :1])
    for t in range(3):
        logits, state = model.step(TGT[:, t], state)
        torch.testing.assert_close(logits, expected[:, t], rtol=0, atol=1e-10)


@pytest.mark.parametrize("tie", ["three-way", "none"])
def test_gradients_are_those_of_each_position(examples: dict[str, ModuleType], tie: Any) -> None:
    """A word that stands once has the gradient of its row of the table; one that stands twice has two."""
    torch.manual_seed(1)
    config = Seq2SeqConfig(d_model=14, source_vocab_size=19, target_vocab_size=19, tie_embeddings=tie)
    model = Seq2Seq(config).double().eval()
    src, tgt = [3, 4, 3, 2], [7, 8, 7, 9]
    of_source, of_target = examples["why_attention"].embedding_gradients(model, src, tgt)
    assert of_source.shape == of_target.shape == (4,)
    assert not torch.isclose(of_source[0], of_source[2])
    source, target = model.source_embedding.weight, model.target_embedding.weight
    assert source.shape == target.shape == (19, 14)  # put back
    state = model.decoder_states(torch.tensor([src]), torch.tensor([[1, *tgt[:-1]]]))[0, -1]
    loss = F.cross_entropy(model.output_projection.weight.detach() @ state, torch.tensor(9))
    expected = [gradient.norm(dim=1) for gradient in torch.autograd.grad(loss, [source, target])]
    torch.testing.assert_close(of_source[[1, 3]], expected[0][[4, 2]])
    torch.testing.assert_close(of_target[[0, 2]], expected[1][[1, 8]])


def test_groups_hold_every_sentence_once(examples: dict[str, ModuleType]) -> None:
    lengths = [5, 3, 3, 9, 12, 4, 5, 30, 7, 6]
    groups = examples["why_attention"].length_groups(lengths)
    assert sorted(i for _, group in groups for i in group) == list(range(10))
    for label, group in groups:
        first, _, last = label.partition("-")
        assert all(int(first) <= lengths[i] <= int(last or first) for i in group)
    assert [int(label.partition("-")[0]) for label, _ in groups] == sorted(
        {int(g.partition("-")[0]) for g, _ in groups}
    )


def test_a_run_trained_otherwise_is_not_used(
    examples: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a finished one nor one to go on with: the page says how long all were trained, and on what."""
    studies = examples["studies"]
    calls: list[bool] = []

    def train(config: Any, folder: Any, *, resume: bool, log: Any) -> dict[str, Any]:
        calls.append(resume)
        folder.write_config(config)
        return {"interrupted": len(calls) == 1, "bleu": 1.0}

    monkeypatch.setattr(studies, "train", train)
    monkeypatch.setattr(studies.zhuyi, "load", lambda path, precision: None)
    given = studies.argparse.Namespace(
        out=tmp_path, quick=False, minutes=3.0, seed=1, data=studies.made_up_pairs(tmp_path / "data")
    )
    model = {"name": "transformer", "d_model": 26, "num_heads": 2}
    with pytest.raises(SystemExit, match="stopped; the same command goes on"):
        studies.trained("A b", model, given)
    for changes in ({"minutes": 5.0}, {"seed": 2}, {"data": studies.made_up_pairs(tmp_path / "other")}):
        other = studies.argparse.Namespace(**{**vars(given), **changes})
        with pytest.raises(SystemExit, match=r"a-b was trained otherwise: .* was .* and is "):
            studies.trained("A b", model, other)
    assert studies.trained("A b", model, given).scores == {"interrupted": False, "bleu": 1.0}
    assert calls == [False, True]
    with pytest.raises(SystemExit, match=r"train.max_minutes was 3.0 and is 5.0\. Choose another --out, or delete it"):
        studies.trained("A b", model, studies.argparse.Namespace(**{**vars(given), "minutes": 5.0}))
    with pytest.raises(SystemExit, match=r"model.d_model was 26 and is 28"):
        studies.trained("A b", {**model, "d_model": 28}, given)
    assert studies.trained("A b", model, given).scores["bleu"] == 1.0 and len(calls) == 2


def test_a_page_is_filled_in(examples: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = examples["studies"]
    (tmp_path / "docs" / "images").mkdir(parents=True)
    page = tmp_path / "docs" / "page.md"
    page.write_text("# Page\n\n<!-- measured -->\n\nold\n\n<!-- end of measured -->\n\nEnd\n", encoding="utf-8")
    monkeypatch.setattr(studies, "ROOT", tmp_path)
    picture = tmp_path / "loss.png"
    picture.write_bytes(b"picture")
    given = studies.argparse.Namespace(out=tmp_path, document=True)
    for _ in range(2):
        studies.publish(given, "page", "| new |\n\n![Loss](loss.png)\n", [picture])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Page\n\n<!-- measured -->\n\n| new |")
    assert text.endswith("<!-- end of measured -->\n\nEnd\n")
    assert text.count("(images/page-loss.png)") == 1 and "old" not in text
    assert (tmp_path / "docs" / "images" / "page-loss.png").read_bytes() == b"picture"

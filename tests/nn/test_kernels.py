"""The compiled kernels against the same arithmetic in plain operations, and what happens where they cannot be had."""

import ctypes
from pathlib import Path

import pytest
import torch
from torch import Tensor

from zhuyi.machine import has_int8_instructions
from zhuyi.nn import kernels
from zhuyi.nn.attention import SelfAttention, attend, merge_heads, split_heads
from zhuyi.nn.blocks import Residual
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import padding_mask
from zhuyi.nn.state import DecoderState


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def library() -> ctypes.CDLL:
    found = kernels.library_for(torch.empty(1))
    if found is None:
        pytest.skip(f"no compiled kernels here: {kernels.status()}")
    return found


def draw(*shape: int) -> Tensor:
    return torch.randn(shape)


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 13, 16, 39])
@pytest.mark.parametrize(("d_in", "d_out"), [(1, 1), (5, 17), (64, 64), (70, 65), (130, 200)])
def test_product_is_exact_in_integers(library: ctypes.CDLL, rows: int, d_in: int, d_out: int) -> None:
    weight = torch.randint(-127, 128, (d_out, d_in), dtype=torch.int8)
    scales, bias = torch.rand(d_out) + 0.5, draw(d_out)
    x = torch.randint(-127, 128, (rows, d_in)).float()
    x[:, 0] = 127  # so that each row is its own quantisation
    expected = x.double() @ weight.double().T * scales + bias
    found = kernels.Int8Weights(weight, scales, bias).product(library, x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)
    found = kernels.Int8Weights(weight, scales, None).product(library, x)
    torch.testing.assert_close(found.double(), expected - bias, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("width", [2, 16, 30, 100])
def test_add_norm_is_the_norm_of_the_sum(library: ctypes.CDLL, width: int) -> None:
    x, y, weight, bias = draw(2, 3, width), draw(2, 3, width), draw(width), draw(width)
    expected = torch.nn.functional.layer_norm(x + y, (width,), weight, bias, 1e-5)
    found = kernels.add_norm(library, x, y.transpose(0, 1).contiguous().transpose(0, 1), weight, bias, 1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("head_dim", [5, 16, 33, 64, 97])
@pytest.mark.parametrize("columns", [1, 7, 40])
def test_attention_is_attend(library: ctypes.CDLL, kept: torch.dtype, width: int, head_dim: int, columns: int) -> None:
    """Also where keys and values are kept in half as many bytes: what is computed of them is as exact."""
    q, cache = draw(4, width, 2 * head_dim), (3 * draw(2, 2, 4, 2, columns, 1, head_dim)).to(kept)
    mask = torch.arange(columns) < torch.randint(1, columns + 1, (4, 1))
    bias = torch.zeros(4, columns).masked_fill(~mask, torch.finfo(torch.float32).min)
    keys, values = cache[1, :, :, :, :, 0].float()
    expected = merge_heads(attend(split_heads(q, 2), keys, values, mask=mask[:, None, None])[0])
    found = kernels.Cached(cache, width, bias=bias).attend(library, 1, q)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # The columns that are left out first instead of last.
    starts = columns - mask.sum(dim=1, dtype=torch.int32)
    found = kernels.Cached(cache.flip(4).contiguous(), width, starts=starts).attend(library, 1, q)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_a_state_gives_the_same_with_and_without(
    library: ctypes.CDLL, kept: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beams that change places, leave and join, in both."""
    outputs = []
    for found in (library, None):
        monkeypatch.setattr(kernels, "_load", lambda found=found: (found, ""))
        outputs.append(play(kept))
    assert len(outputs[0]) == 60
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    if kept is torch.bfloat16:
        exact = torch.cat([x.flatten() for x in play(torch.float32)])
        rounded = torch.cat([x.flatten() for x in outputs[0]])
        assert 0 < (rounded - exact).abs().max() < 0.05


def play(dtype: torch.dtype) -> list[Tensor]:
    """What a state's rows attend, step by step; the same calls and numbers each time."""
    generator = torch.Generator().manual_seed(3)

    def state(groups: int) -> DecoderState:
        real = torch.arange(6) < torch.randint(1, 7, (groups, 1), generator=generator)
        memory = torch.randn(1, 2, groups, 2, 6, 5, generator=generator)
        cache = torch.zeros(1, 2, groups, 2, 0, 1, 5, dtype=dtype)
        return DecoderState(cache, memory.to(dtype), real, dtype=torch.float32)

    outputs = []
    playing = state(4)
    for step in range(30):
        groups, width = playing.groups, playing.width
        playing.begin(1)
        qkv = torch.randn(groups, width, 3 * 2 * 5, generator=generator)
        outputs += [playing.attend_past(0, qkv), playing.attend_memory(0, qkv[..., :10].contiguous())]
        if step == 4:
            playing = playing.select(torch.arange(groups).repeat_interleave(3))
        elif step > 4:
            places = torch.randint(0, 3, (groups, 3), generator=generator)
            kept = torch.tensor([0, 3, 2] if step == 9 else list(range(groups)))
            playing = playing.select((kept[:, None] * 3 + places[kept]).flatten())
        if step in (2, 11):
            other = state(2)
            playing = playing.join(other if step == 2 else other.select(torch.arange(2).repeat_interleave(3)))
    return outputs


def test_groups_move_by_their_columns_alone(library: ctypes.CDLL) -> None:
    x = draw(3, 2, 6, 2, 5, 3, 4)
    to, source = torch.tensor([4, 1]), torch.tensor([0, 5])
    expected = x.clone()
    expected[:, :, to, :, 1:4] = x[:, :, source, :, 1:4]
    kernels.move_groups(library, x, slice(1, 4), to, source)
    assert torch.equal(x, expected)


def test_gradients_and_other_types_take_the_plain_way(library: ctypes.CDLL) -> None:
    assert kernels.library_for(torch.empty(1, dtype=torch.bfloat16)) is None
    assert kernels.library_for(torch.empty(1), torch.empty(1, dtype=torch.bfloat16)) is None
    with torch.inference_mode(False), torch.enable_grad():
        assert kernels.library_for(torch.empty(1)) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_a_recorded_graph_is_made_of_operations(library: ctypes.CDLL) -> None:
    with torch.inference_mode(False), torch.no_grad():
        residual = Residual(6, 0.0, norm_first=False).eval().requires_grad_(False)
        traced = torch.jit.trace(lambda x: residual(x, torch.sin), draw(2, 6))
        x = draw(2, 6)
        torch.testing.assert_close(traced(x), residual(x, torch.sin), rtol=1e-5, atol=1e-5)


def test_a_sublayer_in_another_type_takes_the_plain_way(library: ctypes.CDLL) -> None:
    residual, x = Residual(6, 0.0, norm_first=False).eval(), draw(2, 6)
    found = residual(x, lambda y: y.bfloat16())
    torch.testing.assert_close(found, residual.norm(x + x.bfloat16()), rtol=1e-5, atol=1e-5)


def test_projections_in_another_type_take_the_plain_way(library: ctypes.CDLL) -> None:
    attention, x = SelfAttention(16, 2, 8).eval(), draw(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = attention(x), attention(x, maps=Maps())
    torch.testing.assert_close(found, expected)


def test_two_threads_give_what_one_gives(library: ctypes.CDLL) -> None:
    weights = kernels.Int8Weights(torch.randint(-127, 128, (200, 130), dtype=torch.int8), torch.rand(200), draw(200))
    cache, q, y = draw(1, 2, 9, 3, 50, 1, 33), draw(9, 4, 3 * 33), draw(40, 500)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            generator = torch.Generator().manual_seed(1)
            products = [weights.product(library, torch.randn(r, 130, generator=generator)) for r in range(1, 40)]
            attended = kernels.Cached(cache, 4).attend(library, 0, q)
            found.append([*products, attended, kernels.add_norm(library, y, y, y[0], y[1], 1e-5)])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_what_is_not_a_number_is_not_hidden(library: ctypes.CDLL) -> None:
    q, cache = draw(2, 1, 10), draw(1, 2, 2, 2, 7, 1, 5)
    q[1, 0, 3] = torch.nan
    found = kernels.Cached(cache, 1).attend(library, 0, q)
    assert found[0].isfinite().all()
    assert found[1, 0, :5].isnan().all()


def test_nothing_to_do(library: ctypes.CDLL) -> None:
    weights = kernels.Int8Weights(torch.ones(3, 5, dtype=torch.int8), torch.ones(3), None)
    assert weights.product(library, torch.empty(0, 5)).shape == (0, 3)
    assert kernels.Cached(torch.empty(1, 2, 0, 2, 4, 1, 5), 1).attend(library, 0, torch.empty(0, 1, 10)).shape[0] == 0
    assert not kernels.Cached(torch.empty(1, 2, 1, 2, 0, 1, 5), 1).attend(library, 0, draw(1, 1, 10)).any()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and nothing loaded yet."""
    if not has_int8_instructions():
        pytest.skip("this processor has no AVX512-VNNI")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ZHUYI_KERNELS", raising=False)
    return tmp_path / "zhuyi"


def test_compiled_once_into_the_users_cache(library: ctypes.CDLL, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, line = kernels._load.__wrapped__()
    assert found is not None
    assert str(fresh) in line
    assert [path.suffix for path in fresh.iterdir()] == [".so"]
    monkeypatch.setattr(kernels, "_compiled", None)  # not called again
    assert kernels._load.__wrapped__()[0] is not None


def test_what_others_could_have_written_is_not_loaded(fresh: Path) -> None:
    assert kernels._load.__wrapped__()[0] is not None
    (path,) = fresh.iterdir()
    for each in (fresh, path):
        each.chmod(0o777)
        found, line = kernels._load.__wrapped__()
        assert found is None and "by others" in line
        each.chmod(0o700)
    path.unlink()  # it is loaded here: another file, not other bytes in it
    path.write_bytes(b"cut short")
    path.chmod(0o700)
    assert kernels._load.__wrapped__()[0] is not None  # made anew


def test_without_a_compiler_torch_does_it(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/bin/false")
    found, line = kernels._load.__wrapped__()
    assert found is None
    assert "cannot be compiled" in line
    assert not list(fresh.iterdir())
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert kernels._load.__wrapped__() == (None, "no C compiler")
    monkeypatch.setenv("ZHUYI_KERNELS", "0")
    assert kernels._load.__wrapped__()[0] is None


@pytest.mark.parametrize("masked", [False, True])
def test_an_encoders_attention_is_the_plain_one_and_alike_in_any_batch(library: ctypes.CDLL, masked: bool) -> None:
    attention = SelfAttention(15, 3, 5).eval()
    x, real = draw(4, 9, 15), torch.arange(9) < torch.tensor([9, 3, 1, 6])[:, None]
    mask = padding_mask(real) if masked else None
    found = attention(x, mask)
    torch.testing.assert_close(found, attention(x, mask, maps=Maps()), rtol=1e-5, atol=1e-5)
    if masked:
        for row, length in enumerate(real.sum(dim=1).tolist()):
            heads = attention._attend_by_kernel(attention.w_qkv(x[row : row + 1, :length]), None)
            together = attention._attend_by_kernel(attention.w_qkv(x), mask)
            assert heads is not None and together is not None
            # The projections before it are torch's own here, and differ in the last bit.
            torch.testing.assert_close(heads[0], together[row, :length], rtol=1e-6, atol=1e-6)

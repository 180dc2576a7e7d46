"""attend and multi-head attention against the formula written out, against torch, and both paths against each other."""

import math
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zhuyi.nn import attention
from zhuyi.nn.attention import CrossAttention, SelfAttention, attend, merge_heads, split_heads
from zhuyi.nn.maps import Maps

PATHS = ("plain", "fused")


def attend_by(path: str, *args: Tensor, **options: Any) -> Tensor:
    """The output of `attend` by one of its two paths."""
    with mock.patch.object(attention, "PLAIN_PATH_MAX_LOGITS", 0 if path == "fused" else 10**9):
        return attend(*args, **options)[0]


def written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Equation 1 as sums over what may be attended; the rest is left out, not made small."""
    shape = (*q.shape[:-1], k.shape[-2])
    logits = torch.einsum("...td,...sd->...ts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    logits = logits if bias is None else logits + bias
    allowed = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape).clone()
    for t in range(shape[-2] if causal else 0):
        allowed[..., t, t + 1 :] = False
    exponentials = torch.where(allowed, logits.exp(), torch.zeros_like(logits))
    sums = exponentials.sum(dim=-1, keepdim=True)
    weights = exponentials / torch.where(sums > 0, sums, torch.ones_like(sums))
    return torch.einsum("...ts,...se->...te", weights, v), weights


@st.composite
def attention_inputs(draw: st.DrawFn) -> dict[str, Any]:
    """Any shapes, and any of the options beside any others."""
    size = st.integers(1, 5)
    lead = draw(st.lists(st.integers(1, 3), max_size=3))
    causal = draw(st.booleans())
    rows = draw(size)
    columns = rows if causal else draw(size)
    d, e = draw(size), draw(size)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def broadcast_shape() -> list[int]:
        """A shape that broadcasts to the logits': some dimensions 1, some in front left out."""
        full = [n if draw(st.booleans()) else 1 for n in (*lead, rows, columns)]
        return full[draw(st.integers(0, len(full) - 1)) :]

    mask = None
    if draw(st.booleans()):
        share = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
        mask = torch.rand(broadcast_shape(), generator=generator) < share
    return {
        "q": normal(*lead, rows, d),
        "k": normal(*lead, columns, d),
        "v": normal(*lead, columns, e),
        "mask": mask,
        "bias": normal(*broadcast_shape()) if draw(st.booleans()) else None,
        "scale": draw(st.sampled_from([None, 0.0, 0.5, 2.0])),
        "causal": causal,
    }


@given(attention_inputs())
def test_all_paths_are_the_formula(inputs: dict[str, Any]) -> None:
    expected, expected_weights = written_out(**inputs)
    q, k, v = inputs.pop("q"), inputs.pop("k"), inputs.pop("v")
    output, weights = attend(q, k, v, need_weights=True, **inputs)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-12)
    for path in PATHS:
        torch.testing.assert_close(attend_by(path, q, k, v, **inputs), expected, rtol=0, atol=1e-12)


@given(attention_inputs())
def test_paths_agree_in_single_precision(inputs: dict[str, Any]) -> None:
    inputs = {name: x.float() if name in ("q", "k", "v") else x for name, x in inputs.items()}
    inputs["bias"] = None if inputs["bias"] is None else inputs["bias"].float()
    q, k, v = inputs.pop("q"), inputs.pop("k"), inputs.pop("v")
    plain, fused = (attend_by(path, q, k, v, **inputs) for path in PATHS)
    assert plain.dtype == fused.dtype == torch.float32
    torch.testing.assert_close(plain, fused, rtol=0, atol=1e-5)
    weights = attend(q, k, v, need_weights=True, **inputs)[1]
    assert weights is not None
    sums = weights.sum(dim=-1)
    assert bool(((sums - 1).abs().lt(1e-5) | (sums == 0)).all())


def qkv(rows: int = 5, columns: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, rows, 4), (2, 3, columns, 4), (2, 3, columns, 6)
    q, k, v = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize("masked", [False, True])
def test_plain_path_is_torchs(masked: bool) -> None:
    q, k, v = qkv(dtype=torch.float32)
    mask = None
    if masked:
        mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6
        mask[..., 0] = True
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(attend(q, k, v, mask=mask, need_weights=True)[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(attend_by("plain", q, k, v, mask=mask), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_identities(path: str) -> None:
    q, k, v = qkv()
    no_preference = attend_by(path, torch.zeros_like(q), k, v)
    torch.testing.assert_close(no_preference, v.mean(dim=-2, keepdim=True).expand_as(no_preference))
    torch.testing.assert_close(attend_by(path, q, torch.zeros_like(k), v), no_preference)
    running_mean = v.cumsum(dim=-2) / torch.arange(1.0, 8.0, dtype=v.dtype)[:, None]
    torch.testing.assert_close(attend_by(path, torch.zeros_like(k), k, v, causal=True), running_mean)
    constant = torch.ones_like(v) * 3
    torch.testing.assert_close(attend_by(path, q, k, constant), torch.full((2, 3, 5, 6), 3.0, dtype=v.dtype))
    one_allowed = torch.zeros(5, 7, dtype=torch.bool)
    chosen = [3, 0, 6, 6, 1]
    one_allowed[range(5), chosen] = True
    torch.testing.assert_close(attend_by(path, q, k, v, mask=one_allowed), v[..., chosen, :])
    by_bias = torch.zeros(5, 7, dtype=v.dtype).masked_fill(~one_allowed, -1e4)
    torch.testing.assert_close(attend_by(path, q, k, v, bias=by_bias), v[..., chosen, :])
    hard = attend_by(path, k, k, v, scale=1e6)  # a temperature near zero: the best match alone
    torch.testing.assert_close(hard, v.gather(-2, (k @ k.mT).argmax(dim=-1)[..., None].expand_as(v)))


@pytest.mark.parametrize("path", PATHS)
def test_order_of_the_keys_means_nothing(path: str) -> None:
    q, k, v = qkv()
    order = torch.tensor([4, 2, 0, 6, 1, 3, 5])
    torch.testing.assert_close(attend_by(path, q, k[..., order, :], v[..., order, :]), attend_by(path, q, k, v))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", [*PATHS, "weights"])
def test_row_without_anything_to_attend_gives_zeros(path: str, dtype: torch.dtype) -> None:
    q, k, v = (x.detach().requires_grad_() for x in qkv(dtype=dtype))
    mask = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    mask[0, 0, 2] = mask[1] = False
    if path == "weights":
        output, weights = attend(q, k, v, mask=mask, need_weights=True)
        assert weights is not None
        assert not weights[0, :, 2].any()
        assert not weights[1].any()
        assert bool((weights[0, :, 3].sum(dim=-1) - 1).abs().max() < 1e-2)
    else:
        output = attend_by(path, q, k, v, mask=mask)
    assert not output[0, :, 2].any()
    assert not output[1].any()
    assert bool(output[0, :, [0, 1, 3, 4]].all())
    output.square().sum().backward()
    for x in (q, k, v):
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())
        assert bool(x.grad[0].any())
        assert not x.grad[1].any()


@pytest.mark.parametrize("path", PATHS)
def test_mask_and_causality_that_leave_a_row_nothing(path: str) -> None:
    q, k, v = qkv(rows=5, columns=5)
    left_padded = torch.tensor([False, False, True, True, True])
    output = attend_by(path, q, k, v, mask=left_padded, causal=True)
    assert not output[..., :2, :].any()
    torch.testing.assert_close(output[..., 2, :], v[..., 2, :])
    v[..., 3:, :] = 1e6
    torch.testing.assert_close(attend_by(path, q, k, v, mask=left_padded, causal=True)[..., :3, :], output[..., :3, :])


@pytest.mark.parametrize("options", ["none", "mask", "bias", "causal", "all"])
@pytest.mark.parametrize("path", PATHS)
def test_gradient_is_the_finite_difference(path: str, options: str) -> None:
    q, k, v = (x[:1, :2, :3].clone().requires_grad_() for x in qkv())
    bias = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])

    def output(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return attend_by(
            path,
            q,
            k,
            v,
            mask=mask if options in ("mask", "all") else None,
            bias=bias if options in ("bias", "all") else None,
            causal=options in ("causal", "all"),
            scale=0.7,
        )

    assert torch.autograd.gradcheck(output, (q, k, v, bias))


@pytest.mark.parametrize("path", PATHS)
def test_dropout_of_the_weights(path: str) -> None:
    q, v = torch.zeros(1, 1, 400, 2), torch.ones(1, 1, 400, 1)
    torch.manual_seed(0)
    output = attend_by(path, q, q, v, dropout=0.25)
    # A row is the mean of 400 draws that are 0 or 4/3, of standard deviation sqrt(1/3).
    spread = math.sqrt(1 / 3 / 400)
    assert abs(float(output.mean()) - 1) < 4 * spread / 20
    assert abs(float(output.std()) / spread - 1) < 0.2
    torch.manual_seed(0)
    torch.testing.assert_close(attend_by(path, q, q, v, dropout=0.25), output, rtol=0, atol=0)
    torch.testing.assert_close(attend_by(path, q, q, v), torch.ones_like(output))


def test_weights_are_those_before_dropout() -> None:
    q, k, v = qkv()
    dropped, weights = attend(q, k, v, dropout=0.5, need_weights=True)
    clean, clean_weights = attend(q, k, v, need_weights=True)
    torch.testing.assert_close(weights, clean_weights)
    assert not torch.allclose(dropped, clean)


def test_weights_come_only_where_asked_for() -> None:
    assert attend(*qkv())[1] is None
    weights = attend(*qkv(), need_weights=True)[1]
    assert weights is not None
    assert weights.shape == (2, 3, 5, 7)


def test_long_rows_never_hold_the_square() -> None:
    """Beyond PLAIN_PATH_MAX_LOGITS the kernel is called, with the plain causality that needs no mask."""
    q = torch.zeros(1, 1, 129, 2)
    with mock.patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as kernel:
        attend(q, q, q, causal=True)
        kernel.assert_called_once()
        assert kernel.call_args.kwargs["is_causal"] is True
        assert kernel.call_args.args[3] is None
        attend(q[..., :128, :], q[..., :128, :], q[..., :128, :], causal=True)
        kernel.assert_called_once()


@pytest.mark.parametrize("path", PATHS)
def test_inputs_are_left_as_they_were(path: str) -> None:
    q, k, v = qkv(5, 5)
    mask, bias = torch.rand(5, 5) < 0.5, torch.randn(2, 3, 5, 5, dtype=torch.float64)
    given = [q, k, v, mask, bias]
    before = [x.clone() for x in given]
    attend_by(path, q, k, v, mask=mask, bias=bias, causal=True)
    for x, old in zip(given, before, strict=True):
        assert torch.equal(x, old)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": torch.ones(5, 7)}, "must be boolean.*float32"),
        ({"mask": torch.ones(5, 7, dtype=torch.long)}, "must be boolean.*int64"),
        ({"mask": torch.ones(5, 6, dtype=torch.bool)}, r"\(5, 6\) does not broadcast.*\(2, 3, 5, 7\)"),
        ({"mask": torch.ones(3, 1, 5, 7, dtype=torch.bool)}, r"\(3, 1, 5, 7\) does not broadcast"),
        ({"mask": torch.ones(1, 2, 3, 5, 7, dtype=torch.bool)}, "does not broadcast"),
        ({"causal": True}, "T = 5 and S = 7"),
    ],
)
def test_wrong_masks_are_refused(options: dict[str, Any], message: str) -> None:
    for need_weights in (False, True):
        with pytest.raises(ValueError, match=message):
            attend(*qkv(), need_weights=need_weights, **options)


def test_heads_are_cut_and_joined() -> None:
    x = torch.arange(2 * 3 * 10.0).view(2, 3, 10)
    heads = split_heads(x, 5)
    assert heads.shape == (2, 5, 3, 2)
    for head in range(5):
        assert torch.equal(heads[:, head], x[..., 2 * head : 2 * head + 2])
    assert torch.equal(merge_heads(heads), x)
    assert merge_heads(heads[0]).shape == (3, 10)


def random_(module: torch.nn.Module) -> Any:
    """All parameters random, the biases too, which begin at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


def torchs_multi_head(
    q: Tensor, kv: Tensor, w_in: Tensor, b_in: Tensor, w_o: torch.nn.Linear, num_heads: int, mask: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """torch's own, which wants the batch second and True for what is hidden."""
    output, weights = F.multi_head_attention_forward(
        q.transpose(0, 1),
        kv.transpose(0, 1),
        kv.transpose(0, 1),
        embed_dim_to_check=q.shape[-1],
        num_heads=num_heads,
        in_proj_weight=w_in,
        in_proj_bias=b_in,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=w_o.weight,
        out_proj_bias=w_o.bias,
        training=False,
        key_padding_mask=~real,
        attn_mask=~mask,
        average_attn_weights=False,
    )
    assert weights is not None
    return output.transpose(0, 1), weights


REAL = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 5), (2, 7), (1, 11), (5, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_torchs(num_heads: int, head_dim: int, causal: bool, attention_path: str) -> None:
    d_model = num_heads * head_dim
    module: SelfAttention = random_(SelfAttention(d_model, num_heads, head_dim))
    x = torch.randn(2, 7, d_model)
    mask = torch.ones(7, 7, dtype=torch.bool)
    expected, expected_weights = torchs_multi_head(
        x, x, module.w_qkv.weight, module.w_qkv.bias, module.w_o, num_heads, mask.tril() if causal else mask, REAL
    )
    output = module(x, REAL[:, None, None], causal=causal)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    maps = Maps()
    torch.testing.assert_close(module(x, REAL[:, None, None], causal=causal, maps=maps, name="here"), output)
    torch.testing.assert_close(maps.weights["here"], expected_weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 5), (2, 7)])
def test_cross_attention_is_torchs(num_heads: int, head_dim: int, attention_path: str) -> None:
    d_model = num_heads * head_dim
    module: CrossAttention = random_(CrossAttention(d_model, num_heads, head_dim))
    x, memory = torch.randn(2, 4, d_model), torch.randn(2, 7, d_model)
    expected, expected_weights = torchs_multi_head(
        x,
        memory,
        torch.cat([module.w_q.weight, module.w_kv.weight]),
        torch.cat([module.w_q.bias, module.w_kv.bias]),
        module.w_o,
        num_heads,
        torch.ones(4, 7, dtype=torch.bool),
        REAL,
    )
    output = module(x, memory, REAL[:, None, None])
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    maps = Maps()
    torch.testing.assert_close(module(x, memory, REAL[:, None, None], maps=maps, name="here"), output)
    torch.testing.assert_close(maps.weights["here"], expected_weights, rtol=0, atol=1e-5)


def test_heads_need_not_fill_the_model() -> None:
    """MultiHead = Concat(head_1, ..., head_H) W_O, written out for 3 heads of 5 in a model of 4."""
    module: SelfAttention = random_(SelfAttention(4, 3, 5, bias=False)).double()
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    w_q, w_k, w_v = (w.view(3, 5, 4) for w in module.w_qkv.weight.chunk(3))
    heads = [written_out(x @ w_q[h].T, x @ w_k[h].T, x @ w_v[h].T)[0] for h in range(3)]
    torch.testing.assert_close(module(x), torch.cat(heads, dim=-1) @ module.w_o.weight.T)


@torch.no_grad()
def test_a_scale_and_a_position_bias_of_its_own(attention_path: str) -> None:
    """Also where the compiled kernel would else attend: float32 without gradients."""
    torch.manual_seed(0)
    ours, cross = SelfAttention(9, 3, 5, bias=False, scale=1.0), CrossAttention(9, 3, 5, scale=0.3)
    x, memory, bias = torch.randn(2, 7, 9), torch.randn(2, 4, 9), torch.randn(1, 3, 7, 7)
    q, k, v = (split_heads(part, 3) for part in ours.w_qkv(x).chunk(3, dim=-1))
    for added in (bias, None):
        expected = ours.w_o(merge_heads(attend(q, k, v, bias=added, scale=1.0)[0]))
        torch.testing.assert_close(ours(x, position_bias=added), expected)
    k, v = cross.project_memory(memory)
    expected = cross.w_o(merge_heads(attend(split_heads(cross.w_q(x), 3), k, v, scale=0.3)[0]))
    torch.testing.assert_close(cross(x, memory), expected)


def test_dropout_only_while_training() -> None:
    for module in (SelfAttention(6, 3, 2, dropout=0.5), CrossAttention(6, 3, 2, dropout=0.5)):
        inputs = [torch.randn(1, 5, 6)] * (1 if isinstance(module, SelfAttention) else 2)
        assert not torch.equal(module(*inputs), module(*inputs))
        module.eval()
        assert torch.equal(module(*inputs), module(*inputs))


def test_fused_projections_begin_as_their_parts_would() -> None:
    """Glorot's bound for one matrix of 40 x 30, not for the three or two stacked; the biases are zero."""
    bound = math.sqrt(6 / 70)
    for weight in (SelfAttention(30, 5, 8).w_qkv.weight, CrossAttention(30, 5, 8).w_kv.weight):
        for matrix in weight.chunk(weight.shape[0] // 40):
            assert 0.97 * bound < float(matrix.detach().abs().max()) <= bound
            assert abs(float(matrix.detach().std()) / (bound / math.sqrt(3)) - 1) < 0.1
    assert not SelfAttention(30, 5, 8).w_qkv.bias.any()
    assert SelfAttention(30, 5, 8, bias=False).w_qkv.bias is None

"""GMAN (Zheng et al. 2020): attention between sensors and between times, to forecast the traffic of the next steps."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.errors import InputError
from zhuyi.nn.attention import attend, merge_heads, split_heads
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.linear import Linear
from zhuyi.nn.maps import Maps

# How a day enters, and by how many numbers: as one of seven (the paper), as a working day or not, or not at all.
Days = Literal["week", "workday", "none"]
DAY_NUMBERS: Mapping[str, int] = MappingProxyType({"week": 7, "workday": 2, "none": 0})
FIRST_OF_WEEKEND = 5  # Monday is 0
NORM_EPSILON = 1e-3  # of batch normalisation, as in the authors' code


@dataclass(frozen=True)
class GmanConfig:
    """Sizes and options; the defaults are the paper's, from which the authors' code departs.

    Args:   d_model, num_heads: D and K; a head is D / K wide.
            num_layers: L, the blocks of the encoder, and as many of the decoder.
            num_groups: of sensors, for grouped spatial attention; 0 attends between all pairs.
            num_sensors: N; 0 means "from the data".
            embedding: a sensor's vector is learned, or given by the data (node2vec's say); empty means "from the data".
            d_embedding: its width; 0 means the data's, and d_model where it is learned.
            slots_a_day: into how many parts the day is cut; 0 means "from the data".
            days: how the day enters beside them. A week of data has no day twice: `workday` then.
            causal: temporal attention sees no later step: so in the paper and in the code for METR-LA, not in that for
            PeMS (`mask` of STAttBlock).
            values_read_embedding: an attention's values are made of hidden state and embedding, as in the code; of the
            hidden state alone, as in the paper (eq. 7 and 10).
            output_layers: what attention and fusion give goes through two layers more, as in the code alone.
            batch_norm: before every ReLU, as in the code (`bn`); not in the paper. It needs training in float32.
            output_dropout: before each of the last two layers: 0.1 in the code for METR-LA, 0 in the paper.
            dropout: of what a block adds to its input; ours.
            gaps: `mask`: nobody attends to what was not measured; `value`: it is read as the value 0, as in the code.
            mean, std: of the values measured; a std of 0 means "from the data".
    """

    name: Literal["gman"] = "gman"
    d_model: int = 64
    num_heads: int = 8
    num_layers: int = 3
    num_groups: int = 0
    num_sensors: int = 0
    embedding: Literal["", "learned", "given"] = ""
    d_embedding: int = 0
    slots_a_day: int = 0
    days: Days = "week"
    causal: bool = True
    values_read_embedding: bool = False
    output_layers: bool = False
    batch_norm: bool = False
    output_dropout: float = 0.0
    dropout: float = 0.0
    gaps: Literal["mask", "value"] = "mask"
    mean: float = 0.0
    std: float = 0.0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_groups", "num_sensors", "d_embedding", "slots_a_day", "std"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("output_dropout", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} is not divisible by num_heads = {self.num_heads}")
        if self.num_sensors and self.num_groups > self.num_sensors:
            raise ValueError(f"num_groups = {self.num_groups} is more than the {self.num_sensors} sensors there are")

    def body(self) -> "GmanConfig":
        """The same for other data of the same sensors."""
        return replace(self, mean=0.0, std=0.0)


_CODE = {"values_read_embedding": True, "output_layers": True, "batch_norm": True, "gaps": "value"}
# `paper`: section "Experimental Settings". The others: what train.py and model.py of the authors' folders have.
PUBLISHED_SIZES = {
    "paper": GmanConfig(),
    "code-pems": GmanConfig(num_layers=1, causal=False, **_CODE),  # type: ignore[arg-type]
    "code-metr": GmanConfig(num_layers=5, output_dropout=0.1, **_CODE),  # type: ignore[arg-type]
}


class Gman(nn.Module):
    """The values that all sensors measured, to those of the steps to come.

    Source: Zheng et al. 2020, figure 2. Departure: gaps in the history are masked, where `gaps` says so.
    """

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = SpatioTemporalEmbedding(c)
        self.input = TwoLayers(1, c.d_model, c)
        self.encoder_blocks = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        self.transform_attention = TransformAttention(c)
        self.decoder_blocks = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        self.output = TwoLayers(c.d_model, 1, c, dropout=c.output_dropout)

    @property
    def device(self) -> torch.device:
        """Where the weights are: affine maps may be packed, and hold no parameters then."""
        return self.embedding.table.device

    def forward(self, history: Tensor, times: Tensor, maps: Maps | None = None) -> Tensor:
        """The forecast, in the unit of the history.

        Shape: history (B, P, N), where NaN was not measured; times (B, P + Q, 2): the day of the week from 0, Monday,
               and the slot of the day; returns (B, Q, N). Any P and Q.
        """
        c = self.config
        steps, dtype = history.shape[1], self.embedding.table.dtype
        measured = ~history.isnan()
        mask = None if c.gaps == "value" or bool(measured.all()) else measured
        filled = torch.where(measured, history, c.mean if c.gaps == "mask" else 0.0)
        x = self.input(((filled - c.mean) / (c.std or 1.0)).to(dtype)[..., None])  # (B, P, N, D)
        e = self.embedding(times)  # (B, P + Q, N, D)
        past, future = e[:, :steps], e[:, steps:]
        for i, block in enumerate(self.encoder_blocks):
            x = block(x, past, mask, maps, f"encoder.{i}")
        x = self.transform_attention(x, past, future, mask, maps)  # (B, Q, N, D)
        for i, block in enumerate(self.decoder_blocks):
            x = block(x, future, None, maps, f"decoder.{i}")
        # Speeds of which 8 bits are left would be half a unit off.
        wide = history.dtype if dtype in (torch.bfloat16, torch.float16) else dtype
        return self.output(x)[..., 0].to(wide) * (c.std or 1.0) + c.mean  # (B, Q, N)


class Projection(nn.Module):
    """f(x) = ReLU(x W + b), of several W side by side.

    Shape:  x (..., d_in); returns (..., matrices * d_out).
    Source: Zheng et al. 2020, eq. 1. Departure: batch normalisation keeps its means by torch's momentum of 0.1, where
            the authors' code lets that fall from 0.5 to 0.01.
    """

    def __init__(self, d_in: int, d_out: int, config: GmanConfig, *, matrices: int = 1) -> None:
        super().__init__()
        self.linear = Linear(d_in, matrices * d_out, matrices=matrices)
        self.norm = nn.BatchNorm1d(matrices * d_out, eps=NORM_EPSILON) if config.batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        if self.norm is not None:
            if self.training and x.dtype in (torch.bfloat16, torch.float16):
                raise InputError(
                    'model.batch_norm keeps means that 16 bits would round away; set train.precision = "float32"'
                )
            x = self.norm(x.flatten(0, -2)).view_as(x)
        return F.relu(x)


class TwoLayers(nn.Module):
    """A projection to D, then an affine map.

    Shape:  x (..., d_in); returns (..., d_out).
    Args:   dropout: before each of them.
    """

    def __init__(self, d_in: int, d_out: int, config: GmanConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = Projection(d_in, config.d_model, config)
        self.last = Linear(config.d_model, d_out)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(self.first(self.dropout(x))))


def _output_layers(config: GmanConfig) -> nn.Module:
    return TwoLayers(config.d_model, config.d_model, config) if config.output_layers else nn.Identity()


class SpatioTemporalEmbedding(nn.Module):
    """Which sensor, and which time of day and week: the sum of an embedding of either.

    Shape:  times (B, T, 2); returns (B, T, N, D).
    Source: Zheng et al. 2020, section "Spatio-Temporal Embedding". Departures: a sensor's vector may be learned; the
            day may enter otherwise (`days`).
    """

    table: Tensor  # (N, d_embedding)

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        c = config
        self.days, self.slots = c.days, c.slots_a_day
        width = c.d_embedding or c.d_model
        table = torch.randn(c.num_sensors, width)
        if c.embedding == "given":  # the data's will take its place, stand still, and be kept with the weights
            self.register_buffer("table", table)
        else:
            self.table = nn.Parameter(table)
        self.of_sensor = TwoLayers(width, c.d_model, c)
        self.of_time = TwoLayers(DAY_NUMBERS[c.days] + c.slots_a_day, c.d_model, c)

    def forward(self, times: Tensor) -> Tensor:
        day, slot = times.unbind(dim=-1)  # each (B, T)
        hot = [F.one_hot(slot, self.slots)]
        if self.days != "none":
            number = day if self.days == "week" else (day >= FIRST_OF_WEEKEND).long()
            hot.insert(0, F.one_hot(number, DAY_NUMBERS[self.days]))
        of_time = self.of_time(torch.cat(hot, dim=-1).to(self.table.dtype))  # (B, T, D)
        return of_time[:, :, None] + self.of_sensor(self.table)  # (B, T, N, D)


class Block(nn.Module):
    """ST-Attention: between sensors and between times side by side, fused by a gate, added to the input.

    Shape:  x and e (B, T, N, D), mask (B, T, N) or None: True where measured; returns (B, T, N, D).
    Source: Zheng et al. 2020, section "ST-Attention Block".
    """

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.spatial = GroupedSpatialAttention(config) if config.num_groups else SpatialAttention(config)
        self.temporal = TemporalAttention(config)
        self.fusion = GatedFusion(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, e: Tensor, mask: Tensor | None, maps: Maps | None, name: str) -> Tensor:
        z = torch.cat((x, e), dim=-1)  # (B, T, N, 2 * D)
        of_sensors = self.spatial(x, z, mask, maps, f"{name}.spatial")
        of_times = self.temporal(x, z, mask, maps, f"{name}.temporal")
        return x + self.dropout(self.fusion(of_sensors, of_times))


class Projections(nn.Module):
    """The queries, keys and values of all heads: f_1 and f_2 of hidden state and embedding, f_3 of the state.

    Shape: x (..., D), z (..., 2 * D); returns three (..., D).
    """

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.values_read_embedding = config.values_read_embedding
        self.w_qk = Projection(2 * config.d_model, config.d_model, config, matrices=2)
        self.w_v = Projection((1 + config.values_read_embedding) * config.d_model, config.d_model, config)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = self.w_qk(z).chunk(2, dim=-1)
        return q, k, self.w_v(z if self.values_read_embedding else x)


def attend_in_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_heads: int,
    mask: Tensor | None,
    maps: Maps | None,
    name: str,
    *,
    causal: bool = False,
) -> Tensor:
    """Multi-head attention in each of R rows by itself; the heads side by side.

    Shape: q (B, R, T, D), k and v (B, R, S, D), mask (B, R, S) or None; returns (B, R, T, D).
    """
    batch = q.shape[0]
    q, k, v = (split_heads(each.flatten(0, 1), num_heads) for each in (q, k, v))  # (B * R, H, T or S, d)
    may_attend = None if mask is None else mask.flatten(0, 1)[:, None, None]  # (B * R, 1, 1, S)
    heads, weights = attend(q, k, v, mask=may_attend, need_weights=maps is not None, causal=causal)
    if maps is not None and weights is not None:
        maps.add(name, weights.unflatten(0, (batch, -1)))  # (B, R, H, T, S)
    return merge_heads(heads).unflatten(0, (batch, -1))  # (B, R, T, D)


class SpatialAttention(nn.Module):
    """At each time, every sensor attends to all sensors.

    Shape:  x (B, T, N, D), z (B, T, N, 2 * D), mask (B, T, N) or None; returns (B, T, N, D).
    Source: Zheng et al. 2020, eq. 5 to 7.
    """

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.projections = Projections(config)
        self.output = _output_layers(config)

    def forward(self, x: Tensor, z: Tensor, mask: Tensor | None, maps: Maps | None, name: str) -> Tensor:
        q, k, v = self.projections(x, z)
        return self.output(attend_in_rows(q, k, v, self.num_heads, mask, maps, name))


class GroupedSpatialAttention(nn.Module):
    """At each time, every sensor attends to those of its group, and every group to all groups.

    Shape:  as `SpatialAttention`; N M + (N / M)^2 logits a head and time, instead of N^2, for groups of M sensors.
    Source: Zheng et al. 2020, section "Group Spatial Attention" and figure 4: N / M groups drawn at random, the largest
            of each feature for the whole group, and local and global features added. What groups' queries, keys and
            values are made of is not said there: of those largest features alone, by matrices of their own.
    """

    members: Tensor  # (G * M,): who is in each group; some are there twice, where places are left over
    is_filled: Tensor  # (G, M)
    places: Tensor  # (N,): where in `members` a sensor is

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.num_heads, self.groups = config.num_heads, config.num_groups
        sensors, size = config.num_sensors, -(-config.num_sensors // config.num_groups)
        # The same in every life of a run, and on every machine; dealt out one by one, so that no group is empty.
        drawn = torch.from_numpy(np.random.Generator(np.random.Philox(sensors)).permutation(sensors))
        dealt = torch.arange(self.groups * size).view(size, self.groups).T  # (G, M)
        self.register_buffer("members", drawn[dealt.flatten() % sensors], persistent=False)
        self.register_buffer("is_filled", dealt < sensors, persistent=False)
        self.register_buffer("places", dealt.flatten().argsort()[drawn.argsort()], persistent=False)
        self.within = Projections(config)
        self.between = Projection(config.d_model, config.d_model, config, matrices=3)
        self.output = _output_layers(config)

    def forward(self, x: Tensor, z: Tensor, mask: Tensor | None, maps: Maps | None, name: str) -> Tensor:
        batch, steps = x.shape[:2]
        may_attend = self.is_filled.expand(batch, steps, -1, -1)  # (B, T, G, M)
        if mask is not None:
            may_attend = may_attend & mask[:, :, self.members].view_as(may_attend)
        q, k, v = (self._grouped(each).flatten(1, 2) for each in self.within(x, z))  # (B, T * G, M, D)
        local = attend_in_rows(q, k, v, self.num_heads, may_attend.flatten(1, 2), maps, f"{name}.within")
        local = local.unflatten(1, (steps, self.groups))  # (B, T, G, M, D)
        # Values are not negative, nor are averages of them: 0 is never the larger one.
        largest = (local * self.is_filled[..., None]).amax(dim=3)  # (B, T, G, D)
        q, k, v = self.between(largest).chunk(3, dim=-1)
        of_groups = None if mask is None else may_attend.any(dim=-1)  # (B, T, G)
        all_over = attend_in_rows(q, k, v, self.num_heads, of_groups, maps, f"{name}.between")  # (B, T, G, D)
        both = (local + all_over[:, :, :, None]).flatten(2, 3)  # (B, T, G * M, D)
        return self.output(both[:, :, self.places])  # (B, T, N, D)

    def _grouped(self, x: Tensor) -> Tensor:
        return x[:, :, self.members].unflatten(2, (self.groups, -1))  # (B, T, G, M, D)


class TemporalAttention(nn.Module):
    """At each sensor, every time attends to all times, or to itself and earlier ones.

    Shape:  as `SpatialAttention`.
    Source: Zheng et al. 2020, eq. 8 to 10.
    """

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.num_heads, self.causal = config.num_heads, config.causal
        self.projections = Projections(config)
        self.output = _output_layers(config)

    def forward(self, x: Tensor, z: Tensor, mask: Tensor | None, maps: Maps | None, name: str) -> Tensor:
        q, k, v = (each.transpose(1, 2) for each in self.projections(x, z))  # (B, N, T, D)
        measured = None if mask is None else mask.transpose(1, 2)  # (B, N, T)
        heads = attend_in_rows(q, k, v, self.num_heads, measured, maps, name, causal=self.causal)
        return self.output(heads.transpose(1, 2))  # (B, T, N, D)


class GatedFusion(nn.Module):
    """H = z * H_S + (1 - z) * H_T, where z = sigmoid(H_S W_1 + H_T W_2 + b).

    Shape:  both (..., D); returns (..., D).
    Source: Zheng et al. 2020, eq. 11 and 12.
    """

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.w_1 = Linear(config.d_model, config.d_model, bias=False)
        self.w_2 = Linear(config.d_model, config.d_model)
        self.output = _output_layers(config)

    def forward(self, of_sensors: Tensor, of_times: Tensor) -> Tensor:
        gate = torch.sigmoid(self.w_1(of_sensors) + self.w_2(of_times))
        return self.output(torch.lerp(of_times, of_sensors, gate))


class TransformAttention(nn.Module):
    """At each sensor, every time to come attends to those of the history, by their embeddings alone.

    Shape:  x and past (B, P, N, D), future (B, Q, N, D), mask (B, P, N) or None; returns (B, Q, N, D).
    Source: Zheng et al. 2020, eq. 13 to 15.
    """

    def __init__(self, config: GmanConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.w_q = Projection(config.d_model, config.d_model, config)
        self.w_k = Projection(config.d_model, config.d_model, config)
        self.w_v = Projection(config.d_model, config.d_model, config)
        self.output = _output_layers(config)

    def forward(self, x: Tensor, past: Tensor, future: Tensor, mask: Tensor | None, maps: Maps | None) -> Tensor:
        projected = self.w_q(future), self.w_k(past), self.w_v(x)
        q, k, v = (each.transpose(1, 2) for each in projected)  # (B, N, Q or P, D)
        measured = None if mask is None else mask.transpose(1, 2)  # (B, N, P)
        heads = attend_in_rows(q, k, v, self.num_heads, measured, maps, "transform")
        return self.output(heads.transpose(1, 2))  # (B, Q, N, D)

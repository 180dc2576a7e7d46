"""Low-rank adapters: a trained model learns on by a few numbers beside its matrices, which stay as they are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.nn.linear import Linear

BASE, DOWN, UP = "base", "down", "up"


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices learn, and by how much.

    Args:   rank: of what is added to a matrix; 0: there are no adapters, and all weights learn.
            alpha: what is added is scaled by alpha / rank.
            targets: names of affine maps: `w_qkv`, `w_q`, `w_kv` and `w_o` of attention, `w_1` and `w_2` of the
            feed-forward network. Queries, keys and values, where they are one matrix, share the narrow side. The
            default is all maps of attention, of whichever of these names a model has; of others each must fit.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("w_qkv", "w_q", "w_kv", "w_o")

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"rank must be at least 0, got {self.rank}")
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha must be above 0, got {self.alpha}")
        if not self.targets:
            raise ValueError("targets is empty; name an affine map, w_qkv say")


class LoraLinear(nn.Module):
    """y = x W^T + b + (alpha / rank) x A^T B^T, where W and b stand still; B begins as zeros, and so does the change.

    Shape:  x (..., K), W (N, K), A (rank, K), B (N, rank); returns (..., N).
    Source: Hu et al. 2022, section 4.1.
    """

    def __init__(self, base: Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        d_out, d_in = base.weight.shape
        self.down = nn.Parameter(torch.randn(config.rank, d_in, device=base.weight.device) * d_in**-0.5)
        self.up = nn.Parameter(torch.zeros(d_out, config.rank, device=base.weight.device))
        self.down.data, self.up.data = self.down.data.to(base.weight.dtype), self.up.data.to(base.weight.dtype)
        self.scale = config.alpha / config.rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.down), self.up) * self.scale


def adapt(model: nn.Module, config: LoraConfig, anew: Collection[str] = ()) -> list[str]:
    """Put adapters beside the targets of a model, and let nothing else learn; returns the names of the adapted maps.

    Args:   anew: weights that were drawn at random and not learnt, those of a new head say: they learn as they are.
    Raises: ValueError: a target fits nothing in the model.
    """
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in anew)
    maps = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    maps = {name: linear for name, linear in maps.items() if not linear.weight.requires_grad}
    kinds = {name.rpartition(".")[2] for name in maps}
    missing = [target for target in config.targets if target not in kinds]
    if missing and (config.targets != LoraConfig.targets or len(missing) == len(config.targets)):
        raise ValueError(
            f"the model has no affine map named {' or '.join(missing)}; it has {', '.join(sorted(kinds)) or 'none'}"
        )
    adapted = [name for name in maps if name.rpartition(".")[2] in config.targets]
    for name in adapted:
        owner, _, child = name.rpartition(".")
        setattr(model.get_submodule(owner), child, LoraLinear(maps[name], config))
    return adapted


def merged(weights: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """The weights of an adapted model as those of the model without adapters, what they have learned added up."""
    found = {}
    for name, weight in weights.items():
        module, _, kind = name.rpartition(".")
        if kind in (DOWN, UP) and f"{module}.{BASE}.weight" in weights:
            continue
        owner, _, inner = module.rpartition(".")
        if inner == BASE and f"{owner}.{UP}" in weights:
            if kind == "weight":
                change = weights[f"{owner}.{UP}"].double() @ weights[f"{owner}.{DOWN}"].double()
                weight = (weight.double() + change * (config.alpha / config.rank)).to(weight.dtype)
            name = f"{owner}.{kind}"
        found[name] = weight
    return found

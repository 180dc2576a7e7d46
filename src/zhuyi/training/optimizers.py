"""Adam over float32 master weights, and its state as plain named tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zhuyi.config import TrainConfig
from zhuyi.training.sharding import share, whole


class MasterAdam:
    """Adam on a model's float32 weights, whose gradients may be found in another precision on a copy of it.

    Where both are one and the same module, this is plain Adam. Else the gradients of a step's micro-batches are added
    up in the masters' precision. Vectors (biases, normalisation) take no weight decay.

    Source: Kingma and Ba 2015; decay as in Loshchilov and Hutter 2019; master weights: Micikevicius et al. 2018.
    """

    def __init__(self, model: nn.Module, compute: nn.Module, config: TrainConfig) -> None:
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._masters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._computed = [parameter for parameter in compute.parameters() if parameter.requires_grad]
        self._is_copy = model is not compute
        self._master_of: dict[Tensor, Tensor] = dict(zip(self._computed, self._masters, strict=True))
        self._is_begun = False  # whether the masters hold gradients of this step's earlier micro-batches,
        self._is_complete = False  # and those of its last one too
        groups = [
            {"params": [p for p in self._masters if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in self._masters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(
            groups, lr=0.0, betas=config.betas, eps=config.epsilon, fused=self._masters[0].dtype != torch.float64
        )

    def add_gradients(self) -> None:
        """Count in what a micro-batch has left on the copy, before the next one adds to it in the copy's precision."""
        if self._is_copy:
            self._add(self._computed, _gradients(self._computed))
            for parameter in self._computed:
                parameter.grad = None
            self._is_begun = True

    def add_last(self, computed: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
        """Count in the last micro-batch's gradients of some of the copy's parameters; returns the sums of the step."""
        self._is_complete = True
        return self._add(computed, grads)

    def _add(self, computed: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
        sums = _gradients([self._master_of[parameter] for parameter in computed])
        if self._is_begun:
            torch._foreach_add_(sums, list(grads))
        else:
            torch._foreach_copy_(sums, list(grads))
        return sums

    def step(self, learning_rate: float, factor: float, clip_norm: float, *, move: bool = True) -> float:
        """Scale the gradients by `factor`, clip their norm, and move the weights; returns the norm before clipping.

        A norm that is not finite moves nothing, and neither does anything with `move` False.
        """
        if not self._is_complete:
            self.add_gradients()
        grads = _gradients(self._masters)
        norm = float(whole(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))) * factor
        if move and norm == norm and norm != float("inf"):
            torch._foreach_mul_(grads, factor * min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else factor)
            for group in self._adam.param_groups:
                group["lr"] = learning_rate
            self._adam.step()
            self.refresh_copy()
        self.zero_grad()
        return norm

    def zero_grad(self) -> None:
        for parameter in self._computed:
            parameter.grad = None
        self._is_begun = self._is_complete = False

    def refresh_copy(self) -> None:
        """Bring the copy's weights up to date with the masters."""
        if self._is_copy:
            with torch.no_grad():
                torch._foreach_copy_(list[Tensor](self._computed), list[Tensor](self._masters))

    def state(self) -> dict[str, Tensor]:
        """The moments and step counts under `<weight>.<entry>`."""
        return {
            f"{name}.{key}": value
            for name, master in zip(self._names, self._masters, strict=True)
            for key, value in self._adam.state[master].items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, master in zip(self._names, self._masters, strict=True):
            own = {key.rpartition(".")[2]: value for key, value in state.items() if key.rpartition(".")[0] == name}
            self._adam.state[master] = {
                # A step count is a number, and no process's share of anything.
                key: share(value, master) if value.dim() else value.to(master.device)
                for key, value in own.items()
            }


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients, zeros where a weight took no part in the loss."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]

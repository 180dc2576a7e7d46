"""Weights, gradients and moments in shards, one a process: FSDP2, for models that do not fit one device."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from zhuyi.training.processes import Processes


def shard(root: nn.Module, model: nn.Module, processes: Processes, compute: torch.dtype) -> None:
    """Leave each process its share of every weight; a unit's weights are whole only where it computes.

    Every layer of a stack (an entry of a `ModuleList` of the model's) is a unit. All the rest is one more, whole from
    the beginning of forward to the end of backward: tied embeddings are one weight in several places, and the loss
    reads the output projection beside them.

    Args:   root: the module that is called to train, which holds `model`.
            compute: in what type layers compute; weights, gradients and their sums over processes stay in their own.
    """
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    policy = MixedPrecisionPolicy()
    if compute is torch.bfloat16:
        policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
        for buffer in model.buffers():  # as in the copy that one process computes on
            buffer.data = buffer.data.to(compute if buffer.is_floating_point() else buffer.dtype)
    for stack in model.children():
        for layer in stack if isinstance(stack, nn.ModuleList) else ():
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=policy)


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, in every process; any other as it is. All processes must ask at a time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Sharded tensors put together in the memory of the first process, others as they are.

    One after the other: of all that does not fit a device, no more than one tensor is ever whole there.
    """
    gathered = {}
    for name, tensor in tensors.items():
        found = whole(tensor)
        if processes.is_first:
            gathered[name] = found if found is tensor else found.cpu()
    return gathered


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, what this process has of one that is sharded as `like` is; all of it where that is not."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    # Every process has read the same file: none need be sent its part.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

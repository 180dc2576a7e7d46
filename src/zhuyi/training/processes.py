"""One process or several under `torchrun`: the few things in which they differ."""

import atexit
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

Add = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


class Processes:
    """This process's place among those that train together; alone, every method costs nothing."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        # Joined once: a second group in the same processes would find the first one's addresses in torchrun's store,
        # and wait for peers that no longer listen there.
        if self.count > 1 and not dist.is_initialized():
            # An evaluation on the first process keeps the others waiting.
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=2))
            atexit.register(_leave)

    @staticmethod
    def is_first_here() -> bool:
        """Whether this is the first process, asked before any has joined the others."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def replicate(self, module: nn.Module, add: Add | None = None) -> nn.Module:
        """A module whose gradients are averaged over the processes in a backward pass.

        Args:   add: takes parameters and their gradients and gives the sums to average in place of these.
        """
        if self.count == 1:
            return module
        replica = nn.parallel.DistributedDataParallel(module)
        if add is not None:
            replica.register_comm_hook(add, _average_sums)
        return replica

    def gradients_shared(self, module: nn.Module, share: bool) -> AbstractContextManager[None]:
        """Whether backward passes inside average their gradients over the processes; a step's last one must."""
        if isinstance(module, nn.parallel.DistributedDataParallel) and not share:
            return cast(AbstractContextManager[None], module.no_sync())
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Add up small tensors of all processes, in place."""
        if self.count > 1:
            moved = values.to(self.device)
            dist.all_reduce(moved)
            values.copy_(moved)
        return values

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _average_sums(add: Add, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Average, while the backward pass goes on, the sums that a bucket's gradients belong to, and not these."""
    sums = add(bucket.parameters(), bucket.gradients())
    flat = torch.cat([each.flatten() for each in sums]).div_(dist.get_world_size())

    def put_back(done: torch.futures.Future[list[Tensor]]) -> Tensor:
        parts = done.value()[0].split([each.numel() for each in sums])
        torch._foreach_copy_(sums, [part.view_as(each) for part, each in zip(parts, sums, strict=True)])
        return bucket.buffer()

    work = dist.all_reduce(flat, async_op=True)
    assert work is not None
    return work.get_future().then(put_back)

"""One process or several under `torchrun`: the few things in which they differ."""

import atexit
import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


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
            atexit.register(dist.destroy_process_group)

    @staticmethod
    def is_first_here() -> bool:
        """Whether this is the first process, asked before any has joined the others."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def replicate(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are averaged over the processes in each backward pass."""
        if self.count == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

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

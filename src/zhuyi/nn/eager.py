"""Whether operations are done as they are called."""

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def is_eager() -> bool:
    """No graph is being made, no function transformed, no shapes alone followed: numbers are there and may be read."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
    )

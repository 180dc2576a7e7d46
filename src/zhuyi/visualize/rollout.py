"""How much of each token of the input is in each token of the output, all layers together."""

from collections.abc import Sequence

import numpy as np


def rollout(layers: Sequence[np.ndarray]) -> np.ndarray:
    """How much of each token of the input is in each token of the output, if attention alone moved it.

    Shape:  layers: each (H, T, T); returns (T, T), whose rows sum to 1.
    Source: Abnar and Zuidema 2020, section 3: half of each state is what went past the attention.
    """
    total = np.eye(layers[0].shape[-1])
    for weights in layers:
        total = (0.5 * weights.mean(axis=0) + 0.5 * np.eye(len(total))) @ total
    return total

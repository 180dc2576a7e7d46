"""Recurrent layers, the attention that grew upon them, and what a decoder made of them remembers between steps."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from zhuyi.nn.attention import attend
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.linear import Linear
from zhuyi.nn.masks import additive

Cell = Literal["rnn", "lstm", "gru"]
LAYERS: dict[Cell, Callable[..., nn.Module]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
# What a layer hands from step to step: the hidden state, of an LSTM also its cell.
TENSORS: dict[Cell, int] = {"rnn": 1, "lstm": 2, "gru": 1}


class Recurrent(nn.Module):
    """A stack of recurrent layers; torch does their arithmetic, W x and U h each with a bias of its own.

        rnn    h_t = tanh(W x_t + U h_{t-1})
        lstm   i, f, o = sigmoid(W x_t + U h_{t-1});  g = tanh(W x_t + U h_{t-1})
               c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)
        gru    r, z = sigmoid(W x_t + U h_{t-1});  n = tanh(W x_t + r (U h_{t-1}))
               h_t = (1 - z) n + z h_{t-1}

    Shape:  x (B, T, d_in); hidden (K, B, D), each layer's h_t (of an LSTM then its c_t) from the first layer to the
            last; two directions stand side by side, 2 * D for D. Returns (B, T, D) of the last layer, and the hidden
            states after each row's last token.
    Args:   dropout: between layers (Zaremba et al. 2014).
    Source: Elman 1990; Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; Cho et al. 2014,
            eq. 5 to 8, but that r acts on U h_{t-1}, in the paper on h_{t-1}.
    """

    def __init__(
        self,
        cell: Cell,
        d_in: int,
        d_hidden: int,
        num_layers: int,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.d_out = d_hidden * (2 if bidirectional else 1)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            LAYERS[cell](d_in if i == 0 else self.d_out, d_hidden, batch_first=True, bidirectional=bidirectional)
            for i in range(num_layers)
        )

    @property
    def num_tensors(self) -> int:
        """K: how many tensors are handed from step to step."""
        return TENSORS[self.cell] * len(self.layers)

    def forward(
        self, x: Tensor, hidden: Tensor | None = None, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read whole sequences.

        Args:   hidden: where to begin; zeros where None.
                lengths: of the rows, where they are padded on the right; what stands there is not read.
        """
        sequence: Tensor | PackedSequence = x
        if lengths is not None:  # a row of nothing but padding is read as one token, and is the caller's to forget
            real = torch.tensor(lengths).clamp_min(1)
            sequence = pack_padded_sequence(x, real, batch_first=True, enforce_sorted=False)
        found: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            first = None if hidden is None else hidden.chunk(len(self.layers))[i].contiguous()
            sequence, last = layer(self._between_layers(sequence) if i else sequence, self._as_torchs(first))
            # torch has a row for each direction, (1 or 2, B, D).
            found += [part.transpose(0, 1).flatten(1) for part in (last if isinstance(last, tuple) else (last,))]
        if isinstance(sequence, PackedSequence):
            sequence, _ = pad_packed_sequence(sequence, batch_first=True, total_length=x.shape[1])
        return sequence, torch.stack(found)  # (B, T, D), (K, B, D)

    def advance(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Read one token more a row.

        Shape: x (B, d_in), hidden (K, B, D); returns (B, D) of the last layer and the new hidden states.
        """
        found: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            weights: Any = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
            past = hidden.chunk(len(self.layers))[i].unbind()
            x = self.dropout(x) if i else x
            match self.cell:
                case "rnn":
                    new: tuple[Tensor, ...] = (torch.rnn_tanh_cell(x, past[0], *weights),)
                case "lstm":
                    new = torch.lstm_cell(x, past, *weights)
                case "gru":
                    new = (torch.gru_cell(x, past[0], *weights),)
            x = new[0]
            found += new
        return x, torch.stack(found)

    def top(self, hidden: Tensor) -> Tensor:
        """The last layer's h_t among hidden states.

        Shape: hidden (K, B, D); returns (B, D).
        """
        return hidden[-TENSORS[self.cell]]

    def _as_torchs(self, first: Tensor | None) -> Tensor | tuple[Tensor, Tensor] | None:
        if first is None or TENSORS[self.cell] == 1:
            return first
        return first[:1], first[1:]

    def _between_layers(self, sequence: Tensor | PackedSequence) -> Tensor | PackedSequence:
        if isinstance(sequence, PackedSequence):
            return sequence._replace(data=self.dropout(sequence.data))
        return self.dropout(sequence)


def reverse(x: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """Turn each row's real tokens round; padding stays at the right.

    Shape: x (B, S) or (B, S, D); returns the same.
    """
    if lengths is None:
        return x.flip(1)
    places = torch.arange(x.shape[1], device=x.device)
    ends = torch.tensor(lengths, device=x.device)[:, None]
    places = torch.where(places < ends, ends - 1 - places, places)  # (B, S)
    return x.take_along_dim(places if x.dim() == 2 else places[:, :, None], 1)


class Annotations:
    """What an encoder says of each word of each of `G` sources, and the part of the scores that follows from it alone.

    A source that leaves is replaced by the last one; nothing else moves, so what is given is written to.

    Shape: values (G, S, A), keys (G, S, D) or None, lengths: of each source, None where all are S.
    """

    def __init__(self, values: Tensor, keys: Tensor | None, lengths: Sequence[int] | None) -> None:
        self._stored: tuple[Tensor, ...] = (values,) if keys is None else (values, keys)
        self.lengths = [values.shape[1]] * values.shape[0] if lengths is None else list(lengths)
        self._find_mask()

    @property
    def count(self) -> int:
        return len(self.lengths)

    @property
    def values(self) -> Tensor:
        return self._in_use(self._stored[0])

    @property
    def keys(self) -> Tensor:
        """The values themselves where there are no keys."""
        return self._in_use(self._stored[-1])

    def copy(self) -> "Annotations":
        values, *keys = (self._in_use(x).clone() for x in self._stored)
        return Annotations(values, keys[0] if keys else None, self.lengths)

    def select(self, sources: Sequence[int]) -> None:
        """Keep these sources, in this order; one may be named many times."""
        moves = [(place, source) for place, source in enumerate(sources) if place != source]
        if len(sources) > self.count or not {place for place, _ in moves}.isdisjoint(sources):
            index = torch.tensor(sources, dtype=torch.long, device=self._stored[0].device)
            self._stored = tuple(x[index] for x in self._stored)
        elif moves:
            to, origin = torch.tensor(moves, device=self._stored[0].device).T
            for x in self._stored:
                x[to] = x[origin]
        self.lengths = [self.lengths[source] for source in sources]
        self._find_mask()

    def join(self, other: "Annotations") -> None:
        """Append the sources of another."""
        longest = max((*self.lengths, *other.lengths), default=0)
        padded = [
            [nn.functional.pad(x._in_use(y), (0, 0, 0, longest - x._longest)) for y in x._stored] for x in (self, other)
        ]
        self._stored = tuple(torch.cat(pair) for pair in zip(*padded, strict=True))
        self.lengths += other.lengths
        self._find_mask()

    @property
    def _longest(self) -> int:
        return max(self.lengths, default=0)

    def _in_use(self, x: Tensor) -> Tensor:
        return x[: self.count, : self._longest]

    def _find_mask(self) -> None:
        """Shape of the mask: (G, 1, S), None where all is real."""
        self.mask: Tensor | None = None
        if min(self.lengths, default=0) < self._longest or not self._longest:
            device = self._stored[0].device
            real = torch.arange(self._longest, device=device) < torch.tensor(self.lengths, device=device)[:, None]
            self.mask = real[:, None]


class AdditiveAttention(nn.Module):
    """e_ij = v_a^T tanh(W_a s_i + U_a h_j); the weights are their softmax over j, the context the weighted sum of h_j.

    Shape:  query (G, T, D), annotations of (G, S, A); returns the context (G, T, A) and the weights (G, T, S). A
            source without a word gives zeros.
    Source: Bahdanau et al. 2015, eq. 5, 6 and appendix A.1.2, which finds U_a h_j once for all steps.
    """

    def __init__(self, d_query: int, d_value: int) -> None:
        super().__init__()
        self.w_a = Linear(d_query, d_query, bias=False)
        self.u_a = Linear(d_value, d_query, bias=False)
        self.v_a = nn.Parameter(torch.empty(d_query))
        nn.init.uniform_(self.v_a, -(d_query**-0.5), d_query**-0.5)

    def annotations(self, values: Tensor, lengths: Sequence[int] | None) -> Annotations:
        return Annotations(values, self.u_a(values), lengths)

    def forward(self, query: Tensor, annotations: Annotations) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.w_a(query)[:, :, None] + annotations.keys[:, None])  # (G, T, S, D)
        logits, mask = hidden @ self.v_a, annotations.mask  # (G, T, S)
        if mask is None:
            weights = logits.softmax(dim=-1)
        else:
            weights = (logits + additive(mask, logits.dtype)).softmax(dim=-1) * mask.any(dim=-1, keepdim=True)
        return weights @ annotations.values, weights


class MultiplicativeAttention(nn.Module):
    """score(h_t, h_s) = h_t^T h_s (`dot`) or h_t^T W_a h_s (`general`), unscaled; else as the above.

    Shape:  query (G, T, D), annotations of (G, S, A), for `dot` A = D; returns the context (G, T, A) and, where asked
            for, the weights (G, T, S).
    Source: Luong et al. 2015, eq. 7 and 8, for all source words ("global").
    """

    def __init__(self, d_query: int, d_value: int, score: Literal["dot", "general"]) -> None:
        super().__init__()
        self.w_a = Linear(d_query, d_value, bias=False) if score == "general" else nn.Identity()

    def annotations(self, values: Tensor, lengths: Sequence[int] | None) -> Annotations:
        return Annotations(values, None, lengths)

    def forward(
        self, query: Tensor, annotations: Annotations, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        values, mask = annotations.values, annotations.mask
        return attend(self.w_a(query), values, values, mask=mask, scale=1.0, need_weights=need_weights)


class RecurrentState:
    """What a recurrent decoder remembers of `R` rows in `G` groups of `W`.

    Every row has hidden states of its own; the rows of a group (a beam) stand side by side and share their source's
    annotations, which are copied only where groups become unequal.

    Shape: hidden (K, R, D); annotations of G sources, None of a decoder without attention; positions (R,): how many
           tokens each row has consumed.
    Args:  hidden: of one row a group.
    """

    def __init__(self, hidden: Tensor, annotations: Annotations | None) -> None:
        self.hidden = hidden
        self.annotations = annotations
        self.width = 1
        self.positions = torch.zeros(hidden.shape[1], dtype=torch.long, device=hidden.device)

    def select(self, rows: Tensor) -> "RecurrentState":
        """Keep these rows, in this order; a row may be named many times. The old state is spent."""
        sources = [row // self.width for row in rows.tolist()]
        # The widest groups that all rows fall into: of a beam's rows the beam, as long as all beams are equally wide.
        self.width = math.gcd(*(len(list(run)) for _, run in groupby(sources))) or 1
        if self.annotations is not None:
            self.annotations.select(sources[:: self.width])
        self.hidden, self.positions = self.hidden[:, rows], self.positions[rows]
        return self

    def join(self, other: "RecurrentState") -> "RecurrentState":
        """Append the rows of another state. Both are spent."""
        width = math.gcd(self.width, other.width)
        for state in (self, other):
            state._regroup(width)
        if self.annotations is not None and other.annotations is not None:
            self.annotations.join(other.annotations)
        self.hidden = torch.cat([self.hidden, other.hidden], dim=1)
        self.positions = torch.cat([self.positions, other.positions])
        return self

    def _regroup(self, width: int) -> None:
        if self.annotations is not None and width != self.width:
            times = self.width // width
            self.annotations.select([source for source in range(self.annotations.count) for _ in range(times)])
        self.width = width

"""Recurrent encoder-decoders: without attention, and with that of Bahdanau et al. 2015 and of Luong et al. 2015."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zhuyi.nn.dropout import Dropout
from zhuyi.nn.embeddings import OutputProjection, TokenEmbedding
from zhuyi.nn.linear import Linear
from zhuyi.nn.maps import Maps
from zhuyi.nn.recurrent import (
    AdditiveAttention,
    Annotations,
    Cell,
    MultiplicativeAttention,
    Recurrent,
    RecurrentState,
    reverse,
)


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes and options; the defaults are Bahdanau's decoder over an encoder of its own width.

    Args:   attention: `none` (Sutskever et al. 2014), `additive` (Bahdanau et al. 2015), `dot` or `general` (Luong et
            al. 2015).
            d_model: width of the decoder's hidden state.
            d_embedding: of a token's embedding; 0 means d_model, which only `additive` may depart from.
            d_encoder: of the encoder's hidden state in one direction; 0 means that its directions together have
            d_model, which only `additive` may depart from.
            direction: how the encoder reads: `both` ways, `forward`, or `backward` from the last word to the first.
            input_feeding: the step's attentional vector is an input of the next step (`dot` and `general`;
            `additive` has the context there always).
            dropout: on embeddings, between layers, and on what the output projection reads.
            tie_embeddings, source_vocab_size, target_vocab_size: as in the Transformer.
            max_len: of source and target, in tokens; the arithmetic has no limit, search and training have.
    """

    name: Literal["seq2seq"] = "seq2seq"
    cell: Cell = "gru"
    attention: Literal["none", "additive", "dot", "general"] = "additive"
    d_model: int = 512
    d_embedding: int = 0
    d_encoder: int = 0
    num_encoder_layers: int = 1
    num_decoder_layers: int = 1
    direction: Literal["both", "forward", "backward"] = "both"
    input_feeding: bool = False
    dropout: float = 0.1
    tie_embeddings: Literal["three-way", "decoder", "none"] = "none"
    max_len: int = 512
    source_vocab_size: int = 0
    target_vocab_size: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_encoder_layers", "num_decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("d_embedding", "d_encoder", "source_vocab_size", "target_vocab_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.max_len < 3:
            raise ValueError(f"max_len = {self.max_len}, but a text of one token takes 3 with its start and end signs")
        if not self.d_encoder and self.d_model % self.directions:
            raise ValueError(f"d_model = {self.d_model} is odd and cannot be halved for two directions; set d_encoder")
        if self.attention != "additive":
            self._check_equal_widths()
        if self.input_feeding and self.attention not in ("dot", "general"):
            raise ValueError(f"input_feeding is for the attentions dot and general, not for {self.attention}")
        if self.tie_embeddings == "three-way" and self.source_vocab_size != self.target_vocab_size:
            raise ValueError(
                f"tie_embeddings = three-way needs one vocabulary, got {self.source_vocab_size} source and "
                f"{self.target_vocab_size} target tokens; use a joint tokenizer or tie_embeddings = decoder"
            )

    def _check_equal_widths(self) -> None:
        """Without Bahdanau's bridge and readout, states are handed on as they are."""
        of = f"attention = {self.attention} needs"
        if self.num_encoder_layers != self.num_decoder_layers:
            raise ValueError(
                f"{of} as many encoder layers ({self.num_encoder_layers}) as decoder layers "
                f"({self.num_decoder_layers}): each begins with its like's last state"
            )
        if self.d_annotation != self.d_model:
            raise ValueError(
                f"{of} an encoder as wide as the decoder: d_encoder = {self.d_encoder} in {self.directions} "
                f"direction(s) is {self.d_annotation}, d_model = {self.d_model}"
            )
        if self.embedding_width != self.d_model:
            raise ValueError(f"{of} d_embedding = d_model, got {self.d_embedding} and {self.d_model}")

    @property
    def directions(self) -> int:
        return 2 if self.direction == "both" else 1

    @property
    def encoder_width(self) -> int:
        """Of one direction."""
        return self.d_encoder or self.d_model // self.directions

    @property
    def d_annotation(self) -> int:
        """Of both."""
        return self.directions * self.encoder_width

    @property
    def embedding_width(self) -> int:
        return self.d_embedding or self.d_model


PUBLISHED_SIZES = {
    # Section 3.4. Its source is read from its end: "we found it extremely valuable to reverse the order of the words".
    "sutskever-2014": Seq2SeqConfig(
        cell="lstm", attention="none", d_model=1000, num_encoder_layers=4, num_decoder_layers=4, direction="backward",
        dropout=0.0,
    ),
    # RNNsearch, appendix A.2.3. Departure: the readout is as wide as an embedding, in the paper 500.
    "bahdanau-2015": Seq2SeqConfig(d_model=1000, d_embedding=620, d_encoder=1000, dropout=0.0),
    # Section 4.1, with global attention.
    "luong-2015": Seq2SeqConfig(
        cell="lstm", attention="general", d_model=1000, num_encoder_layers=4, num_decoder_layers=4,
        direction="backward", input_feeding=True, dropout=0.2,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """The encoder's output: its last layer at each source word (None where no attention reads it), and its last states.

    Shape: hidden (K, B, A), as `Recurrent` has it.
    """

    annotations: Annotations | None
    hidden: Tensor


class PlainDecoder(nn.Module):
    """All that it knows of the source is the state it begins with: the encoder's last, layer by layer.

    Shape:  x (B, T, D) embeddings, hidden (K, B, D); returns (B, T, D), and None for the weights that it has not.
    Source: Sutskever et al. 2014, section 2 and figure 1.
    """

    def __init__(self, c: Seq2SeqConfig) -> None:
        super().__init__()
        self.recurrent = Recurrent(c.cell, c.d_model, c.d_model, c.num_decoder_layers, dropout=c.dropout)

    def annotations(self, values: Tensor, lengths: Sequence[int] | None) -> None:
        return None

    def begin(self, hidden: Tensor) -> Tensor:
        return hidden

    def forward(self, x: Tensor, hidden: Tensor, annotations: None, need_weights: bool) -> tuple[Tensor, None]:
        return self.recurrent(x, hidden)[0], None

    def advance(self, x: Tensor, hidden: Tensor, annotations: None) -> tuple[Tensor, Tensor]:
        return self.recurrent.advance(x, hidden)


class BahdanauDecoder(nn.Module):
    """Looks with its last state, s_{i-1}, before it moves on: s_i = f(s_{i-1}, y_{i-1}, c_i).

    What the output reads is a hidden layer of maxout over state, last word and context:
    t~_i = U_o s_i + V_o E y_{i-1} + C_o c_i, t_ij = max(t~_i,2j-1, t~_i,2j).

    Shape:  x (B, T, E) embeddings, hidden (K, B, D); returns (B, T, E) and the weights (B, T, S).
    Source: Bahdanau et al. 2015, sections 3.1 and A.2.2. Departures: A.2.2 has s_{i-1} in t~_i, the paper's eq. 4 has
            s_i; of several layers the last one looks and the first reads the context; a plain cell and an LSTM begin
            as the paper's GRU does, the LSTM's c_0 by rows of W_s of its own.
    """

    def __init__(self, c: Seq2SeqConfig) -> None:
        super().__init__()
        d_read = c.embedding_width + c.d_annotation
        self.recurrent = Recurrent(c.cell, d_read, c.d_model, c.num_decoder_layers, dropout=c.dropout)
        self.attention = AdditiveAttention(c.d_model, c.d_annotation)
        self.d_last = c.encoder_width
        self.w_s = Linear(self.d_last, self.recurrent.num_tensors * c.d_model, matrices=self.recurrent.num_tensors)
        self.readout = Linear(c.d_model + d_read, 2 * c.embedding_width)

    def annotations(self, values: Tensor, lengths: Sequence[int] | None) -> Annotations:
        return self.attention.annotations(values, lengths)

    def begin(self, hidden: Tensor) -> Tensor:
        """s_0 = tanh(W_s h), h the last state of the direction that ends at the source's first word, if there is one.

        Shape: hidden (K, B, A) of the encoder; returns (K, B, D) of the decoder.
        """
        last = self.recurrent.top(hidden)[:, -self.d_last :]  # (B, d_encoder)
        return torch.stack(torch.tanh(self.w_s(last)).chunk(self.recurrent.num_tensors, dim=-1))

    def forward(
        self, x: Tensor, hidden: Tensor, annotations: Annotations, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        features, weights = [], []
        for token in x.unbind(1):
            found, hidden, looked = self._move(token, hidden, annotations)
            features.append(found)
            weights.append(looked)
        return self._read_out(torch.stack(features, dim=1)), torch.cat(weights, dim=1)

    def advance(self, x: Tensor, hidden: Tensor, annotations: Annotations) -> tuple[Tensor, Tensor]:
        features, hidden, _ = self._move(x, hidden, annotations)
        return self._read_out(features), hidden

    def _move(self, x: Tensor, hidden: Tensor, annotations: Annotations) -> tuple[Tensor, Tensor, Tensor]:
        """One token more. Shape: x (R, E); returns what is read out (R, D + E + A), hidden, weights (G, W, S)."""
        query = self.recurrent.top(hidden).unflatten(0, (annotations.count, -1))  # (G, W, D)
        context, weights = self.attention(query, annotations)
        read = torch.cat([x, context.flatten(0, 1)], dim=-1)  # (R, E + A)
        state, hidden = self.recurrent.advance(read, hidden)
        return torch.cat([state, read], dim=-1), hidden, weights

    def _read_out(self, features: Tensor) -> Tensor:
        return self.readout(features).unflatten(-1, (-1, 2)).amax(dim=-1)  # (..., E)


class LuongDecoder(nn.Module):
    """Moves on first, then looks with its new state h_t; the output reads h~_t = tanh(W_c [c_t; h_t]).

    With input feeding, h~_t is read beside the next word.

    Shape:  x (B, T, D) embeddings, hidden (K, B, D); returns (B, T, D) and, where asked for, the weights (B, T, S).
    Source: Luong et al. 2015, eq. 5 and section 3.3; the first state is the encoder's last (section 2 and figure 1).
    """

    def __init__(self, c: Seq2SeqConfig) -> None:
        super().__init__()
        assert c.attention in ("dot", "general")
        d_read = 2 * c.d_model if c.input_feeding else c.d_model
        self.recurrent = Recurrent(c.cell, d_read, c.d_model, c.num_decoder_layers, dropout=c.dropout)
        self.attention = MultiplicativeAttention(c.d_model, c.d_annotation, c.attention)
        self.w_c = Linear(c.d_annotation + c.d_model, c.d_model, bias=False)
        self.input_feeding = c.input_feeding

    def annotations(self, values: Tensor, lengths: Sequence[int] | None) -> Annotations:
        return self.attention.annotations(values, lengths)

    def begin(self, hidden: Tensor) -> Tensor:
        """With input feeding, one tensor more goes from step to step: h~_{t-1}, zeros before the first."""
        return torch.cat([hidden, torch.zeros_like(hidden[:1])]) if self.input_feeding else hidden

    def forward(
        self, x: Tensor, hidden: Tensor, annotations: Annotations, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        if not self.input_feeding:  # nothing that attention finds goes back into the layers
            states, _ = self.recurrent(x, hidden)  # (B, T, D)
            return self._look(states, annotations, need_weights)
        vectors, weights = [], []
        for token in x.unbind(1):
            vector, hidden, looked = self._move(token, hidden, annotations, need_weights)
            vectors.append(vector)
            weights += [] if looked is None else [looked]
        return torch.stack(vectors, dim=1), torch.cat(weights, dim=1) if weights else None

    def advance(self, x: Tensor, hidden: Tensor, annotations: Annotations) -> tuple[Tensor, Tensor]:
        vector, hidden, _ = self._move(x, hidden, annotations, False)
        return vector, hidden

    def _move(
        self, x: Tensor, hidden: Tensor, annotations: Annotations, need_weights: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One token more. Shape: x (R, D); returns h~_t (R, D), hidden, weights (G, W, S) or None."""
        if self.input_feeding:
            x, hidden = torch.cat([x, hidden[-1]], dim=-1), hidden[:-1]  # (R, 2 * D)
        state, hidden = self.recurrent.advance(x, hidden)
        vector, weights = self._look(state.unflatten(0, (annotations.count, -1)), annotations, need_weights)
        vector = vector.flatten(0, 1)  # (R, D)
        return vector, torch.cat([hidden, vector[None]]) if self.input_feeding else hidden, weights

    def _look(self, states: Tensor, annotations: Annotations, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        context, weights = self.attention(states, annotations, need_weights=need_weights)
        return torch.tanh(self.w_c(torch.cat([context, states], dim=-1))), weights


DECODERS: dict[str, Callable[[Seq2SeqConfig], nn.Module]] = {
    "none": PlainDecoder,
    "additive": BahdanauDecoder,
    "dot": LuongDecoder,
    "general": LuongDecoder,
}


class Seq2Seq(nn.Module):
    """Source ids and the target ids so far, to the logits of each next target id.

    Padding stands at the right of a row, on either side.

    Source: the papers of the decoders; embeddings are scaled as the Transformer's are.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embedding_width
        self.source_embedding = TokenEmbedding(config.source_vocab_size, width)
        self.target_embedding = (
            self.source_embedding
            if config.tie_embeddings == "three-way"
            else TokenEmbedding(config.target_vocab_size, width)
        )
        self.dropout = Dropout(config.dropout)
        self.encoder = Recurrent(
            config.cell,
            width,
            config.encoder_width,
            config.num_encoder_layers,
            bidirectional=config.directions == 2,
            dropout=config.dropout,
        )
        self.decoder: Any = DECODERS[config.attention](config)
        self.output_projection = OutputProjection(
            nn.Parameter(self.target_embedding.weight.detach().clone())
            if config.tie_embeddings == "none"
            else self.target_embedding.weight
        )

    @property
    def max_len(self) -> int:
        """The longest source or target that is read or written, in tokens, end sign included."""
        return self.config.max_len

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None
    ) -> Tensor:
        """Logits of what follows each target position.

        Shape: src (B, S), tgt (B, T) beginning with the start sign, masks of the same shapes with True = a real
               token (None: all are); returns (B, T, V).
        """
        return self.output_projection(self.decoder_states(src, tgt, src_mask, tgt_mask))

    def decoder_states(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        maps: Maps | None = None,
    ) -> Tensor:
        """What the output projection reads.

        Shape: as `forward`; returns (B, T, E).
        """
        # tgt_mask is part of the contract; targets are padded on the right and are read from the left.
        memory = self.encode(src, src_mask)
        x = self.dropout(self.target_embedding(tgt))  # (B, T, E)
        states, weights = self.decoder(x, self.decoder.begin(memory.hidden), memory.annotations, maps is not None)
        if maps is not None and weights is not None:
            maps.add("decoder.0.cross", weights[:, None])  # one head
        return self.dropout(states)

    def encode(self, src: Tensor, src_mask: Tensor | None = None) -> Memory:
        """What the decoder begins with and looks at.

        Shape: src (B, S), src_mask (B, S).
        """
        lengths = None if src_mask is None else src_mask.sum(dim=1).tolist()
        is_backward = self.config.direction == "backward"
        x = self.dropout(self.source_embedding(src))  # (B, S, E)
        values, hidden = self.encoder(reverse(x, lengths) if is_backward else x, None, lengths)
        if lengths is not None and not all(lengths):  # a source without a word has left no state
            hidden = hidden * torch.tensor(lengths, device=hidden.device).bool()[:, None]
        return Memory(self.decoder.annotations(reverse(values, lengths) if is_backward else values, lengths), hidden)

    def start(self, memory: Memory, prefix: Tensor, prefix_mask: Tensor | None = None) -> RecurrentState:
        """A state that has consumed all but the last token of each row's prefix.

        Shape: prefix (B, P), right-padded where prefix_mask (B, P) is False.
        """
        annotations = None if memory.annotations is None else memory.annotations.copy()
        state = RecurrentState(self.decoder.begin(memory.hidden), annotations)
        last = prefix.shape[1] - 1 if prefix_mask is None else prefix_mask.sum(dim=1) - 1
        for t in range(prefix.shape[1] - 1):
            x = self.dropout(self.target_embedding(prefix[:, t]))
            _, hidden = self.decoder.advance(x, state.hidden, state.annotations)
            still = torch.as_tensor(t < last, device=prefix.device).expand(len(prefix))
            state.hidden = torch.where(still[:, None], hidden, state.hidden)
            state.positions += still
        return state

    def step(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """One more token a row.

        Shape: tokens (R,); returns logits (R, V) and the state to go on with; the old one is spent.
        """
        x = self.dropout(self.target_embedding(tokens))  # (R, E)
        x, state.hidden = self.decoder.advance(x, state.hidden, state.annotations)
        state.positions += 1
        return self.output_projection(self.dropout(x)), state

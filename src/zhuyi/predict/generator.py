"""A language model's run in memory: texts continued, whole or as they are written, and conversations."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Self

import torch
from torch import nn

from zhuyi.config import RunConfig
from zhuyi.data.dialogues import asked
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding.config import GenerationConfig
from zhuyi.errors import InputError
from zhuyi.nn.maps import Maps
from zhuyi.predict.translator import TextMaps
from zhuyi.predict.writing_steps import likeliest
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.continuation import Chunk, Prompt, continue_texts
from zhuyi.tasks.text_data import load_tokenizer


@dataclass(frozen=True)
class Generation:
    """One continuation of a prompt.

    Args:   text: what was written, without the prompt and without the stop string that ended it.
            tokens: the pieces, those of a stop string included.
            log_prob: the model's, in nats, summed over the tokens and the end sign; None where a stop string ended it.
            flags: `length` (it reached the limit), `stop` (a stop string ended it), `window` (it outgrew the model's
            positions, and its beginning was forgotten).
    """

    prompt: str
    text: str
    tokens: tuple[str, ...] = ()
    log_prob: float | None = None
    flags: tuple[str, ...] = ()


class Generator:
    """A language model's run in memory: `model` is the module, `config` what it was made from."""

    def __init__(self, model: nn.Module, config: RunConfig, tokenizer: Tokenizer, precision: str = "float32") -> None:
        self.model: Any = model
        self.config = config
        self.tokenizer = tokenizer
        self.precision = precision

    @classmethod
    def from_folder(cls, model: nn.Module, config: RunConfig, folder: RunFolder, precision: str) -> Self:
        """Read the tokenizer too.

        Raises: InputError: it is missing, broken, or of another model.
        """
        tokenizer = load_tokenizer(folder.path)
        if tokenizer.vocab_size != config.model.vocab_size:
            raise InputError(
                f"{folder.path}: the tokenizer has {tokenizer.vocab_size:,} pieces but the model "
                f"{config.model.vocab_size:,}; put back the tokenizer that the run was trained with"
            )
        return cls(model, config, tokenizer, precision)

    def decode_config(
        self,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        no_repeat_ngram: int | None = None,
        stop: Sequence[str] | None = None,
    ) -> GenerationConfig:
        """The run's options of writing, with those given here in their place.

        Raises: InputError: a value out of its range.
        """
        given = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "no_repeat_ngram": no_repeat_ngram,
            "stop": None if stop is None else tuple(stop),
        }
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        try:
            return replace(self.config.decode, **values)
        except ValueError as error:
            raise InputError(str(error)) from None

    def generate(
        self,
        prompts: Iterable[str],
        *,
        samples: int = 1,
        seed: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        no_repeat_ngram: int | None = None,
        stop: Sequence[str] | None = None,
    ) -> list[Generation]:
        """Continue texts: `samples` of each prompt one after the other, in the prompts' order.

        Args:   seed: what is drawn from, together with the prompt and the sample's number: never the texts beside it.
        The others are those of `GenerationConfig`; the run's own where not given.
        """
        if isinstance(prompts, str):
            raise InputError("generate takes a list of texts; for one text write generate([text])")
        decode = self.decode_config(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram=no_repeat_ngram,
            stop=stop,
        )
        return list(self.in_order(prompts, decode, samples=samples, seed=seed))

    def in_order(
        self, prompts: Iterable[str], decode: GenerationConfig, *, samples: int = 1, seed: int = 1
    ) -> Iterator[Generation]:
        """As `generate`, one after the other, each as soon as those before it are there."""
        texts: list[str] = []

        def noted() -> Iterator[str]:
            for text in prompts:
                texts.append(text)
                yield text

        ready: dict[tuple[int, int], Generation] = {}
        wanted = (0, 0)
        for chunk in self.stream(noted(), decode, samples=samples, seed=seed):
            if (found := chunk.written) is None:
                continue
            ready[chunk.prompt, chunk.sample] = Generation(
                texts[chunk.prompt], found.text, found.tokens, found.log_prob, found.flags
            )
            while wanted in ready:
                yield ready.pop(wanted)
                wanted = (wanted[0], wanted[1] + 1) if wanted[1] + 1 < samples else (wanted[0] + 1, 0)

    def stream(
        self, prompts: Iterable[str], decode: GenerationConfig | None = None, *, samples: int = 1, seed: int = 1
    ) -> Iterator[Chunk]:
        """Pieces of text as they are written, each with its prompt's and sample's number.

        Raises: InputError: fewer than one sample.
        """
        if samples < 1:
            raise InputError(f"samples is {samples}; it must be at least 1")
        begun = (Prompt(self.begin(text), samples) for text in prompts)
        return continue_texts(self.model, self.tokenizer, begun, decode or self.config.decode, seed=seed)

    def begin(self, text: str) -> list[int]:
        """A prompt's ids. The sign between documents stands before it, unless it may be from within one.

        It may where a document is a whole file; an empty prompt begins one always.
        """
        ids = self.tokenizer.encode(text)[:-1]
        is_beginning = self.config.data.documents != "file" or self.config.data.segments == "documents"
        return [self.tokenizer.signs.eos, *ids] if is_beginning or not ids else ids

    @torch.inference_mode()
    def attention(self, text: str, *, steps: bool = False) -> TextMaps:
        """Where every head looks as it writes each token of a text, the sign that ends documents before it.

        Args:   steps: tell also which tokens were likeliest at each place.
        Raises: InputError: the text is empty, or longer than the model's positions.
        """
        ids = [self.tokenizer.signs.eos, *self.tokenizer.encode(text)[:-1]]
        if len(ids) < 2:
            raise InputError("there is nothing to attend to: the text is empty")
        if len(ids) - 1 > self.model.max_len:
            raise InputError(f"the text is longer than the {self.model.max_len} tokens of the model; shorten it")
        maps = Maps()
        logits = self.model(torch.tensor([ids[:-1]], device=next(self.model.parameters()).device), maps=maps)
        labels = tuple(self.tokenizer.labels[i] for i in ids)
        weights = {name: weights[0].float().cpu() for name, weights in maps.weights.items()}
        return TextMaps((), labels[1:], weights, labels[:-1], likeliest(logits[0], self.tokenizer) if steps else ())

    @torch.inference_mode()
    def score(self, text: str) -> float:
        """The log-probability of a text in nats, end sign included, cut into windows that do not see one another."""
        sign = self.tokenizer.signs.eos
        ids, reach = [sign, *self.tokenizer.encode(text)], self.model.max_len
        total = 0.0
        for first in range(0, len(ids) - 1, reach):
            window = torch.tensor([ids[first : first + reach + 1]], device=next(self.model.parameters()).device)
            log_probs = self.model(window[:, :-1]).float().log_softmax(dim=-1)
            total += float(log_probs.gather(2, window[:, 1:, None]).double().sum())
        assert math.isfinite(total)
        return total


class Conversation:
    """Questions and answers with a model that was trained on such, as far back as its window reaches."""

    def __init__(self, generator: Generator, decode: GenerationConfig | None = None, *, seed: int = 1) -> None:
        """Begin one.

        Raises: InputError: the run was not trained on dialogues.
        """
        if generator.config.data.documents != "dialogue":
            raise InputError(
                f"this run was trained on {generator.config.data.documents}s, not on dialogues "
                '(data.documents = "dialogue"); it can be used by `zhuyi generate`'
            )
        self._generator, self._seed = generator, seed
        self._decode = decode or generator.config.decode
        self.turns: list[tuple[str, str]] = []

    def ask(self, question: str) -> Iterator[str]:
        """The answer, piece by piece; once it is whole, the turn is remembered."""
        prompt = Prompt(self.context(question))
        answer = ""
        for chunk in continue_texts(
            self._generator.model, self._generator.tokenizer, [prompt], self._decode, seed=self._seed + len(self.turns)
        ):
            answer += chunk.text
            if chunk.text:
                yield chunk.text
        self.turns.append((question, answer))

    def context(self, question: str) -> list[int]:
        """The ids before the answer: the newest turns that leave it half of the window, or all that it may take.

        A question that is too long by itself loses its beginning.
        """
        tokenizer, data = self._generator.tokenizer, self._generator.config.data
        reach = self._generator.model.max_len
        room = reach - min(self._decode.max_new_tokens, reach // 2)
        last = tokenizer.encode(asked(data.template, question.strip()))[:-1]
        if 1 + len(last) > room:
            return last[-room:]
        kept: list[list[int]] = []
        for earlier, answer in reversed(self.turns):
            turn = tokenizer.encode(asked(data.template, earlier.strip()))[:-1] + tokenizer.encode(answer)
            if 1 + len(last) + sum(map(len, kept)) + len(turn) > room:
                break
            kept.insert(0, turn)
        return [tokenizer.signs.eos, *chain.from_iterable(kept), *last]

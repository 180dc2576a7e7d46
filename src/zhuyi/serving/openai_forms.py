"""What OpenAI's protocol asks for: its options, and our own of writing beside them; what cannot be done is refused."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from zhuyi.decoding.config import LEAST_PENALTY, LEAST_TEMPERATURE
from zhuyi.serving.fields import Name, Seed, Share, StrictForm, Text, Texts, refused

MOST_TOKENS = 100_000
MOST_CHOICES = 128
MOST_STOPS, LONGEST_STOP = 16, 200

Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]


class StreamOptions(StrictForm):
    """How a stream is sent."""

    include_usage: bool | None = None
    include_obfuscation: refused(None, False) = None  # type: ignore[valid-type]


class Writing(StrictForm):
    """The options of writing that completions and chat share; what is not said is the run's own."""

    model: Name = Field(description="A run's name; see `/v1/models`.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="How many answers.")
    seed: Seed | None = Field(None, description="The same gives the same answers; none: others each time.")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Field(ge=LEAST_PENALTY, le=100, allow_inf_nan=False)] | None = None
    no_repeat_ngram: int | None = Field(None, ge=0, le=1000)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = Field(None, description="Of no effect.")
    frequency_penalty: refused(None, 0, 0.0) = None  # type: ignore[valid-type]
    presence_penalty: refused(None, 0, 0.0) = None  # type: ignore[valid-type]
    logit_bias: refused(None, {}) = None  # type: ignore[valid-type]

    @field_validator("temperature")
    @classmethod
    def _divides(cls, temperature: float | None) -> float | None:
        if temperature and temperature < LEAST_TEMPERATURE:
            raise ValueError(f"must be 0, which always takes the likeliest, or at least {LEAST_TEMPERATURE}")
        return temperature

    @property
    def stops(self) -> tuple[str, ...] | None:
        if self.stop is None:
            return None
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def options(self) -> dict[str, Any]:
        """The options of `Generator.decode_config`, but for the limit."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "no_repeat_ngram")
        return {name: getattr(self, name) for name in names} | {"stop": self.stops}


Ids = Annotated[
    list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=MOST_TOKENS, fail_fast=True)
]


class CompletionForm(Writing):
    """A text, or several, to be continued."""

    prompt: (
        Text | Annotated[Texts, Field(min_length=1)] | Ids | Annotated[list[Ids], Field(min_length=1, fail_fast=True)]
    ) = Field(description="A text or several; or the ids of such.", examples=["Once upon a time"])
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    echo: bool | None = Field(None, description="Whether the prompt stands before what follows it.")
    best_of: refused(None, 1) = None  # type: ignore[valid-type]
    logprobs: refused(None, False) = None  # type: ignore[valid-type]
    suffix: refused(None, "") = None  # type: ignore[valid-type]


class TextPart(StrictForm):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class Message(StrictForm):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Annotated[list[TextPart], Field(max_length=64)]
    name: refused(None) = None  # type: ignore[valid-type]
    refusal: refused(None) = None  # type: ignore[valid-type]
    annotations: refused(None, []) = None  # type: ignore[valid-type]
    audio: refused(None) = None  # type: ignore[valid-type]
    function_call: refused(None) = None  # type: ignore[valid-type]
    tool_calls: refused(None, []) = None  # type: ignore[valid-type]

    @field_validator("role")
    @classmethod
    def _is_spoken(cls, role: str) -> str:
        if role in ("system", "developer"):
            raise ValueError(f"{role} messages are not supported: no run here was trained to follow any; leave it out")
        return role

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatForm(Writing):
    """A conversation, whose next message is wanted."""

    messages: list[Message] = Field(
        min_length=1, max_length=1000, examples=[[{"role": "user", "content": "How do I delete a file?"}]]
    )
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    logprobs: refused(None, False) = None  # type: ignore[valid-type]
    top_logprobs: refused(None, 0) = None  # type: ignore[valid-type]
    response_format: refused(None, {"type": "text"}) = None  # type: ignore[valid-type]
    modalities: refused(None, ["text"]) = None  # type: ignore[valid-type]
    tools: refused(None, []) = None  # type: ignore[valid-type]
    tool_choice: refused(None, "none", "auto") = None  # type: ignore[valid-type]
    parallel_tool_calls: refused(None, True, False) = None  # type: ignore[valid-type]
    functions: refused(None, []) = None  # type: ignore[valid-type]
    function_call: refused(None, "none", "auto") = None  # type: ignore[valid-type]
    store: refused(None, False) = None  # type: ignore[valid-type]
    service_tier: refused(None, "auto", "default") = None  # type: ignore[valid-type]
    reasoning_effort: refused(None, "none") = None  # type: ignore[valid-type]

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Questions with their answers.

        Raises: ValueError: users and assistants do not take turns, or the last word is not a user's.
        """
        roles = [message.role for message in self.messages]
        if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
            raise ValueError("messages: user and assistant must take turns, and the first and the last be a user's")
        texts = [message.text for message in self.messages]
        return list(zip(texts[:-1:2], texts[1::2], strict=True))


class EmbeddingForm(StrictForm):
    """Texts whose vectors are wanted."""

    model: Name = Field(description="A run's name; see `/v1/models`.")
    input: Text | Annotated[Texts, Field(min_length=1)] = Field(
        description="A text or several.", examples=[["今天天气很好。", "The weather is fine."]]
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1, description="The run's own width, and no other.")
    user: Annotated[str, Field(max_length=512)] | None = Field(None, description="Of no effect.")

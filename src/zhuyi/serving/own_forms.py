"""What our own routes are asked."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from zhuyi.decoding.config import LEAST_TEMPERATURE
from zhuyi.serving.fields import Name, Seed, StrictForm, Text, Texts, whole

MOST_ENTRIES = 1000
LONGEST_TERM = 200
MOST_TOP = 100

Term = Annotated[str, Field(min_length=1, max_length=LONGEST_TERM), AfterValidator(whole)]
Prefix = Annotated[str, Field(max_length=1000), AfterValidator(whole)]
RunName = Annotated[Name, Field(description="Which run; the first that can where not given.")]


class GlossaryEntry(StrictForm):
    """Words of a source, and what they must become."""

    source: Term = Field(examples=["注意"])
    target: Term | Annotated[list[Term], Field(min_length=1, max_length=16)] = Field(
        description="One translation, or several of which any one will do.", examples=["attention"]
    )

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: object) -> object:
        """A pair is one too: ["注意", "attention"]."""
        if isinstance(value, list | tuple) and len(value) == 2:
            return {"source": value[0], "target": value[1]}
        return value

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)


class SampleForm(StrictForm):
    """How translations are drawn, where they are not searched for."""

    temperature: Annotated[float, Field(ge=LEAST_TEMPERATURE, le=10, allow_inf_nan=False)] = 1.0
    top_k: int = Field(0, ge=0, le=1_000_000)
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    seed: Seed = 1


class TranslateForm(StrictForm):
    """Texts to be translated."""

    run: RunName = ""
    source: Name = Field("", description="Instead of a run: the language to translate from.")
    target: Name = Field("", description="And the one to translate into.")
    texts: Texts = Field(examples=[["你好。", "今天天气很好。"]])
    format: Literal["text", "html"] = Field(
        "text", description="In `html` tags are kept, and each text has one answer."
    )
    n_best: int = Field(1, ge=1, description="How many translations of each, the others as `alternatives`.")
    beam: int | None = Field(None, ge=1, description="Hypotheses held; 1 is greedy. The run's own if not given.")
    alpha: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = Field(
        None, description="Of the length rule."
    )
    task: Name | None = Field(None, description="Of a run that does several.")
    prefix: Prefix | None = Field(None, description="What every text begins with.")
    constraint: Literal["none", "same-length", "couplet"] | None = Field(None, description="The form of the answers.")
    same_length: bool = False
    placeholders: bool | None = Field(None, description="Whether to keep placeholders, URLs and tags as they are.")
    glossary: list[GlossaryEntry] = Field(
        default=[], max_length=MOST_ENTRIES, description="What words must become.",
        examples=[[{"source": "注意", "target": "attention"}]],
    )  # fmt: skip
    keep: list[Term] = Field(default=[], max_length=MOST_ENTRIES, description="Words that are not translated.")
    sample: SampleForm | None = None
    alignment: bool = Field(False, description="Whether to tell which word came from which, as `0-0 1-2`.")


class ClassifyForm(StrictForm):
    """Texts to be labelled."""

    run: RunName = ""
    texts: Texts = Field(examples=[["很好看", "没意思"]])
    seconds: Texts | None = Field(None, description="The second texts, of a run that labels pairs.")


class FillForm(StrictForm):
    """A text with gaps."""

    run: RunName = ""
    text: Text = Field(description="With [MASK] where a word is wanted.", examples=["今天天气[MASK]好"])
    top: int = Field(5, ge=1, le=MOST_TOP, description="How many words for each gap.")


class AttentionForm(StrictForm):
    """A text whose maps are wanted."""

    run: RunName = ""
    text: Text = Field(examples=["你好。"])
    target: Text | None = Field(None, description="Its translation, found here where not given; or what goes on.")
    task: Name | None = Field(None, description="Of a run that does several.")
    prefix: Prefix | None = None
    beam: int | None = Field(None, ge=1)
    steps: bool = Field(False, description="Whether to tell also how the translation came about.")

"""Parts of the forms of requests: texts that can be written, and options that are refused by their names."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema


class StrictForm(BaseModel):
    """What a request may say; anything else is refused by its name."""

    model_config = ConfigDict(extra="forbid")


def whole(text: str) -> str:
    """A text that can be written as UTF-8.

    Raises: ValueError
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds half a character (an unpaired surrogate)") from None
    return text


Text = Annotated[str, AfterValidator(whole)]
# Where a hundred thousand are wrong, the first is told, and the others cost nothing.
Texts = Annotated[list[Text], Field(fail_fast=True)]
Name = Annotated[str, Field(max_length=200)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


def refused(*neutral: Any) -> Any:
    """The type of an option of a protocol that only these values are taken for, which ask for nothing."""

    def check(value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in neutral):
            raise ValueError("is not supported here; leave it out")
        return value

    schema = {"enum": list(neutral), "description": "Not supported: what asks for something is refused."}
    return Annotated[Any, BeforeValidator(check), WithJsonSchema(schema)]

"""Why a request is not done, and what its client is told."""

from zhuyi.errors import InputError


class Refusal(Exception):
    """A request that the server does not do.

    Args:   status: of HTTP.
            retry_after_seconds: when to come again; None: never.
    """

    status = 500
    code = "server_error"
    retry_after_seconds: int | None = None


class WrongOption(InputError):
    """An option whose value cannot be taken here.

    Args:   option: its name, which a client is told apart from the message too.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class QueueFull(Refusal):
    """There are more requests than the queue holds."""

    status, code = 429, "queue_full"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"too many requests are waiting; come again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class TooManyRequests(Refusal):
    """One key or address asks too often."""

    status, code = 429, "rate_limit_exceeded"

    def __init__(self, limit: int, retry_after_seconds: int) -> None:
        super().__init__(f"more than {limit} requests a minute; come again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class NotReady(Refusal):
    """The runs are being loaded."""

    status, code, retry_after_seconds = 503, "loading", 2

    def __init__(self) -> None:
        super().__init__("the runs are still being loaded; come again in some seconds")


class Draining(Refusal):
    """The server is about to end."""

    status, code, retry_after_seconds = 503, "draining", 10

    def __init__(self) -> None:
        super().__init__("the server is about to end and takes no more requests")


class EngineStopped(Refusal):
    """The thread that works has ended."""

    status, code = 503, "stopped"

    def __init__(self) -> None:
        super().__init__("the server has stopped working; its log says why")


class TookTooLong(Refusal):
    """A request's time is over."""

    status, code = 504, "timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request was given up after {seconds:g} s; ask for less at a time")


class UnknownRun(Refusal):
    """Nobody has such a run here."""

    status, code = 404, "model_not_found"

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no run {name!r} here; choose one of {', '.join(known) or 'none'}")


class Unauthorized(Refusal):
    """A key is missing, or not known."""

    status, code = 401, "invalid_api_key"


class Forbidden(Refusal):
    """The request comes from where none may."""

    status, code = 403, "forbidden"


class TooLarge(Refusal):
    """The request is larger than allowed."""

    status, code = 413, "too_large"


class TooSlow(Refusal):
    """The request did not arrive in time."""

    status, code = 408, "timeout"


class Malformed(Refusal):
    """The request cannot be read."""

    status, code = 400, "malformed"

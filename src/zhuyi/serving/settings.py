"""What a server may be told, and the limits within which it answers anyone."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

MEBIBYTE = 2**20


@dataclass(frozen=True)
class ServeSettings:
    """A server's settings.

    Args:   api_keys: a file of hashed keys, without one of which nothing is done; None: anyone may ask.
            open_to_all: listen beyond this machine though there are no keys.
            allowed_hosts: names that the server may be asked by, besides its own address.
            allowed_origins: pages of other servers that may use this one from a browser, "https://example.org" say.
            requests_per_minute: of one key, or of one address where there are no keys; 0: any.
            queue_size: requests that wait or run; beyond it they are told to come again.
            queue_cost: characters, or tokens to write, of all of them together.
            max_texts, max_text_characters: of one request, all its texts together.
            max_new_tokens: that a request may ask to have written, all its texts together.
            max_beam: hypotheses, or samples of a prompt.
            request_seconds: after which a request is given up.
            read_seconds: within which a request must have arrived, and a client take what it is sent.
            batch_tokens: source tokens, times hypotheses, in a batch.
            batch_wait_seconds: how long a request waits for others while a batch is running; an idle server waits not.
            drain_seconds: what is left to running requests when the server is to end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: Path | None = None
    open_to_all: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    requests_per_minute: int = 0
    queue_size: int = 256
    queue_cost: int = 1_000_000
    max_connections: int = 512
    max_body_bytes: int = 16 * MEBIBYTE
    max_texts: int = 256
    max_text_characters: int = 100_000
    max_new_tokens: int = 4096
    max_beam: int = 16
    max_audio_seconds: float = 600.0
    max_picture_pixels: int = 40_000_000
    max_json_depth: int = 32
    request_seconds: float = 120.0
    read_seconds: float = 20.0
    batch_tokens: int = 16384
    batch_wait_seconds: float = 0.01
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; it must be from 0 (any free one) to 65535")
        for name in ("queue_size", "queue_cost", "max_connections", "max_body_bytes", "max_texts", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_text_characters", "max_new_tokens", "max_beam", "max_picture_pixels", "max_json_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_audio_seconds", "request_seconds", "read_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("requests_per_minute", "batch_wait_seconds", "drain_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not (self.is_loopback or self.api_keys or self.open_to_all):
            raise ValueError(
                f"host {self.host} lets other machines in, and there are no keys: make one "
                "(`zhuyi serve --make-key NAME --api-keys FILE`) and give --api-keys FILE, or say --open-to-all"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

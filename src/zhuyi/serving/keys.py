"""Who may ask, and how often: keys, of which the server has but hashes, and a rate for each."""

import hashlib
import hmac
import logging
import os
import secrets
import time
from pathlib import Path

from zhuyi.errors import InputError

logger = logging.getLogger("zhuyi.serving")

PREFIX = "zhuyi-"
MOST_VISITORS = 10_000  # whose rates are remembered


def make_key(path: Path, name: str) -> str:
    """A new key, whose hash is added to the file; nobody can find the key there again.

    Raises: InputError: the name is none, or has a key already, or the file cannot be written.
    """
    if not name or not name.isprintable() or name.split() != [name]:
        raise InputError(f"{name!r} is no name for a key: give one word")
    try:
        if path.exists() and name in KeyRing(path).names:
            raise InputError(f"{path} has a key of the name {name} already; remove its line, or choose another name")
        key = PREFIX + secrets.token_urlsafe(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "a", encoding="utf-8") as file:
            apart = "" if path.read_bytes()[-1:] in (b"", b"\n") else "\n"
            file.write(f"{apart}{_digest(key)} {name}\n")
    except OSError as error:
        raise InputError(f"{path}: cannot keep keys here: {error.strerror or error}") from None
    return key


class KeyRing:
    """The keys of a file, a line `HASH NAME` each; a line that is added or removed counts at once.

    The keys are 256 random bits, so that a plain SHA-256 cannot be turned back.

    Raises: InputError: the file is not there, or is none of keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._hashes: dict[str, str] = {}
        self._read()

    @property
    def names(self) -> list[str]:
        return list(self._hashes)

    def owner(self, key: str) -> str | None:
        """Whose key it is; the time it takes tells nothing about the keys."""
        self._read()
        digest, owner = _digest(key), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(digest, known):
                owner = name
        return owner

    def _read(self) -> None:
        try:
            status = os.stat(self._path)
            if (stamp := (status.st_mtime_ns, status.st_size)) == self._stamp:
                return
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            if self._stamp is not None:  # while it is replaced, say: the keys that are known stay
                return
            raise InputError(
                f"{self._path}: cannot read keys here ({error}); "
                "make one by `zhuyi serve --make-key NAME --api-keys FILE`"
            ) from None
        hashes = {}
        for number, line in enumerate(lines, 1):
            digest, _, name = line.strip().partition(" ")
            if not line.strip() or line.startswith("#"):
                continue
            if len(digest) != 64 or not name:
                message = f"{self._path}, line {number}: expected a hash and a name, as --make-key writes them"
                if self._stamp is None:
                    raise InputError(message)
                logger.warning("%s; the keys of before hold", message)
                self._stamp = stamp
                return
            hashes[name] = digest
        self._hashes, self._stamp = hashes, stamp


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()  # a JSON can hold half a character


class RateLimit:
    """So many requests a minute of each visitor; as many at once, where none came for a minute."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, visitor: str) -> int:
        """0, or the seconds after which there is one more."""
        if not self.per_minute:
            return 0
        now, a_second = time.monotonic(), self.per_minute / 60
        left, since = self._left.pop(visitor, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - since) * a_second)
        allowed = left >= 1
        self._left[visitor] = (left - allowed, now)  # at the end: the first is who has not come for longest
        if len(self._left) > MOST_VISITORS:
            del self._left[next(iter(self._left))]
        return 0 if allowed else max(1, round((1 - left) / a_second + 0.5))

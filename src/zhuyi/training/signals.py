"""What a training does when it is told to end."""

import signal
from types import FrameType


class SignalsNoted:
    """SIGINT and SIGTERM are noted, and the step is finished; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.noted = False

    def __enter__(self) -> "SignalsNoted":
        try:
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: its owner handles signals
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.noted = True

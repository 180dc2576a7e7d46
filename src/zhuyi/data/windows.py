"""Windows: the texts that are translated together, few enough that memory stays small however many there are."""

import threading
from collections.abc import Iterable, Iterator

# Enough to fill batches of one length.
WINDOW_TEXTS = 1024
WINDOW_CHARACTERS = 200_000


class _Window:
    """Texts until there are enough of them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._characters = 0

    @property
    def is_full(self) -> bool:
        return len(self.texts) >= WINDOW_TEXTS or self._characters >= WINDOW_CHARACTERS

    def add(self, text: str) -> None:
        self.texts.append(text)
        self._characters += len(text)

    def take(self) -> list[str]:
        """All of the texts; the window is empty then."""
        taken, self.texts, self._characters = self.texts, [], 0
        return taken


def windows(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut texts into windows, always at the same places: a window ends with the text that fills it.

    A window of these, cut again, is itself.
    """
    window = _Window()
    for text in texts:
        window.add(text)
        if window.is_full:
            yield window.take()
    if window.texts:
        yield window.take()


def windows_as_they_come(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut a live pipe: whatever is there, up to a full window; who types one line need not type a thousand.

    A thread reads ahead, and it too by no more than a window.
    """
    window, change = _Window(), threading.Condition()
    ended: list[BaseException | None] = []

    def read() -> None:
        error: BaseException | None = None
        try:
            for text in texts:
                with change:
                    change.wait_for(lambda: not window.is_full)
                    window.add(text)
                    change.notify_all()
        except BaseException as caught:  # raised again where it is waited for
            error = caught
        with change:
            ended.append(error)
            change.notify_all()

    threading.Thread(target=read, daemon=True).start()
    while True:
        with change:
            change.wait_for(lambda: window.texts or ended)
            taken = window.take()
            change.notify_all()
        if taken:
            yield taken
        elif error := ended[0]:
            raise error
        else:
            return

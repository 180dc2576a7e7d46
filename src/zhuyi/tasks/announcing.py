"""How a preparation tells the user what it does."""

from collections.abc import Callable

# Takes one line.
Announce = Callable[[str], None]

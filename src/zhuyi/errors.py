"""The one exception that means: the input or the usage is wrong, and here is what to do about it."""


class InputError(ValueError):
    """Bad input or bad usage; the message is one line for the person who can mend it.

    The command line prints it and exits with status 2.
    """

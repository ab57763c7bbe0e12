"""The one error that a person can mend."""


class InputError(Exception):
    """Bad usage or bad input.

    The message says what, where, what was received, and what to do. Commands print it and exit with code 2.
    """

"""Errors a caller of `data` would catch."""


class DataError(ValueError):
    """A file or table is not what it must be; the message names the input, what was found and the remedy."""

"""The error of bad data."""

from __future__ import annotations


class DataError(ValueError):
    """A file or a dataset breaks a rule; the message is one line that names the place and the rule."""

"""Errors that a user can act on; command lines print them as one line."""


class LocalAwsError(Exception):
    """localaws cannot do what it was asked; the message says why and what to do."""

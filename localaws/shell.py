"""What the user's shell says about AWS and proxies, kept away from what talks to localaws."""

import os

CLOSED = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    # Without any, macOS would give the proxies of its settings.
    "NO_PROXY": "*",
    "no_proxy": "*",
}
"""Variables of a process that finds nothing about AWS in the user's files, and no proxy."""


def leave() -> None:
    """Take it out of this process's environment."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(CLOSED)

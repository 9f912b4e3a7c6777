"""A stack's outputs where an environment is closed: its commands and pages are not those of AWS.

Terraform prints the modules' own `aws ...` commands, which would ask AWS itself, and addresses of
AWS's console, which knows nothing of what is on this machine.
"""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_COMMAND = re.compile(r"(^|[;&|(])\s*aws [a-z]", re.MULTILINE)
_CONSOLE = re.compile(r"https://([a-z0-9-]+\.)?console\.(aws\.amazon|amazonaws)[a-z.-]*/")
# As `trainer.fence` sets them; what the user's shell says about the rest would lead elsewhere.
_GIVEN = (
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "NO_PROXY",
)
_TAKEN = ("AWS_PROFILE", "AWS_SESSION_TOKEN")


def here(value: Any) -> Any:
    """Give an output as it is of use in this process's closed environment; None if it is of none.

    A command runs in a shell of its own, so that the user's keeps its own AWS.
    """
    if not isinstance(value, str):
        return value
    if _CONSOLE.match(value):
        return None
    if not _COMMAND.search(value):
        return value
    given = " ".join(f"{name}={shlex.quote(os.environ.get(name, ''))}" for name in _GIVEN)
    end = "\n" if "\n" in value else ""
    return f"(unset {' '.join(_TAKEN)}; export {given}; {end}{value}{end})"


def lines(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say what there is of use, a line each.

    Args:
        entries: As `terraform output -json` gives them.
    """
    for name, entry in sorted(entries.items()):
        value = here(entry["value"])
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{name} = {'<sensitive>' if entry.get('sensitive') else text}"

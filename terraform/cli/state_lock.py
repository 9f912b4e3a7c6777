"""The lock of a state: who holds it, and when it is a run's own that has ended.

Terraform locks a state by an object that must not be there yet. Where the answer to that is lost,
its own repeat is refused, for the object is there; Terraform takes the lock for another's and stops
(opentofu/opentofu#4405 has the same). So it is told to log the random id of each lock that it asks
for: a lock with an id that nobody but a run that has ended has made is held by nobody.
"""

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from trainer.patience import read_object
from trainer.target import Target

_LOGGED = re.compile(
    r"backend-s3: (Attempting to lock|Unlocked) remote state .* tf_backend\.lock\.id=([0-9a-f-]+) "
)
_LOGS = ("TF_LOG", "TF_LOG_CORE", "TF_LOG_PATH")


@dataclass(frozen=True)
class Lock:
    """A state's lock.

    Attributes:
        id: Random, made by the run that took it.
        who: User and machine.
        created: When.
        etag: The object's entity tag.
    """

    id: str
    who: str
    created: str
    etag: str


def find(target: Target, state_key: str) -> Lock | None:
    """The lock of a state; None if there is none, or none that can be read."""
    with suppress(ClientError, BotoCoreError, ValueError, KeyError):
        found = read_object(target.client("s3"), target.state_bucket, _key(state_key))
        lock = json.loads(found.content)
        return Lock(lock["ID"], lock["Who"], lock["Created"], found.etag)
    return None


def logging(environ: Mapping[str, str], log: Path) -> dict[str, str]:
    """An environment in which Terraform logs which locks it asks for.

    Where somebody has chosen what it logs, it is left at that: nothing is known of its locks then.

    Args:
        environ: The environment.
        log: The file, of this one run: another's locks must not be in it.
    """
    if any(environ.get(name) for name in _LOGS):
        return dict(environ)
    return {**environ, "TF_LOG_CORE": "INFO", "TF_LOG_PATH": str(log)}


def not_given_back(log: Path) -> set[str]:
    """Ids of the locks that a run has asked for and, as far as it knows, not given back."""
    ids: set[str] = set()
    with suppress(OSError):
        for said, lock in _LOGGED.findall(log.read_text(errors="replace")):
            (ids.discard if said == "Unlocked" else ids.add)(lock)
    return ids


def let_go(target: Target, state_key: str, ids: Collection[str]) -> bool:
    """Remove a state's lock if it is one of these, whose runs have ended.

    Args:
        target: The environment.
        state_key: Key of the state.
        ids: Of locks that nobody holds.

    Returns:
        Whether it was and is gone. Another's stays, even if it is taken at this moment.
    """
    lock = find(target, state_key) if ids else None
    if not lock or lock.id not in ids:
        return False
    client = target.client("s3")
    try:
        client.delete_object(Bucket=target.state_bucket, Key=_key(state_key), IfMatch=lock.etag)
    except ClientError as error:
        # A repeat finds nothing, if the answer to the first attempt was lost.
        return error.response["Error"]["Code"] in ("NoSuchKey", "404")
    except BotoCoreError:
        return False
    return True


def _key(state_key: str) -> str:
    return f"{state_key}.tflock"

"""Which resources exist beyond those that an untouched account has.

It asks no service: it walks through moto's backends, so that no service is forgotten.
"""

from collections.abc import Iterator
from typing import Any

from moto.core.base_backend import AccountSpecificBackend, BackendDict, BaseBackend
from moto.core.common_models import BaseModel
from moto.sts.models import AssumedRole

from localaws import changes

# Under it a backend keeps the names of what it had when it was made, through saving and restoring.
_AT_FIRST = "_localaws_at_first"
_DEPTH = 4


def remember_beginnings() -> None:
    """Keep of each backend what it holds when it is made, such as EC2's default VPC.

    Whoever asks for a backend may change it, which is noted here, too.
    """
    original = AccountSpecificBackend.__getitem__

    def getitem(self: AccountSpecificBackend[Any], region: str) -> Any:
        backend = original(self, region)
        changes.touch(self.backend)
        if _AT_FIRST not in vars(backend):
            # Of threads that come at once, none has made anything before the first is here.
            vars(backend).setdefault(_AT_FIRST, frozenset(_names(backend)))
        return backend

    AccountSpecificBackend.__getitem__ = getitem  # type: ignore[method-assign]


def resources() -> dict[str, list[str]]:
    """The resources that were made, by service: "KIND ARN", or an id where there is no ARN."""
    found: dict[str, set[str]] = {}
    for services in BackendDict._instances:  # type: ignore[misc]
        for _, _, backend in services.iter_backends():
            made = set(_names(backend)) - vars(backend).get(_AT_FIRST, frozenset())
            found.setdefault(services.service_name, set()).update(made)
    return {service: sorted(names) for service, names in sorted(found.items()) if names}


def _names(backend: BaseBackend) -> Iterator[str]:
    # Another thread may add to it meanwhile.
    for attribute, value in list(vars(backend).items()):
        for key, model in _models(attribute, value, _DEPTH):
            arn = getattr(model, "arn", None)
            name = arn if isinstance(arn, str) else key
            if not (_is_made_by_aws(name, model) or _is_going(model)):
                yield f"{type(model).__name__.removeprefix('Fake')} {name}"


def _models(key: str, value: Any, depth: int) -> Iterator[tuple[str, BaseModel]]:
    """The models in `value`, which is a model or holds some, with the key of each."""
    if isinstance(value, BaseModel):
        yield key, value
    elif depth and isinstance(value, dict):
        for name, item in list(value.items()):
            yield from _models(str(name), item, depth - 1)
    elif depth and isinstance(value, list | tuple | set):
        for item in list(value):
            yield from _models(str(getattr(item, "name", key)), item, depth - 1)


def _is_made_by_aws(name: str, model: Any) -> bool:
    # moto makes them when they are asked for: public parameters, policies, a service's own key.
    # Credentials of role sessions end by themselves.
    is_own_key = getattr(model, "description", "") == "Default key"
    is_session = isinstance(model, AssumedRole) or name.startswith("ASIA")
    is_public = name.startswith(("/aws/service/", "arn:aws:iam::aws:policy/"))
    return is_public or is_own_key or is_session


def _is_going(model: Any) -> bool:
    # A key that is deleted is kept for a week at least.
    return getattr(model, "key_state", "") == "PendingDeletion"

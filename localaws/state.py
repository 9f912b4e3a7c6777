"""All that localaws holds, saved to one file and restored from it.

moto keeps every service in Python objects, which are pickled as they are, so that ids, versions and
times stay and a Terraform state made before a stop still fits after it. (Recording the requests and
sending them again would make new ids, or need moto's sources of chance under control in all its
modules; it also takes as long as the requests took.) What pickle cannot take, few kinds, has a
reducer here.

The file is a zip archive: its checksums and its directory, which is written last, tell a damaged
file from a whole one, and the bytes of S3's objects stay out of the pickle's memory.
"""

import importlib
import io
import json
import marshal
import os
import pickle
import platform
import stat
import sys
import threading
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import CellType, FunctionType
from typing import Any
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from moto.core.base_backend import AccountSpecificBackend, BackendDict
from moto.s3.models import FakeKey

from localaws.errors import LocalAwsError
from localaws.files import replacing

FORMAT = 2
REMEDY = "`make local-reset` drops the state and begins with an empty one"

_LOCK = type(threading.Lock())
_RLOCK = type(threading.RLock())
_PRIVATE_KEYS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
_HEADER = "header.json"
_BACKENDS = "backends.pickle"


class StateError(LocalAwsError):
    """The state cannot be saved or restored."""


def _header() -> dict[str, object]:
    # moto's classes are what was pickled, and functions are bound to the interpreter's byte code.
    return {
        "format": FORMAT,
        "moto": version("moto"),
        "python": platform.python_version_tuple()[:2],
    }


def save(path: Path) -> None:
    """Write all that moto's backends hold to `path`, atomically; only its owner can read it.

    Args:
        path: The state file; its folder exists.

    Raises:
        StateError: It could not be written; the former file is whole.
    """
    try:
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_HEADER, json.dumps(_header()))
            pickled = io.BytesIO()
            _Pickler(pickled, archive).dump(list(_content()))
            archive.writestr(_BACKENDS, pickled.getbuffer(), zipfile.ZIP_DEFLATED, 1)
    # Whatever a model's own way to be pickled raises.
    except Exception as error:
        raise StateError(
            f"the state could not be saved to {path}: {error}; the former one is untouched"
        ) from error


def restore(path: Path) -> None:
    """Give moto's backends what `path` holds.

    Args:
        path: The state file.

    Raises:
        StateError: The file is damaged, another's, or of another version.
    """
    _check_owner(path)
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read(_HEADER))
            expected = json.loads(json.dumps(_header()))
            if header != expected:
                raise StateError(
                    f"{path} was written by {header}, and this is {expected}; {REMEDY}"
                )
            content = _Unpickler(io.BytesIO(archive.read(_BACKENDS)), archive).load()
    except StateError:
        raise
    # A damaged pickle can raise whatever the classes in it raise.
    except Exception as error:
        raise StateError(f"{path} cannot be read ({error!r}); {REMEDY}") from error
    for services, attributes, accounts in content:
        vars(services).update(attributes)
        for account, regions in accounts.items():
            for region, backend in regions.items():
                dict.__setitem__(services[account], region, backend)


def _check_owner(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        # Reading a pickle runs what its writer put there.
        raise StateError(f"{path} can be written or read by others than its owner; {REMEDY}")


def _content() -> Iterator[tuple[Any, dict[str, Any], dict[str, dict[str, Any]]]]:
    """Each service's backends, with what is kept beside them: by account, by region."""
    own = set(vars(BackendDict(object, "none")))  # type: ignore[type-var]
    for services in BackendDict._instances:  # type: ignore[misc]
        attributes = {name: value for name, value in vars(services).items() if name not in own}
        accounts = {account: dict(regions.items()) for account, regions in services.items()}
        yield services, attributes, accounts


class _Object:
    """The bytes of an object of S3, under their name in the archive."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Pickler(pickle.Pickler):
    """Pickles moto's backends; the bytes of S3's objects go to `archive`."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile) -> None:
        super().__init__(file, protocol=5)
        self._archive = archive
        self._objects = count()

    def persistent_id(self, thing: Any) -> Any:
        # The registries of backends are moto's module variables: named, not copied.
        if isinstance(thing, BackendDict):
            return "services", *_home(thing)
        if isinstance(thing, AccountSpecificBackend):
            return "account", *_home_of_account(thing), thing.account_id
        if isinstance(thing, _Object):
            return "object", thing.name
        return None

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, FakeKey):
            return _empty, (type(thing),), self._without_bytes(thing), None, None, _fill_key
        if isinstance(thing, _LOCK):
            return threading.Lock, ()
        if isinstance(thing, _RLOCK):
            return threading.RLock, ()
        if isinstance(thing, _PRIVATE_KEYS):
            der = thing.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            return _private_key, (der,)
        if isinstance(thing, WeakValueDictionary):
            return WeakValueDictionary, (), None, None, iter(list(thing.items()))
        if _is_own_kind_of_dict(thing):
            factory = thing.default_factory if isinstance(thing, defaultdict) else None
            state = vars(thing), list(dict.items(thing)), factory
            return _empty, (type(thing),), state, None, None, _fill_dict
        if isinstance(thing, FunctionType) and not _is_named(thing):
            cells = tuple(cell.cell_contents for cell in thing.__closure__ or ())
            code = marshal.dumps(thing.__code__)
            return _function, (code, thing.__module__, thing.__defaults__, cells)
        return NotImplemented

    def _without_bytes(self, key: FakeKey) -> dict[str, Any]:
        state = key.__getstate__()
        name = f"objects/{next(self._objects)}"
        self._archive.writestr(name, state["value"])
        return {**state, "value": _Object(name)}


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` wrote."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile) -> None:
        super().__init__(file)
        self._archive = archive

    def persistent_load(self, name: Any) -> Any:
        kind, *where = name
        if kind == "object":
            return self._archive.read(where[0])
        module, variable, *account = where
        services = getattr(importlib.import_module(module), variable)
        return services[account[0]] if account else services


def _home(services: BackendDict[Any]) -> tuple[str, str]:
    """Module and variable that hold `services`."""
    module = services.backend.__module__
    for name, value in vars(importlib.import_module(module)).items():
        if value is services:
            return module, name
    raise pickle.PicklingError(f"no variable of {module} holds the backends of {services.backend}")


def _home_of_account(account: AccountSpecificBackend[Any]) -> tuple[str, str]:
    for services in BackendDict._instances:  # type: ignore[misc]
        if services.get(account.account_id) is account:
            return _home(services)
    raise pickle.PicklingError(f"{account.service_name} has no backends for {account.account_id}")


def _is_own_kind_of_dict(thing: object) -> bool:
    """Whether pickle's way with dictionaries (constructor, `items()`, `[]`) is not to be trusted.

    S3's key store is such a one: its `items()` gives an object's newest version only.
    """
    return (
        isinstance(thing, dict)
        and type(thing).__module__.startswith("moto.")
        and not isinstance(thing, OrderedDict)
    )


def _is_named(function: FunctionType) -> bool:
    place: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        place = getattr(place, name, None)
    return place is function


def _empty(kind: Any) -> Any:
    return kind.__new__(kind)


def _fill_key(key: FakeKey, state: dict[str, Any]) -> None:
    key.__setstate__(state)
    # The unpickler keeps the dictionary to its end, and would keep all objects' bytes with it.
    del state["value"]


def _fill_dict(thing: dict[Any, Any], state: tuple[dict[str, Any], list[Any], Any]) -> None:
    attributes, items, factory = state
    vars(thing).update(attributes)
    dict.update(thing, items)
    if isinstance(thing, defaultdict):
        thing.default_factory = factory


def _private_key(der: bytes) -> Any:
    return load_der_private_key(der, None)


def _function(
    code: bytes, module: str, defaults: tuple[Any, ...] | None, cells: tuple[Any, ...]
) -> FunctionType:
    namespace = vars(importlib.import_module(module))
    closure = tuple(CellType(cell) for cell in cells)
    return FunctionType(marshal.loads(code), namespace, None, defaults, closure)  # noqa: S302

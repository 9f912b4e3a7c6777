"""All that localaws holds, saved to one file and restored from it.

moto keeps every service in Python objects, which are pickled as they are, so that ids, versions and
times stay and a Terraform state made before a stop still fits after it. (Recording the requests and
sending them again would make new ids, or need moto's sources of chance under control in all its
modules; it also takes as long as the requests took.) What pickle cannot take, few kinds, has a
reducer here.

Each service is pickled by itself, and only if it was touched since; services whose objects hold
objects of one another are pickled together, for both have to hold the same one afterwards. Large
contents are files of their own (`localaws.blobs`), which the pickles only name.

The state file is a zip archive that ends with its own checksum.
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
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from copyreg import dispatch_table
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from operator import methodcaller
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
from moto.core.base_backend import AccountSpecificBackend, BackendDict, BaseBackend
from moto.s3.models import FakeKey

from localaws.blobs import Blob, Content, Store
from localaws.changes import EVERYTHING
from localaws.errors import LocalAwsError
from localaws.files import replacing

FORMAT = 3
REMEDY = "`make local-reset` drops the state and begins with an empty one"

_LOCK = type(threading.Lock())
_RLOCK = type(threading.RLock())
_PRIVATE_KEYS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
_HEADER = "header.json"
_PROTOCOL = 5
_SUM_BYTES = 32

_Reduce = Callable[[Any], Any]


class StateError(LocalAwsError):
    """The state cannot be saved or restored."""


def _header() -> dict[str, object]:
    # moto's classes are what was pickled, and functions are bound to the interpreter's byte code.
    return {
        "format": FORMAT,
        "moto": version("moto"),
        "python": platform.python_version_tuple()[:2],
    }


@dataclass
class _Pickled:
    """What was pickled together: one service, or several that hold objects of one another."""

    backends: list[tuple[str, str, str]] = field(default_factory=list)
    """Service, account and region of each backend in it."""
    contents: list[Blob] = field(default_factory=list)
    """Files of large contents that it names; they stay as long as it does."""
    data: bytes = b""
    digest: bytes = b""
    packed: bytes = b""


class Saver:
    """Keeps a state file up to date; what was not touched is not pickled again."""

    def __init__(self, path: Path, store: Store | None = None) -> None:
        """Make one for a file in a folder that exists.

        Args:
            path: The state file.
            store: Holds the large contents, and removes those that the state file does not name.
        """
        self._path = path
        self._store = store
        self._pickled: dict[str, _Pickled] = {}
        self._group: dict[str, str] = {}
        self._linked: dict[str, set[str]] = {}
        self._is_written = False

    def take(self, touched: Iterable[type]) -> None:
        """Pickle services; nobody may change anything meanwhile.

        Args:
            touched: The classes of their backends, or `EVERYTHING`.

        Raises:
            StateError: One of them cannot be pickled.
        """
        services = _services()
        names = set(services)
        # A state that was restored is not pickled yet.
        if self._pickled and EVERYTHING not in (kinds := set(touched)):
            names = self._with_linked(names & {_name(kind) for kind in kinds})
        try:
            while names:
                group = self._group.get(name := names.pop(), name)
                members = {name for name in services if self._group.get(name, name) == group}
                pickled, foreign, linked = _pickled(members, services)
                # Whoever holds another's objects is pickled with it.
                if foreign:
                    merged = members | foreign
                    for former in {self._group.get(name, name) for name in merged}:
                        self._pickled.pop(former, None)
                        merged |= {name for name, of in self._group.items() if of == former}
                    self._group.update(dict.fromkeys(merged, min(merged)))
                    names |= merged
                    continue
                self._linked.update(dict.fromkeys(members, linked))
                names -= members
                former_one = self._pickled.get(group)
                pickled.digest = sha256(pickled.data).digest()
                if not former_one or former_one.digest != pickled.digest:
                    self._pickled[group] = pickled
                    self._is_written = False
        # Whatever a model's own way to be pickled raises.
        except Exception as error:
            raise StateError(self._failed(error)) from error

    def write(self) -> None:
        """Write what was taken to the file, atomically; only its owner can read it.

        Raises:
            StateError: It could not be written; the former file is whole.
        """
        if self._is_written:
            return
        for pickled in self._pickled.values():
            if pickled.data:
                pickled.packed, pickled.data = zlib.compress(pickled.data, 1), b""
        groups = {name: pickled.backends for name, pickled in self._pickled.items()}
        try:
            with replacing(self._path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                archive.writestr(_HEADER, json.dumps({**_header(), "groups": groups}))
                for name, pickled in self._pickled.items():
                    archive.writestr(f"{name}.pickle", pickled.packed)
                archive.comment = bytes(_SUM_BYTES)
                archive.close()
                with temporary.open("r+b") as file:
                    total = _sum(file.read())
                    file.seek(-_SUM_BYTES, os.SEEK_END)
                    file.write(total)
        except OSError as error:
            raise StateError(self._failed(error)) from error
        self._is_written = True
        if self._store:
            self._store.saved(
                blob.digest for pickled in self._pickled.values() for blob in pickled.contents
            )

    def _with_linked(self, names: set[str]) -> set[str]:
        """These services and those whose backends they hold, and may change unseen."""
        found: set[str] = set()
        while names:
            found |= names
            names = {linked for name in names for linked in self._linked.get(name, ())} - found
        return found

    def _failed(self, error: Exception) -> str:
        return f"the state could not be saved to {self._path}: {error}; the former one is untouched"


def save(path: Path) -> None:
    """Write all that moto's backends hold to a file, see `Saver`.

    Raises:
        StateError: It could not be written; the former file is whole.
    """
    saver = Saver(path)
    saver.take([EVERYTHING])
    saver.write()


def restore(path: Path) -> None:
    """Give moto's backends what `path` holds.

    Args:
        path: The state file.

    Raises:
        StateError: The file is damaged, another's, or of another version.
    """
    _check_owner(path)
    former: list[tuple[Any, str, Any]] = []
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read(_HEADER))
            groups = header.pop("groups", {})
            expected = json.loads(json.dumps(_header()))
            if header != expected:
                raise StateError(
                    f"{path} was written by {header}, and this is {expected}; {REMEDY}"
                )
            if _sum(path.read_bytes()) != archive.comment:
                raise StateError(f"{path} is damaged; {REMEDY}")
            packed = [archive.read(f"{name}.pickle") for name in groups]
        # Whoever names a backend has to get the one that is filled.
        for backends in groups.values():
            for home, account, region in backends:
                services = _at(home)
                regions = services[account]
                former.append((regions, region, regions.get(region)))
                dict.__setitem__(regions, region, _empty(services.backend))
        for data in packed:
            _fill_backends(pickle.loads(zlib.decompress(data)))  # noqa: S301
    except StateError:
        raise
    # A damaged pickle can raise whatever the classes in it raise.
    except Exception as error:
        for regions, region, backend in former:
            dict.__delitem__(regions, region)
            if backend is not None:
                dict.__setitem__(regions, region, backend)
        raise StateError(f"{path} cannot be read ({error!r}); {REMEDY}") from error


def _sum(data: bytes) -> bytes:
    """The checksum of a state file, which is the end of it."""
    return sha256(data[:-_SUM_BYTES]).digest()


def _check_owner(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        # Reading a pickle runs what its writer put there.
        raise StateError(f"{path} can be written or read by others than its owner; {REMEDY}")


def _services() -> dict[str, BackendDict[Any]]:
    """All services that hold something, by the name of their class of backends."""
    return {_name(services.backend): services for services in BackendDict._instances}  # type: ignore[misc]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_Members = list[tuple[str, dict[str, Any], list[tuple[str, str, dict[str, Any]]]]]


def _members_of(services: BackendDict[Any]) -> tuple[dict[str, Any], list[tuple[str, str, Any]]]:
    """A service's backends by account and region, and what is kept beside them."""
    own = set(vars(BackendDict(object, "none")))  # type: ignore[type-var]
    attributes = {name: value for name, value in vars(services).items() if name not in own}
    backends = [
        (account, region, backend)
        for account, regions in list(services.items())
        for region, backend in list(regions.items())
    ]
    return attributes, backends


def _pickled(
    members: set[str], services: Mapping[str, BackendDict[Any]]
) -> tuple[_Pickled, set[str], set[str]]:
    """Pickle services together.

    Returns:
        What was pickled, the services whose objects they hold, those whose backends they hold.
    """
    reducers = _Reducers(members, services)
    content: _Members = []
    pickled = _Pickled()
    for name in sorted(members):
        home = ":".join(_home(services[name]))
        attributes, backends = _members_of(services[name])
        content.append((home, attributes, [(a, r, vars(backend)) for a, r, backend in backends]))
        pickled.backends += [(home, account, region) for account, region, _ in backends]
    file = io.BytesIO()
    pickler = _Pickler(file, _PROTOCOL)
    pickler.dispatch_table = reducers
    pickler.dump(content)
    # It holds methods of its own, and would stay, with all contents, until Python looks for rings.
    reducers.clear()
    pickled.data = file.getvalue()
    pickled.contents = reducers.contents
    return pickled, reducers.foreign - members, reducers.linked - members


def _fill_backends(content: _Members) -> None:
    for home, attributes, backends in content:
        services = _at(home)
        vars(services).update(attributes)
        for account, region, state in backends:
            vars(services[account][region]).update(state)


class _Pickler(pickle.Pickler):
    """Pickles moto's objects by `_Reducers`, and functions that have no name."""

    # Nothing here is asked of each object but this: it is what a save takes its time for.
    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is FunctionType and not _is_named(thing):
            cells = tuple(cell.cell_contents for cell in thing.__closure__ or ())
            code = marshal.dumps(thing.__code__)
            return _function, (code, thing.__module__, thing.__defaults__, cells)
        return NotImplemented


class _Reducers(dict[type, _Reduce]):
    """How to pickle an object, by its class; each class is looked at once."""

    def __init__(self, members: set[str], services: Mapping[str, BackendDict[Any]]) -> None:
        """Make it for services that are pickled together."""
        super().__init__()
        self._services: dict[str, set[str]] = {}
        for name, found in services.items():
            self._services.setdefault(_package(found.backend), set()).add(name)
        self._backends = {
            id(backend): (name, ":".join(_home(found)), account, region)
            for name, found in services.items()
            for account, region, backend in _members_of(found)[1]
        }
        self._members = members
        self.foreign: set[str] = set()
        self.linked: set[str] = set()
        self.contents: list[Blob] = []

    def __missing__(self, kind: type) -> _Reduce:
        if issubclass(kind, type):
            # Classes are named.
            raise KeyError(kind)
        reduce = self[kind] = self._reducer(kind)
        return reduce

    def _reducer(self, kind: type) -> _Reduce:
        if issubclass(kind, BackendDict):
            # The registries of backends are moto's module variables: named, not copied.
            return lambda thing: (_at, (":".join(_home(thing)),))
        if issubclass(kind, AccountSpecificBackend):
            return lambda thing: (_account, (_home_of_account(thing), thing.account_id))
        if issubclass(kind, BaseBackend):
            return self._backend
        if issubclass(kind, Content):
            return self._content
        if issubclass(kind, FakeKey):
            return self._key
        if issubclass(kind, _PRIVATE_KEYS):
            return _private_key_of
        if issubclass(kind, WeakValueDictionary):
            return lambda thing: (kind, (), None, None, iter(list(thing.items())))
        if kind is _LOCK:
            return lambda _: (threading.Lock, ())
        if kind is _RLOCK:
            return lambda _: (threading.RLock, ())
        owners = self._services.get(_package(kind), set())
        if not owners & self._members:
            self.foreign |= owners
        if _is_own_kind_of_dict(kind):
            return _own_dict
        return dispatch_table.get(kind) or methodcaller("__reduce_ex__", _PROTOCOL)

    def _backend(self, backend: BaseBackend) -> Any:
        known = self._backends.get(id(backend))
        if known is None:
            return backend.__reduce_ex__(_PROTOCOL)
        service, home, account, region = known
        self.linked.add(service)
        return _backend_at, (home, account, region)

    def _content(self, content: Content) -> Any:
        if blob := content.blob:
            self.contents.append(blob)
        return content.__reduce_ex__(_PROTOCOL)

    def _key(self, key: Any) -> Any:
        # What is pickled already does not name its content again.
        if key.multipart is None and (blob := key._value_buffer.blob):
            self.contents.append(blob)
        return key.__reduce__()


def _package(kind: type) -> str:
    """The package of moto that a class belongs to, such as "moto.s3"."""
    return ".".join(kind.__module__.split(".")[:2])


_homes: dict[int, tuple[str, str]] = {}


def _home(services: BackendDict[Any]) -> tuple[str, str]:
    """Module and variable that hold `services`."""
    # They stay as long as moto does.
    if id(services) not in _homes:
        module = services.backend.__module__
        for name, value in vars(importlib.import_module(module)).items():
            if value is services:
                _homes[id(services)] = module, name
                break
        else:
            raise pickle.PicklingError(
                f"no variable of {module} holds the backends of {services.backend}"
            )
    return _homes[id(services)]


def _home_of_account(account: AccountSpecificBackend[Any]) -> str:
    for services in BackendDict._instances:  # type: ignore[misc]
        if services.get(account.account_id) is account:
            return ":".join(_home(services))
    raise pickle.PicklingError(f"{account.service_name} has no backends for {account.account_id}")


def _at(home: str) -> BackendDict[Any]:
    module, _, variable = home.partition(":")
    services: BackendDict[Any] = getattr(importlib.import_module(module), variable)
    return services


def _account(home: str, account: str) -> AccountSpecificBackend[Any]:
    return _at(home)[account]


def _backend_at(home: str, account: str, region: str) -> BaseBackend:
    backend: BaseBackend = _at(home)[account][region]
    return backend


def _is_own_kind_of_dict(kind: type) -> bool:
    """Whether pickle's way with dictionaries (constructor, `items()`, `[]`) is not to be trusted.

    S3's key store is such a one: its `items()` gives an object's newest version only.
    """
    return (
        issubclass(kind, dict)
        and kind.__module__.startswith("moto.")
        and not issubclass(kind, OrderedDict)
    )


def _own_dict(thing: Any) -> Any:
    factory = thing.default_factory if isinstance(thing, defaultdict) else None
    state = vars(thing), list(dict.items(thing)), factory
    return _empty, (type(thing),), state, None, None, _fill_dict


def _private_key_of(key: Any) -> Any:
    return _private_key, (key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),)


def _is_named(function: FunctionType) -> bool:
    place: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        place = getattr(place, name, None)
    return place is function


def _empty(kind: Any) -> Any:
    return kind.__new__(kind)


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

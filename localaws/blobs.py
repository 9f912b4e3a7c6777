"""Large contents, each in a file of its own: objects of S3, code of functions.

A file is named after its content's SHA-256, written once and never changed, so that a saved state
only has to name it, and neither memory nor the state file holds its bytes.
"""

import hashlib
import os
import pickle
import tempfile
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary, finalize

from moto.awslambda.models import LambdaFunction, LayerVersion
from moto.core.common_models import BaseModel
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeKey, FakeMultipart

MAX_OBJECT_BYTES = 1 << 30
"""The largest object, at once or in parts; S3 takes 5 GiB at once and 50 TB in parts."""
LARGE_BYTES = 4096
"""Contents of this size and more get a file; less than that is cheaper to copy than to name."""

# Where an object of S3 keeps how it was pickled last, until it is changed.
_PICKLED = "_localaws_pickled"


class TooLargeError(S3ClientError):
    """The parts of an object are too large together."""

    def __init__(self) -> None:
        """Refuse them by name."""
        super().__init__(
            "EntityTooLarge",
            f"localaws takes objects of at most {MAX_OBJECT_BYTES} bytes; S3 would take this one",
        )


class Blob:
    """A content in a file."""

    def __init__(self, digest: str, path: Path) -> None:
        self.digest = digest
        self.path = path


class Store:
    """The files of contents that are in use, and of those that the saved state names."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep contents in `folder`, which is made when it is needed; in memory if None."""
        self._folder = folder
        self._lock = threading.Lock()
        self._used: WeakValueDictionary[str, Blob] = WeakValueDictionary()
        self._saved: frozenset[str] = frozenset()
        # Python ends objects at any place, also in the middle of what holds the lock.
        self._left: deque[str] = deque()

    def keep(self, content: bytes) -> Blob | None:
        """The file with a content; None if contents of its size stay in memory."""
        if self._folder is None or len(content) < LARGE_BYTES:
            return None
        digest = hashlib.sha256(content).hexdigest()
        if blob := self._used.get(digest):
            return blob
        path = self._folder / digest
        self._folder.mkdir(mode=0o700, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=self._folder, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            with self._lock:
                # Whoever removes what nobody uses has to see either the user or no file.
                Path(unfinished).replace(path)
                blob = self._enter(digest)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        self._remove_unused()
        return blob

    def find(self, digest: str) -> Blob:
        """The file that a saved state names.

        Raises:
            FileNotFoundError: It is not there.
        """
        if self._folder is None or not (self._folder / digest).is_file():
            raise FileNotFoundError(f"{self._folder}/{digest} is not there")
        with self._lock:
            return self._enter(digest)

    def saved(self, digests: Iterable[str]) -> None:
        """Take note that the saved state names these files and no others."""
        former, self._saved = self._saved, frozenset(digests)
        self._left.extend(former - self._saved)
        self._remove_unused()

    def remove_all_unused(self) -> None:
        """Remove what a server left that was killed; once the state is restored."""
        self._saved = frozenset(self._used.keys())
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.name.startswith("."):
                path.unlink()
            else:
                self._left.append(path.name)
        self._remove_unused()

    def _enter(self, digest: str) -> Blob:
        assert self._folder is not None  # noqa: S101 (tells the type)
        blob = self._used.get(digest)
        if blob is None:
            blob = self._used[digest] = Blob(digest, self._folder / digest)
            finalize(blob, self._left.append, digest).atexit = False
        return blob

    def _remove_unused(self) -> None:
        with self._lock:
            for _ in range(len(self._left)):
                digest = self._left.popleft()
                if self._folder and digest not in self._used and digest not in self._saved:
                    (self._folder / digest).unlink(missing_ok=True)


_store = Store()


def keep_in(folder: Path | None) -> None:
    """Keep large contents in a folder from now on; in memory if None."""
    global _store
    _store = Store(folder)


def store() -> Store:
    """Where large contents are kept."""
    return _store


class Content:
    """Bytes in memory or in a file; as a file it can be read from the start, and closed."""

    def __init__(self, content: bytes) -> None:
        """Keep `content`."""
        self.blob: Blob | None = _store.keep(content)
        self._bytes = b"" if self.blob else bytes(content)
        self._at = 0

    def all(self) -> bytes:
        """The whole content."""
        # Whoever reads keeps the file, while another replaces the content.
        blob = self.blob
        return blob.path.read_bytes() if blob else self._bytes

    def seek(self, place: int) -> None:
        """Let `read` go on at a place."""
        self._at = place

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        if blob := self.blob:
            with blob.path.open("rb") as file:
                file.seek(self._at)
                found = file.read(size)
        else:
            found = self._bytes[self._at : self._at + size]
        self._at += len(found)
        return found

    def close(self) -> None:
        """Let go of it; who has its file's name still may read."""
        self.blob, self._bytes = None, b""

    def __getstate__(self) -> tuple[str, bytes]:
        """What the saved state holds of it."""
        return self.blob.digest if self.blob else "", self._bytes

    def __setstate__(self, state: tuple[str, bytes]) -> None:
        digest, self._bytes = state
        self.blob = _store.find(digest) if digest else None
        self._at = 0


class _Kept:
    """An attribute of moto's classes that holds bytes: a `Content` underneath."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self
        if self._name not in vars(owner):
            raise AttributeError(self._name)
        return vars(owner)[self._name].all()

    def __set__(self, owner: Any, value: bytes) -> None:
        vars(owner)[self._name] = Content(value)
        # moto keeps the request, too, with the same bytes in it.
        for request in ("code", "content"):
            vars(owner).get(request, {}).pop("ZipFile", None)


def _reduced(key: Any) -> tuple[Any, ...]:
    """How an object of S3 is pickled: by itself, and again only when it was changed."""
    if key.multipart is not None:  # which others hold, too
        return _empty_key, (), key.__getstate__()
    data = vars(key).get(_PICKLED)
    if not data:
        unchanged = vars(key)[_PICKLED] = b""
        data = pickle.dumps(key.__getstate__(), pickle.HIGHEST_PROTOCOL)
        # Who changes it meanwhile takes this away.
        if vars(key).get(_PICKLED) is unchanged:
            vars(key)[_PICKLED] = data
    return _key_of, (data,)


def _empty_key() -> FakeKey:
    return cast(FakeKey, FakeKey.__new__(FakeKey))


def _key_of(data: bytes) -> FakeKey:
    key: Any = _empty_key()
    key.__setstate__(pickle.loads(data))  # noqa: S301 (what is restored is its owner's)
    return cast(FakeKey, key)


def install() -> None:
    """Let moto's classes keep large contents in files; once in a process is enough."""
    key: Any = FakeKey
    if "__getstate__" in vars(key) and key.__getstate__.__module__ == __name__:
        return

    def get_value(self: Any) -> bytes:
        content: bytes = self._value_buffer.all()
        return content

    def set_value(self: Any, value: bytes | str) -> None:
        self._value_buffer = Content(value.encode() if isinstance(value, str) else value)
        self.contentsize = len(value)

    def get_state(self: Any) -> dict[str, Any]:
        held = vars(self).items()
        return {name: value for name, value in held if name not in ("lock", _PICKLED)}

    def set_state(self: Any, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.Lock())

    def set_attribute(self: Any, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        vars(self).pop(_PICKLED, None)

    def set_metadata(self: Any, *given: Any, **named: Any) -> None:
        change_metadata(self, *given, **named)
        vars(self).pop(_PICKLED, None)

    def complete(self: FakeMultipart, body: Any) -> Any:
        whole = join(self, body)
        # The object has it all; of its parts only their sizes and digests are told.
        for part in self.parts.values():
            part._value_buffer.close()
            vars(part).pop(_PICKLED, None)
        return whole

    def set_part(self: FakeMultipart, part_id: int, value: bytes) -> FakeKey:
        others = sum(part.contentsize for name, part in self.parts.items() if name != part_id)
        if others + len(value) > MAX_OBJECT_BYTES:
            raise TooLargeError
        return keep_part(self, part_id, value)

    change_metadata = FakeKey.set_metadata
    join, keep_part = FakeMultipart.complete, FakeMultipart.set_part
    multipart: Any = FakeMultipart
    multipart.complete, multipart.set_part = complete, set_part
    # moto keeps all that it ever made in lists of its own, for pages that are closed here.
    model: Any = BaseModel
    model.__new__ = lambda kind, *given, **named: object.__new__(kind)
    key.__del__ = lambda self: None
    key.value = property(get_value, set_value)
    key.__getstate__, key.__setstate__ = get_state, set_state
    key.__setattr__, key.set_metadata = set_attribute, set_metadata
    key.__reduce__ = _reduced
    kinds: tuple[Any, ...] = LambdaFunction, LayerVersion
    for kind in kinds:
        kind.code_bytes = _Kept("code_bytes")

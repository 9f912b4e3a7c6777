"""A tar file read member by member, as a stream, in every usual format and in bounded memory.

tarfile's own reader takes extended headers as long as they say they are, before its caller has
seen them. Here they are bounded, and only what decides name, kind and size is read of them.
"""

import gzip
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FILE = "file"
FOLDER = "folder"
LINK = "hard link"
OTHER = "other"

_MAX_HEADER_BYTES = 2**20
_MAX_HEADERS = 100_000
_MAX_PADDING = 2**19  # bytes: the last record of `tar -b 1024`
_KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.DIRTYPE: FOLDER,
    tarfile.LNKTYPE: LINK,
}
_LOCAL_RECORDS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class Member:
    """A file, a folder, a hard link without content or something else: devices, sparse files, ...

    Attributes:
        name: Its path.
        kind: `FILE`, `FOLDER`, `LINK` or `OTHER`.
        size: Of its content, in bytes.
        target: The path of an earlier member that a link stands for.
    """

    name: str
    kind: str
    size: int
    target: str = ""


def members(stream: gzip.GzipFile) -> Iterator[Member]:
    """Give the members of an unpacked stream, which then stands where the member's content begins.

    The caller reads the content of each, `size` bytes, before it asks for the next.

    Raises:
        tarfile.TarError: A header is damaged or too long, or data follow the last member.
    """
    name, target = "", ""
    records: Mapping[str, str] = {}
    headers = 0
    while any(block := stream.read(tarfile.BLOCKSIZE)):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        headers += 1
        if headers > _MAX_HEADERS:
            raise tarfile.TarError(f"more than {_MAX_HEADERS} headers")
        if header.type in (*_LOCAL_RECORDS, *_LONG, tarfile.XGLTYPE):
            content = _extended(stream, header)
            if header.type in _LONG:
                text = content.split(b"\0")[0].decode("utf-8", "surrogateescape")
                is_name = header.type == tarfile.GNUTYPE_LONGNAME
                name, target = (text, target) if is_name else (name, text)
            elif header.type in _LOCAL_RECORDS:
                records = _records(content)
            elif header.type == tarfile.XGLTYPE and {"path", "size"} & _records(content).keys():
                raise tarfile.TarError("a header that names all files alike")
            continue
        member = _member(header, name, target, records)
        name, target, records = "", "", {}
        yield member
        stream.read(-member.size % tarfile.BLOCKSIZE)
    if any(stream.read(_MAX_PADDING)) or stream.read(1):
        raise tarfile.TarError("data after the last file")


def _member(header: tarfile.TarInfo, name: str, target: str, records: Mapping[str, str]) -> Member:
    size = records.get("size", str(header.size))
    if not size.isdecimal():
        raise tarfile.TarError(f"a size of {size!r}")
    is_sparse = any(key.startswith("GNU.sparse.") for key in records)
    kind = OTHER if is_sparse else _KINDS.get(header.type, OTHER)
    if kind == LINK and int(size):  # whether content follows is read in two ways
        kind = OTHER
    return Member(
        name=records.get("path", name or header.name),
        kind=kind,
        # A folder has no content, whatever its header says.
        size=0 if kind == FOLDER else int(size),
        target=records.get("linkpath", target or header.linkname),
    )


def _extended(stream: gzip.GzipFile, header: tarfile.TarInfo) -> bytes:
    if not 0 <= header.size <= _MAX_HEADER_BYTES:
        raise tarfile.TarError(
            f"an extended header of {header.size} bytes, more than the {_MAX_HEADER_BYTES} allowed"
        )
    content = stream.read(header.size)
    stream.read(-header.size % tarfile.BLOCKSIZE)
    return content


def _records(content: bytes) -> dict[str, str]:
    """Read the records of a pax header, each "LENGTH KEY=VALUE" with a line feed.

    Source: POSIX.1-2001, pax, "pax Extended Header".
    """
    records = {}
    while content:
        digits = content[:20].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = content[len(digits) + 1 : length]
        if length > len(content) or record[-1:] != b"\n":
            raise tarfile.TarError("a damaged extended header")
        key, _, value = record[:-1].decode("utf-8", "surrogateescape").partition("=")
        records[key] = value
        content = content[length:]
    return records

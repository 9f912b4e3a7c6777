"""Names of files and classes as they are compared and as they are shown; things counted."""

import unicodedata


def nfc(name: str) -> str:
    """Give a name in the one Unicode form (NFC) that names are compared in.

    macOS and some programs write an accent as a character of its own (NFD): it looks the same.
    """
    return unicodedata.normalize("NFC", name)


def is_text(name: str) -> bool:
    """Whether a name of the file system is UTF-8, so that JSON, pages and S3 can carry it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: object) -> str:
    """Give a name for a line of text: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def some(names: list[str], limit: int = 5) -> str:
    """List names for a line of text, the first few of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shown, names[:limit])) + more


def counted(count: int, one: str, several: str = "") -> str:
    """Write a number of things: "1 photo", "1,269 photos"."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"

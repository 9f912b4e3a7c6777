"""Whose fault an error of SQLite is: the file's content, or its place's."""

import os
import sqlite3
from pathlib import Path

_OF_ITS_PLACE = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
}


def is_of_its_place(error: sqlite3.Error, path: Path) -> bool:
    """Whether a whole file would give the error, too: a full disk, rights, another process."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_READONLY:  # a file may say of itself that it is not to be written
        return not os.access(path, os.W_OK)
    return code & 0xFF in {*_OF_ITS_PLACE, sqlite3.SQLITE_READONLY}

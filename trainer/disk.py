"""Room on a disk, asked for before long work starts."""

import shutil
from pathlib import Path

from trainer.errors import KennelError


def require_room(folder: Path, needed: int) -> None:
    """Check that the disk below an existing folder takes `needed` more bytes.

    Raises:
        KennelError: It does not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise KennelError(
            f"{folder} has {free:,} bytes free and {needed:,} are needed; "
            "free some space or choose another folder"
        )

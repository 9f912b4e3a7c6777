"""A folder that is either the old one or the new one, never half of each."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.lock import locked

NEW = "new"
_OLD = "old"


@contextmanager
def replacing_folder(output: Path) -> Iterator[Path]:
    """Give one process at a time a workspace beside `output`.

    When the block succeeds, the folder `NEW` that it made in the workspace, if it made one, takes
    the place of `output`, and the workspace is removed. When it fails, `output` is as before and of
    the workspace only `NEW` is removed, so that the next run can go on with what else is there.
    """
    # Where `output` is a link, its target is replaced: the link may point to a larger disk.
    output = output.resolve()
    workspace = output.with_name(f".{output.name}.partial")
    with locked(workspace):
        _tidy(workspace, output)
        try:
            yield workspace
            if (workspace / NEW).exists():
                # Thousands of small files reach the disk far sooner this way than by fsync on each.
                os.sync()
                if output.exists():
                    output.rename(workspace / _OLD)
                (workspace / NEW).rename(output)
            shutil.rmtree(workspace)
        except BaseException:
            _tidy(workspace, output)
            with suppress(OSError):  # it still holds something for the next run
                workspace.rmdir()
            raise


def _tidy(workspace: Path, output: Path) -> None:
    """Undo what a run that broke off has left, whichever step it had reached."""
    old = workspace / _OLD
    if old.exists() and not output.exists():
        old.rename(output)
    for folder in (workspace / NEW, old):
        shutil.rmtree(folder, ignore_errors=True)

"""Which version of the provider an environment takes: the lock file beside its variables.

`terraform/environments/ENV.lock.hcl` is Terraform's own lock file, of both stacks, with the
provider's checksums for several platforms. It is committed, so that everybody and every run of CI
applies with the provider that was reviewed. An environment without one takes the newest that fits.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from terraform.cli import binary
from terraform.cli.paths import TERRAFORM
from terraform.cli.provider import PROVIDER
from trainer import target as targets
from trainer.errors import KennelError
from trainer.files import write_text_atomic
from trainer.target import Target

PLATFORMS = ("darwin_arm64", "linux_amd64", "linux_arm64")
"""Those of the people and machines that apply, unless others are named."""

NAME = ".terraform.lock.hcl"
_VERSION = re.compile(rf'^provider "[^"]+/{PROVIDER}" {{\s+version += "([^"]+)"', re.MULTILINE)


def path(target: Target) -> Path:
    """An environment's lock, whether it has one or not."""
    return targets.ENVIRONMENTS / f"{target.name}.lock.hcl"


def version(target: Target) -> str | None:
    """The version that an environment is locked to; None without a lock.

    Raises:
        KennelError: The file is no lock of this provider.
    """
    own = path(target)
    if not own.exists():
        return None
    found = _VERSION.search(own.read_text())
    if not found:
        raise KennelError(f"{own} locks no {PROVIDER}: {_command(target)} makes it anew")
    return found[1]


def take(target: Target, place: Path) -> bool:
    """Put an environment's lock where Terraform looks for it.

    Args:
        target: The environment.
        place: Where Terraform looks for it, of a stack.

    Returns:
        Whether there is one. Without one, that of another environment is taken away.
    """
    held = place.read_text() if place.exists() else None
    if version(target):
        locked = path(target).read_text()
        if held != locked:
            write_text_atomic(place, locked)
        return True
    others = targets.ENVIRONMENTS.glob("*.lock.hcl")
    if held and held in {other.read_text() for other in others}:
        place.unlink()
    return False


def write(target: Target, platforms: Sequence[str]) -> str:
    """Lock an environment to the newest version that fits; give the version.

    The packages come from the registry, which signs their checksums, or from `$TF_PLUGIN_MIRROR`.

    Raises:
        KennelError: Terraform cannot have them.
    """
    mirror = os.environ.get("TF_PLUGIN_MIRROR")
    with tempfile.TemporaryDirectory(prefix="kennel-lock-") as name:
        folder = Path(name)
        shutil.copy(TERRAFORM / "versions.tf", folder)
        finished = subprocess.run(
            [
                *(str(binary.find()), "providers", "lock", "-no-color"),
                *(f"-platform={platform}" for platform in platforms),
                *([f"-fs-mirror={Path(mirror).absolute()}"] if mirror else []),
            ],
            cwd=folder,
            env={**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        )
        if finished.returncode != 0:
            raise KennelError(
                f"no lock for {target.name}: Terraform could not have {PROVIDER} for "
                f"{', '.join(platforms)}; see above. Let this machine reach the registry, or set "
                "TF_PLUGIN_MIRROR to a folder that `terraform providers mirror` has filled"
            )
        write_text_atomic(path(target), (folder / NAME).read_text())
    return version(target) or ""


def require(target: Target) -> str:
    """The version that an environment is locked to.

    Raises:
        KennelError: It has no lock.
    """
    found = version(target)
    if not found:
        raise KennelError(
            f"there is no {path(target)}, so that the newest provider would be taken unseen: "
            f"{_command(target)} makes it; commit it"
        )
    return found


def _command(target: Target) -> str:
    return f"`.venv/bin/python -m terraform.cli lock --env {target.name}`"

"""Lets Terraform find the AWS provider: in the registry, or in a mirror on this machine."""

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from terraform.cli.binary import Binary
from terraform.cli.paths import BUILD
from trainer.errors import KennelError
from trainer.fence import Fence
from trainer.files import write_text_atomic

PROVIDER = "hashicorp/aws"
OLDEST, BELOW = (5, 100), (7, 0)
"""The versions that the modules accept: from the first to below the second."""

HOSTS = {"Terraform": "registry.terraform.io", "OpenTofu": "registry.opentofu.org"}
"""The registry in which each product looks for a provider that is named without one."""

_MIRRORED = HOSTS["Terraform"]
_REGISTRY_SECONDS = 10.0
_REMEMBERED_SECONDS = 3600.0
_RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Release:
    """One version of the provider for one platform, in a mirror.

    Attributes:
        version: Its three numbers.
        path: The folder that holds its executable, or a zip.
    """

    version: tuple[int, ...]
    path: Path


def environment(binary: Binary, fence: Fence | None = None) -> dict[str, str]:
    """This process's environment, with which Terraform finds the provider.

    What decides is, in this order: the user's own command-line configuration of Terraform, if it
    says where providers come from; the mirror `$TF_PLUGIN_MIRROR`; the registry, if it answers; a
    mirror in one of the usual places. In a closed environment the user's proxies are used only
    where there is no mirror.

    Args:
        binary: The Terraform that looks for it.
        fence: What closed this process's environment, if anything did.

    Raises:
        KennelError: The provider is nowhere.
    """
    environ = dict(os.environ)
    environ["CHECKPOINT_DISABLE"] = "1"  # else it asks HashiCorp for news, with a lasting id
    # Nearly all that it holds are the provider's schemas, which stay: looking for garbage in them
    # is a third of what a small plan does.
    environ.setdefault("GOGC", "400")
    # Terraform warns at every command about a configuration that it cannot open, and goes on.
    if not _opens(environ.get("TF_CLI_CONFIG_FILE") or "."):
        environ.pop("TF_CLI_CONFIG_FILE", None)
    configuration = _configuration(binary, environ)
    if re.search(r"^\s*provider_installation\b", configuration, re.MULTILINE):
        return environ
    mirror, tried = _find_mirror(binary, environ)
    if mirror:
        path = BUILD / f"{binary.product.lower()}.tfrc"
        text = _installation(binary, _linked(binary, mirror))
        if not _is_remembered(path, text):
            if not environ.get("TF_PLUGIN_MIRROR") and _registry_answers(HOSTS[binary.product]):
                return _with_cache(environ, configuration)
            write_text_atomic(path, text)
        return environ | {"TF_CLI_CONFIG_FILE": str(path)}
    with fence.opened() if fence else nullcontext():
        answers = _registry_answers(HOSTS[binary.product])
    if not answers:
        raise KennelError(
            f"the provider {PROVIDER} >= 5.100, < 7.0 for {binary.platform} is nowhere: "
            f"https://{HOSTS[binary.product]} does not answer, and no {_MIRRORED}/{PROVIDER} "
            f"with it is in {', '.join(map(str, tried))}; let this machine reach the registry "
            "(HTTPS_PROXY is honoured), or set TF_PLUGIN_MIRROR to a folder that `terraform "
            "providers mirror` has filled"
        )
    return _with_cache(environ, configuration)


def mirrored_releases(folder: Path, platform: str) -> list[Release]:
    """The provider's versions in a mirror that the modules accept, the oldest first.

    Args:
        folder: The folder that holds `registry.terraform.io`.
        platform: Such as `linux_amd64`.
    """
    home = folder / _MIRRORED / PROVIDER
    unpacked = [
        (path.parent.name, path)
        for path in home.glob(f"*/{platform}")
        if any(path.glob("terraform-provider-aws*"))
    ]
    packed = [
        (path.name.split("_")[1], path)
        for path in home.glob(f"terraform-provider-aws_*_{platform}.zip")
    ]
    releases = [
        Release(tuple(map(int, match.groups())), path)
        for version, path in [*unpacked, *packed]
        if (match := _RELEASE.fullmatch(version))
    ]
    return sorted(
        (release for release in releases if OLDEST <= release.version < BELOW),
        key=lambda release: release.version,
    )


def _find_mirror(binary: Binary, environ: Mapping[str, str]) -> tuple[Path | None, list[Path]]:
    """The first mirror that will do, and all folders that were looked at."""
    named = environ.get("TF_PLUGIN_MIRROR")
    tried = [Path(named).absolute()] if named else list(usual_folders(environ))
    for folder in tried:
        if mirrored_releases(folder, binary.platform):
            return folder, tried
    if named:
        raise KennelError(
            f"TF_PLUGIN_MIRROR={named}: {_MIRRORED}/{PROVIDER} >= 5.100, < 7.0 for "
            f"{binary.platform} is not in it; fill it with `terraform providers mirror {named}`, "
            "or unset it"
        )
    return None, tried


def usual_folders(environ: Mapping[str, str], root: Path = Path("/")) -> Iterator[Path]:
    """Where a mirror may be: Terraform's implied mirrors, and add-on software's folders.

    Sources: Terraform's documentation, "Implied Local Mirror Directories"; the Filesystem
    Hierarchy Standard, 3.13.

    Args:
        environ: `HOME`, `XDG_DATA_HOME` and `XDG_DATA_DIRS` are read.
        root: The file system's root.
    """
    home = Path(environ.get("HOME") or Path.home())
    yield home / ".terraform.d" / "plugins"
    yield home / "Library" / "Application Support" / "io.terraform" / "plugins"
    yield root / "Library" / "Application Support" / "io.terraform" / "plugins"
    shared = environ.get("XDG_DATA_DIRS") or f"{root / 'usr/local/share'}:{root / 'usr/share'}"
    data = [environ.get("XDG_DATA_HOME") or str(home / ".local" / "share"), *shared.split(":")]
    yield from (Path(folder) / "terraform" / "plugins" for folder in data if folder)
    yield from sorted((root / "opt").glob("*"))


def _configuration(binary: Binary, environ: Mapping[str, str]) -> str:
    """The text of the user's own command-line configuration; empty without one."""
    home = Path(environ.get("HOME") or Path.home())
    if environ.get("TF_CLI_CONFIG_FILE"):
        files = [Path(environ["TF_CLI_CONFIG_FILE"])]
    else:
        names = [".tofurc", ".terraformrc"] if binary.product == "OpenTofu" else [".terraformrc"]
        main = [home / name for name in names if _opens(home / name)][:1]
        files = [*main, *filter(_opens, sorted((home / ".terraform.d").glob("*.tfrc")))]
    return "".join(f"{path.read_text(errors='replace')}\n" for path in files)


def _opens(path: str | Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)  # noqa: PTH113, in closed folders too


def _installation(binary: Binary, mirror: Path) -> str:
    address = json.dumps(f"{HOSTS[binary.product]}/{PROVIDER}")
    return (
        "provider_installation {\n"
        "  filesystem_mirror {\n"
        f"    path    = {json.dumps(str(mirror))}\n"
        f"    include = [{address}]\n"
        "  }\n"
        "  direct {\n"
        f"    exclude = [{address}]\n"
        "  }\n"
        "}\n"
    )


def _linked(binary: Binary, mirror: Path) -> Path:
    """The mirror under the name of the product's own registry: a folder of links, if needed."""
    host = HOSTS[binary.product]
    if host == _MIRRORED:
        return mirror
    folder = BUILD / "mirror"
    for release in mirrored_releases(mirror, binary.platform):
        link = folder / host / release.path.relative_to(mirror / _MIRRORED)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or link.readlink() != release.path:
            link.unlink(missing_ok=True)
            link.symlink_to(release.path)
    return folder


def _with_cache(environ: dict[str, str], configuration: str) -> dict[str, str]:
    """The environment with a folder that keeps what the registry gave, unless the user has one."""
    if "plugin_cache_dir" in configuration or "TF_PLUGIN_CACHE_DIR" in environ:
        return environ
    cache = BUILD / "plugins"
    cache.mkdir(parents=True, exist_ok=True)
    return environ | {"TF_PLUGIN_CACHE_DIR": str(cache)}


def _is_remembered(path: Path, text: str) -> bool:
    """Whether the registry did not answer a while ago, so that it need not be waited for again."""
    try:
        age = time.time() - path.stat().st_mtime
        return age < _REMEMBERED_SECONDS and path.read_text() == text
    except FileNotFoundError:
        return False


def _registry_answers(host: str) -> bool:
    """Whether the registry's service discovery answers; the proxies of the environment are used."""
    try:
        with urllib.request.urlopen(
            f"https://{host}/.well-known/terraform.json", timeout=_REGISTRY_SECONDS
        ) as answer:
            return "providers.v1" in json.load(answer)
    except (OSError, ValueError):
        return False

"""Asks an image registry which image a tag names now.

The protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, with the tokens
of https://distribution.github.io/distribution/spec/auth/token/.
"""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

from trainer.errors import KennelError, UsageError
from trainer.fence import is_loopback

_SECONDS = 20
_HUB = "registry-1.docker.io"
# A list of images before an image: one digest for all platforms.
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?")
_NAME = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def pin(image: str) -> str:
    """Give an image's name with the digest that its tag has now.

    Args:
        image: Such as `public.ecr.aws/docker/library/python:3.13-slim`; without a registry it is
            Docker Hub's, without a tag `latest`.

    Raises:
        UsageError: That is no image's name.
        KennelError: The registry does not answer, or does not know it.
    """
    host, name, tag = _parsed(image)
    scheme = "http" if is_loopback(f"http://{host}") else "https"
    address = f"{scheme}://{host}/v2/{name}/manifests/{tag}"
    remedy = (
        "; where the registry cannot be reached, name the image by its digest: "
        "PYTHON_IMAGE=NAME@sha256:..."
    )
    try:
        digest = _digest(address)
    except (OSError, HTTPException, ValueError, KeyError) as error:
        said = " ".join(str(error).split())
        raise KennelError(f"the digest of {image} cannot be asked for: {said}{remedy}") from error
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise KennelError(f"{host} tells no digest of {image}{remedy}")
    return f"{image}@{digest}"


def _parsed(image: str) -> tuple[str, str, str]:
    """Registry, repository and tag."""
    first, slash, rest = image.partition("/")
    # As Docker tells a registry from the first part of a name.
    has_host = bool(slash) and (first == "localhost" or bool(re.search("[.:]", first)))
    host, path = (first, rest) if has_host else (_HUB, image)
    name, _, tag = path.partition(":")
    if not has_host and "/" not in name:
        name = f"library/{name}"
    tag = tag or "latest"
    if not (_HOST.fullmatch(host) and _NAME.fullmatch(name) and _TAG.fullmatch(tag)):
        raise UsageError(
            f"{image!r} is no image's name, such as public.ecr.aws/docker/library/python:3.13-slim"
        )
    return host, name, tag


def _digest(address: str) -> str:
    try:
        answer = _open(address)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        answer = _open(address, _token(error.headers.get("WWW-Authenticate", "")))
    with answer:
        return str(answer.headers.get("Docker-Content-Digest", ""))


def _open(address: str, token: str | None = None) -> Any:
    headers = {"Accept": _ACCEPT, **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(address, headers=headers, method="HEAD")  # noqa: S310
    return urllib.request.urlopen(request, timeout=_SECONDS)  # noqa: S310


def _token(challenge: str) -> str:
    """The token that anybody gets."""
    told = dict(_CHALLENGE.findall(challenge))
    query = urllib.parse.urlencode({k: v for k, v in told.items() if k in {"service", "scope"}})
    realm = told.get("realm", "")
    if not realm.startswith(("https://", "http://127.0.0.1")):
        raise ValueError(f"it names no safe place of tokens: {challenge!r}")
    with urllib.request.urlopen(f"{realm}?{query}", timeout=_SECONDS) as answer:  # noqa: S310
        content = json.load(answer)
    return str(content.get("token") or content["access_token"])

"""The digest of a tag, asked of a registry on this machine."""

import json
from collections.abc import Iterator

import pytest

from localaws.loopback import LoopbackServer, Requests
from terraform.cli import registry
from trainer.errors import KennelError, UsageError

DIGEST = f"sha256:{'7' * 64}"


class Registry(Requests):
    """Docker's registry with `library/python:3.13-slim`, which asks for a token first."""

    def do_HEAD(self) -> None:
        host = self.headers["Host"]
        if self.headers.get("Authorization") != "Bearer anybody's":
            scope = f'service="registry",scope="repository:{self.path.split("/manifests")[0]}"'
            challenge = f'Bearer realm="http://{host}/token",{scope}'
            self.answer(401, b"", {"WWW-Authenticate": challenge})
        elif self.path != "/v2/library/python/manifests/3.13-slim":
            self.answer(404, b"", {})
        elif "application/vnd.oci.image.index.v1+json" not in self.headers["Accept"]:
            self.answer(400, b"", {})
        else:
            self.answer(200, b"", {"Docker-Content-Digest": DIGEST})

    def do_GET(self) -> None:
        is_asked = self.path.startswith("/token?service=registry&scope=repository")
        self.answer(200 if is_asked else 404, json.dumps({"token": "anybody's"}).encode(), {})


@pytest.fixture
def host() -> Iterator[str]:
    with LoopbackServer(Registry) as server:
        yield server.address


def test_a_tag_is_pinned_to_its_digest_now(host: str) -> None:
    image = f"{host}/library/python:3.13-slim"
    assert registry.pin(image) == f"{image}@{DIGEST}"


def test_what_the_registry_does_not_know_is_one_line(host: str) -> None:
    with pytest.raises(KennelError, match=r"python:2 cannot be asked for: HTTP Error 404") as told:
        registry.pin(f"{host}/library/python:2")
    assert "PYTHON_IMAGE=NAME@sha256:" in str(told.value)


def test_a_registry_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(KennelError, match=r"cannot be asked for: .*refused.*; where the registry"):
        registry.pin("127.0.0.1:9/python:3.13-slim")


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("python", ("registry-1.docker.io", "library/python", "latest")),
        ("python:3.13-slim", ("registry-1.docker.io", "library/python", "3.13-slim")),
        ("me/python:1", ("registry-1.docker.io", "me/python", "1")),
        (
            "public.ecr.aws/docker/library/python:3.13-slim",
            ("public.ecr.aws", "docker/library/python", "3.13-slim"),
        ),
        ("localhost/a", ("localhost", "a", "latest")),
        ("127.0.0.1:5000/a/b:c", ("127.0.0.1:5000", "a/b", "c")),
    ],
)
def test_names_are_read_as_docker_reads_them(image: str, parts: tuple[str, str, str]) -> None:
    assert registry._parsed(image) == parts


@pytest.mark.parametrize("image", ["", "Python:3", "a b", "python:3:13", "../x:1", "x/?q"])
def test_what_is_no_name_is_refused(image: str) -> None:
    with pytest.raises(UsageError, match="is no image's name"):
        registry._parsed(image)

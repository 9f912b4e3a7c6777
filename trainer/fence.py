"""Closes an environment: its commands reach AWS at one address of this machine and nowhere else.

`terraform/environments/NAME.aws.toml` says where that is. What the user's shell or home says about
AWS, proxies and Terraform could lead a command elsewhere, and is taken out of this process's
environment: libraries and the processes that are started see none of it.
"""

import http.client
import ipaddress
import json
import os
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import KennelError, UsageError
from trainer.make_command import make_command
from trainer.names import shown

# Terraform's own telemetry, SageMaker's and MLflow's servers have addresses of their own.
_LEADS = re.compile(r"(AWS|TF|OTEL|SAGEMAKER|MLFLOW)_.*|BOTO_CONFIG|.*_(?i:PROXY)")
# What the user says to Terraform about its programs and the stacks' variables, not about AWS.
_TERRAFORM = re.compile(r"TF_(VAR|LOG|TOKEN|REGISTRY|PLUGIN)_.*|TF_LOG|TF_CLI_CONFIG_FILE")
_PROXY = re.compile(r".*_(?i:PROXY)")
# Go's clients never ask a proxy for this machine. Nothing listens there: all else fails at once.
_WALL = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
_LARGEST_PORT = 65535
_ANSWER_SECONDS = 60
NO_ANSWER = (ValueError, KeyError, TypeError, http.client.HTTPException)
"""What reading an answer raises that is none of localaws'."""


@dataclass(frozen=True)
class Fence:
    """What a closed environment was closed with.

    Attributes:
        name: The environment's name.
        endpoint: The one address of its AWS.
        proxies: The user's variables about proxies.
    """

    name: str
    endpoint: str
    proxies: dict[str, str]

    def with_proxies(self, environ: Mapping[str, str]) -> dict[str, str]:
        """An environment with the user's own proxies, and no others."""
        return {**_without_proxies(environ), **self.proxies}

    def walled(self, environ: Mapping[str, str]) -> dict[str, str]:
        """An environment for Terraform in which a call that leaves this machine fails."""
        return _without_proxies(environ) | _WALL

    @contextmanager
    def opened(self) -> Iterator[None]:
        """With the user's proxies: for what is fetched from elsewhere, such as the provider."""
        closed = _take(os.environ, _PROXY)
        os.environ.update(self.proxies)
        try:
            yield
        finally:
            _take(os.environ, _PROXY)
            os.environ.update(closed)

    def guard(self) -> Callable[..., None]:
        """What botocore is to call before it sends a request."""
        answered = False

        def refuse(request: Any, **_: Any) -> None:
            nonlocal answered
            if not is_loopback(request.url):
                host = urllib.parse.urlsplit(request.url).hostname
                raise KennelError(
                    f"ENV={self.name} is closed, its AWS is {self.endpoint}: a call to {host} was "
                    "not sent"
                )
            # At once: botocore would try again for half a minute.
            if not answered and _served(self.endpoint) is None:
                raise KennelError(
                    f"ENV={self.name}: nobody answers at {self.endpoint}: "
                    f"`{make_command('local-up')}` starts localaws"
                )
            answered = True

        return refuse


def close(name: str, path: Path, region: str) -> Fence:
    """Close this process's environment.

    Args:
        name: The environment's name.
        path: Its `NAME.aws.toml`.
        region: Its region.

    Raises:
        UsageError: The file, or the variable that it names, gives no address of this machine.
        KennelError: The server that has its files here is down, or another one has its port.
    """
    told = tomllib.loads(path.read_text())
    endpoint = _endpoint(name, told, path)
    taken = _take(os.environ, _LEADS, _TERRAFORM)
    os.environ.update(
        {
            "AWS_ACCESS_KEY_ID": told["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": told["secret_access_key"],
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_DEFAULT_REGION": region,
            "AWS_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": endpoint,
            # What localaws fails in is told within two minutes; Terraform's own 25 take ten.
            "AWS_MAX_ATTEMPTS": "10",
            # Without any, macOS would give the proxies of its settings.
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
    )
    proxies = {name: value for name, value in taken.items() if _PROXY.fullmatch(name)}
    return Fence(name, endpoint, proxies)


def is_loopback(endpoint: str | None) -> bool:
    """Whether an endpoint's address is this machine's own: localaws, not AWS."""
    host = urllib.parse.urlsplit(endpoint or "").hostname
    if not host:
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _endpoint(name: str, told: Mapping[str, str], path: Path) -> str:
    endpoint = told["endpoint"]
    # 0 let the server choose.
    if (port := os.environ.get(told["port_variable"], "0")) not in {"", "0"}:
        if not port.isdecimal() or not 0 < int(port) <= _LARGEST_PORT:
            raise UsageError(f"{told['port_variable']}={port}: a port is a number from 1 to 65535")
        endpoint = f"{endpoint.rpartition(':')[0]}:{int(port)}"
    else:
        built = os.environ.get("KENNEL_OUT") or path.parents[2] / "build"
        file = Path(built) / told["server_file"]
        endpoint = _written(file) or endpoint
        _check_here(endpoint, path)
        _check_own(name, endpoint, file.parent.resolve(), told["port_variable"])
    _check_here(endpoint, path)
    return endpoint


def _check_here(endpoint: str, path: Path) -> None:
    if not is_loopback(endpoint):
        raise UsageError(f"{path}: the endpoint {endpoint} is not on this machine")


def _check_own(name: str, endpoint: str, folder: Path, port_variable: str) -> None:
    """Check that who answers is not somebody else's server, which would do what it is told."""
    served = _served(endpoint)
    if served is None and folder.is_dir():
        raise KennelError(
            f"ENV={name}: the server of {folder} is down: `make local-up` starts it; "
            f"{port_variable}=... on the command line takes another one"
        )
    # Where none was ever started and nobody answers, the first call says so.
    if served is not None and not _is_folder(served, folder):
        other = f"the server of {shown(served)}" if served else "another server"
        port = urllib.parse.urlsplit(endpoint).port or 80
        raise KennelError(
            f"ENV={name}: at {endpoint} is {other}, not that of {folder}: `make local-up "
            f"{port_variable}={port + 1}`, or another free port, starts it; {port_variable}={port} "
            "takes the other one"
        )


def _is_folder(name: str, folder: Path) -> bool:
    """Whether a name, which may be anything, is a folder's."""
    try:
        return Path(name).resolve() == folder
    except (OSError, ValueError):
        return False


def _written(file: Path) -> str | None:
    """Where the server answered that has written this file, be it up or not."""
    try:
        endpoint = str(json.loads(file.read_text())["endpoint"])
        urllib.parse.urlsplit(endpoint).port  # noqa: B018, it may be no number
        return endpoint
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _served(endpoint: str) -> str | None:
    """The folder that the server is up for; empty if it does not say, None if nobody answers."""
    try:
        return str(localaws_page(endpoint, "health")["state"])
    except OSError:
        return None
    except NO_ANSWER:
        return ""


def localaws_page(endpoint: str, name: str) -> Any:
    """One of localaws' own pages.

    Raises:
        OSError: Nobody answers there.
        NO_ANSWER: Who answers is no localaws.
    """
    host = urllib.parse.urlsplit(endpoint).netloc
    with closing(http.client.HTTPConnection(host, timeout=_ANSWER_SECONDS)) as connection:
        connection.request("GET", f"/_localaws/{name}")
        return json.load(connection.getresponse())


def _without_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not _PROXY.fullmatch(name)}


def _take(
    environ: MutableMapping[str, str], names: re.Pattern[str], but: re.Pattern[str] | None = None
) -> dict[str, str]:
    """Take variables out; give what they were."""
    found = [
        name for name in environ if names.fullmatch(name) and not (but and but.fullmatch(name))
    ]
    return {name: environ.pop(name) for name in found}

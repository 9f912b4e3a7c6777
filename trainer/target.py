"""An environment to work in, and AWS as its commands reach it.

The environments are Terraform's: `terraform/environments/NAME.tfvars`. One that has a file
`NAME.aws.toml`, too, is closed (`trainer/fence.py`).
"""

import argparse
import os
import re
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
)

from trainer import fence
from trainer.errors import KennelError, UsageError
from trainer.fence import Fence, is_loopback
from trainer.make_command import make_command
from trainer.patience import ATTEMPTS, wait_for_roles

ENVIRONMENTS = Path(__file__).absolute().parents[1] / "terraform" / "environments"
PROJECT = "kennel"
"""The default of the stacks' variable `project`."""

LATEST_KEY = "jobs/latest.json"
"""Object of the bucket that names the archive which was trained last: the launcher writes it."""

_MAKING = threading.Lock()
_STRING = re.compile(r'^(\w+)\s*=\s*"([^"\\$%]*)"', re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """An environment: one set of variables, one state for each stack.

    Attributes:
        name: Its name, which is `environment` in its variables.
        project: First part of every name.
        region: AWS region.
        python_image: Base image of the serving image by digest, if the variables name one.
        fence: What keeps its commands on this machine; None: they go where the user's shell says.
    """

    name: str
    project: str
    region: str
    python_image: str | None = None
    fence: Fence | None = None

    @property
    def prefix(self) -> str:
        """First part of every name in AWS: `<project>-<environment>`."""
        return f"{self.project}-{self.name}"

    @property
    def backend_file(self) -> Path:
        """Settings of the state's backend, but for its bucket and key."""
        return ENVIRONMENTS / f"{self.name}.s3.tfbackend"

    @property
    def state_bucket(self) -> str:
        """Name of the bucket of the states, one for each account and region."""
        return f"{self.project}-tfstate-{self.account}-{self.region}"

    @cached_property
    def account(self) -> str:
        """Id of the account that the credentials belong to."""
        return self._caller[4]

    @property
    def partition(self) -> str:
        """AWS's own part of every ARN there: `aws`, in China `aws-cn`."""
        return self._caller[1]

    @cached_property
    def _caller(self) -> list[str]:
        """The parts of the ARN that the credentials have."""
        arn: str = self.client("sts").get_caller_identity()["Arn"]
        return arn.split(":")

    def client(self, service: str, attempts: int | None = None) -> Any:
        """A boto3 client of a service, in the region.

        Args:
            service: The service's name in boto3.
            attempts: How often it tries a call; None: as often as usual.
        """
        if attempts:
            retries = {"mode": "standard", "total_max_attempts": attempts}
            with _MAKING:
                return self.session.client(service, config=Config(retries=retries))
        # boto3 makes clients for one thread at a time only, and takes long for each.
        with _MAKING:
            if service not in self._clients:
                self._clients[service] = self.session.client(service)
            return self._clients[service]

    @cached_property
    def _clients(self) -> dict[str, Any]:
        return {}

    @cached_property
    def session(self) -> Any:
        """The boto3 session that all clients are of."""
        return self.new_session()

    def new_session(self) -> Any:
        """A session of its own, for who listens to its events."""
        core = botocore.session.Session()
        # What the user's environment or profile says of attempts holds.
        attempts = core.get_config_variable("max_attempts") or ATTEMPTS
        core.set_default_client_config(
            Config(retries={"mode": "standard", "total_max_attempts": attempts})
        )
        session = boto3.Session(botocore_session=core, region_name=self.region)
        wait_for_roles(session)
        if self.fence:
            session.events.register("before-send", self.fence.guard())
        return session

    def variable_files(self, stack: str) -> list[Path]:
        """The variables of a stack: the environment's, then the stack's own if there are any."""
        own = ENVIRONMENTS / f"{self.name}.{stack}.tfvars"
        return [ENVIRONMENTS / f"{self.name}.tfvars", *([own] if own.exists() else [])]

    def parameter(self, key: str) -> str | None:
        """What the foundation left in Parameter Store under `key`; None if it is not there."""
        client = self.client("ssm")
        try:
            answer = client.get_parameter(Name=self.parameter_name(key))
        except client.exceptions.ParameterNotFound:
            return None
        return str(answer["Parameter"]["Value"])

    def required_parameter(self, key: str) -> str:
        """Like `parameter`.

        Raises:
            KennelError: The foundation has not been applied.
        """
        value = self.parameter(key)
        if value is None:
            raise KennelError(
                f"ENV={self.name} has no foundation in account {self.account}, {self.region} (no "
                f"parameter {self.parameter_name(key)}): apply the foundation first, with "
                f"`{make_command('apply', self.name, STACK='foundation')}`"
            )
        return value

    def forget_parameter(self, key: str) -> None:
        """Remove a parameter that is not Terraform's, if it is there."""
        client = self.client("ssm")
        with suppress(client.exceptions.ParameterNotFound):
            client.delete_parameter(Name=self.parameter_name(key))

    def parameter_name(self, key: str) -> str:
        """A parameter's whole name."""
        return f"/{self.project}/{self.name}/{key}"


def load(name: str) -> Target:
    """Read an environment's variables; close this process's own if that environment is closed.

    Raises:
        UsageError: There is no such environment, or its variables do not say what is needed.
    """
    path = ENVIRONMENTS / f"{name}.tfvars"
    if not path.is_file():
        known = sorted(file.name.removesuffix(".s3.tfbackend") for file in _backend_files())
        raise UsageError(f"ENV={name}: no {path}; there are {', '.join(known)}")
    values: dict[str, str] = dict(_STRING.findall(path.read_text()))
    if values.get("environment") != name:
        raise UsageError(f'{path}: must say `environment = "{name}"`')
    if "region" not in values:
        raise UsageError(f'{path}: must say `region = "..."`')
    foundation = ENVIRONMENTS / f"{name}.foundation.tfvars"
    if foundation.exists():
        values |= dict(_STRING.findall(foundation.read_text()))
    closed = ENVIRONMENTS / f"{name}.aws.toml"
    return Target(
        name=name,
        project=values.get("project", PROJECT),
        region=values["region"],
        python_image=values.get("python_image"),
        fence=fence.close(name, closed, values["region"]) if closed.exists() else None,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every command has which speaks to AWS."""
    parser.add_argument("--env", required=True, help="a name in terraform/environments")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")


@contextmanager
def explained(debug: bool = False) -> Iterator[None]:
    """Turn what boto3 raises into one line with a remedy.

    Args:
        debug: Print the trace before.

    Raises:
        KennelError: AWS refused a call, or could not be called.
    """
    try:
        with _traced(debug):
            yield
    except NoCredentialsError:
        raise KennelError(
            "no AWS credentials: set AWS_PROFILE, or log in with `aws sso login`; "
            "ENV=local needs none"
        ) from None
    except EndpointConnectionError as error:
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        remedy = "`make local-up` starts localaws" if is_loopback(endpoint) else "check the network"
        raise KennelError(f"{str(error).rstrip('.')}: {remedy}") from error
    except ClientError as error:
        details = error.response["Error"]
        raise KennelError(
            f"AWS refuses {error.operation_name}: {details.get('Code')}: {details.get('Message')}"
        ) from error
    except BotoCoreError as error:
        raise KennelError(f"AWS cannot be called: {error}") from error


@contextmanager
def _traced(debug: bool) -> Iterator[None]:
    try:
        yield
    except Exception:
        if debug:
            traceback.print_exc()
        raise


def _backend_files() -> list[Path]:
    return list(ENVIRONMENTS.glob("*.s3.tfbackend"))

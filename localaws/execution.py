"""What the services share that run something: jobs, endpoints, functions, instances.

moto's objects are the records; they are saved and restored, so they never hold a process or a
thread. What runs is held by a `Service`, which `Execution` starts with the server, tells to take up
what a restored record says is running, and stops with it.
"""

import json
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from moto.cloudwatch.models import cloudwatch_backends
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from localaws import shell
from localaws.errors import LocalAwsError
from localaws.iam.policy import PolicyError, Principal, Request, evaluate
from localaws.processes import Running
from localaws.weather import SERVICE_AGENT, Weather

ACCOUNT = "123456789012"
REGION = "us-east-1"
ADMINISTRATOR = "test"
"""Access key of the account's administrator, who may do everything."""
AWS = "amazonaws"
"""Access key of AWS's own services, where they act under no role of the account."""
AWS_SECRET = secrets.token_hex(32)
"""Its secret: nobody outside of this process can be taken for AWS."""

_SERVICES = (
    "monitoring.alarms:Alarms",
    "functions.service:Functions",
    "hosting.endpoints:Endpoints",
    "instances:Instances",
    "jobs.training:TrainingJobs",
    "monitoring.scaling:Scaling",
    "jobs.tuning:TuningJobs",
)
_SAVE_INTERVAL_SECONDS = 2.0
_SESSION_SECONDS = 12 * 3600
# A process that is started here gets its role's credentials and nothing of the caller's.
_INHERITED = ("HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


class RoleError(LocalAwsError):
    """A role is not there, or does not trust the service that is to act under it."""


@dataclass(frozen=True)
class Metric:
    """A value of a CloudWatch metric, now, which came `count` times."""

    name: str
    value: float
    dimensions: Mapping[str, str] = field(default_factory=dict)
    unit: str = "None"
    count: int = 1


class Service(Running):
    """Runs one kind of thing. All of its methods may be called from several threads."""

    def __init__(self, execution: "Execution") -> None:
        """Make the service; nothing runs yet."""
        self.execution = execution

    def resume(self) -> None:
        """Take up what, by moto's records, was running when localaws ended, however it ended."""

    def stop(self) -> None:
        """End all that runs here; the records go on saying that it runs."""


S = TypeVar("S", bound=Service)


class Execution(Running):
    """The services that run something, and what they need.

    Attributes:
        endpoint: localaws' own address.
        folder: For what runs: its files and logs. Empty at the start.
        time_scale: How many times faster than on AWS the waits pass that AWS imposes: bake times,
            metric periods, cooldowns. What a user's own limits say (time-outs, run times) is real.
    """

    def __init__(
        self,
        endpoint: str,
        folder: Path,
        time_scale: float,
        changing: Callable[[], AbstractContextManager[None]],
        waiting: Callable[[], AbstractContextManager[None]],
        save: Callable[[], bool],
        weather: Weather,
    ) -> None:
        """Make the services; nothing runs yet.

        Args:
            endpoint: localaws' own address.
            folder: For what runs; emptied.
            time_scale: See the class.
            changing: See `changing`.
            waiting: See `waiting`.
            save: Writes all records to disk; false if it could not.
            weather: See `weather`.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.endpoint = endpoint
        self.folder = folder
        self.time_scale = time_scale
        self.changing = changing
        """`with execution.changing():` around each change of moto's objects that is made outside of
        a request. Be quick inside: while the state is saved, nobody gets in."""
        self.waiting = waiting
        """`with execution.waiting():` around what a request waits for: an endpoint's answer or a
        function's, which may itself call localaws. Change none of moto's objects inside."""
        self.weather = weather
        """Says how what is started starts."""
        self._save = save
        self._save_wanted = threading.Event()
        self._ended = threading.Event()
        self._session = boto3.session.Session()
        self._session_lock = threading.Lock()
        self._services: dict[type[Service], Service] = {}
        for name in _SERVICES:
            module, _, kind = name.partition(":")
            made: Service = getattr(import_module(f"localaws.{module}"), kind)(self)
            self._services[type(made)] = made

    def start(self) -> None:
        """Let every service take up what was running; requests are answered already."""
        global _current
        _current = self
        threading.Thread(target=self._save_when_wanted, daemon=True).start()
        for service in self._services.values():
            service.resume()

    def stop(self) -> None:
        """End all that runs. The records go on saying that it runs."""
        global _current
        self._ended.set()
        for service in self._services.values():
            service.stop()
        _current = None

    def service(self, kind: type[S]) -> S:
        """The service of a kind."""
        found = self._services[kind]
        assert isinstance(found, kind)  # noqa: S101 (tells the type)
        return found

    def save_soon(self) -> None:
        """Write all records to disk within seconds: what a kill of localaws must not lose."""
        self._save_wanted.set()

    def seconds(self, seconds_on_aws: float) -> float:
        """How long something takes here that takes `seconds_on_aws` on AWS."""
        return seconds_on_aws / self.time_scale

    def sleep(self, seconds_on_aws: float) -> bool:
        """Wait as long; false if localaws ends."""
        return not self._ended.wait(self.seconds(seconds_on_aws))

    def credentials(self, role_arn: str, service: str, session: str) -> dict[str, str]:
        """Environment variables with credentials of a session of a role.

        Args:
            role_arn: The role.
            service: Who acts under it, such as "sagemaker.amazonaws.com".
            session: The session's name.

        Raises:
            RoleError: There is no such role, or it does not trust the service.
        """
        iam = iam_backends[ACCOUNT]["aws"]
        try:
            role = iam.get_role_by_arn(role_arn)
        except NotFoundException as error:
            raise RoleError(f"there is no role {role_arn}") from error
        request = Request(
            "sts:AssumeRole",
            role_arn,
            {"aws:SourceAccount": ACCOUNT, "aws:SecureTransport": "true"},
            Principal(service, "Service"),
        )
        try:
            trusted = evaluate([], request, resource_policies=[_document(role)])
        except PolicyError as error:
            raise RoleError(f"the trust policy of {role_arn}: {error}") from error
        if not trusted.allowed:
            raise RoleError(f"{role_arn} does not trust {service}; its trust policy must allow it")
        with self.changing():
            assumed = sts_backends[ACCOUNT]["aws"].assume_role(
                region_name=REGION,
                role_session_name=session[:64],
                role_arn=role_arn,
                policy="",
                duration=_SESSION_SECONDS,
                external_id="",
            )
        return {
            "AWS_ACCESS_KEY_ID": assumed.access_key_id,
            "AWS_SECRET_ACCESS_KEY": assumed.secret_access_key,
            "AWS_SESSION_TOKEN": assumed.session_token,
        }

    def environment(self, credentials: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a process that acts under a role, and reaches no AWS but this.

        Args:
            credentials: What `credentials` gave.
        """
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {
            **inherited,
            # What is started finds this environment's programs: python3, torchrun, aws.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            **credentials,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            **shell.CLOSED,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def client(self, service: str, credentials: Mapping[str, str] | None = None) -> Any:
        """A boto3 client that reaches this localaws over HTTP, as AWS's own services do.

        Args:
            service: The service's name in boto3.
            credentials: What `credentials` gave; those of AWS itself if None.
        """
        keys = credentials or {}
        # A session reads the services' models once, and makes one client at a time.
        with self._session_lock:
            return self._session.client(
                service,
                region_name=REGION,
                endpoint_url=self.endpoint,
                aws_access_key_id=keys.get("AWS_ACCESS_KEY_ID", AWS),
                aws_secret_access_key=keys.get("AWS_SECRET_ACCESS_KEY", AWS_SECRET),
                aws_session_token=keys.get("AWS_SESSION_TOKEN"),
                config=Config(
                    retries={"total_max_attempts": 3},
                    max_pool_connections=32,
                    user_agent_extra=SERVICE_AGENT,
                ),
            )

    def publish(
        self, namespace: str, metrics: Iterable[Metric], time: datetime | None = None
    ) -> None:
        """Record values of CloudWatch metrics.

        Args:
            namespace: Such as "AWS/SageMaker".
            metrics: The values.
            time: When they were so; now if None.
        """
        now = time or datetime.now(UTC)
        data = [
            {
                "MetricName": metric.name,
                "Values": [metric.value],
                "Counts": [metric.count],
                "Unit": metric.unit,
                "Timestamp": now,
                "Dimensions": [
                    {"Name": name, "Value": value} for name, value in metric.dimensions.items()
                ],
            }
            for metric in metrics
        ]
        with self.changing():
            cloudwatch_backends[ACCOUNT][REGION].put_metric_data(namespace, data)

    def _save_when_wanted(self) -> None:
        while not self._ended.is_set():
            if self._save_wanted.wait(_SAVE_INTERVAL_SECONDS):
                self._save_wanted.clear()
                if not self._save():
                    self._save_wanted.set()  # The disk may have room again.
                time.sleep(_SAVE_INTERVAL_SECONDS)


_current: Execution | None = None


def running(kind: type[S]) -> S | None:
    """The service of a kind; None where localaws keeps records only."""
    return _current.service(kind) if _current else None


def _document(role: Any) -> Mapping[str, Any]:
    text = role.assume_role_policy_document
    content: Mapping[str, Any] = json.loads(text) if isinstance(text, str) else text
    return content

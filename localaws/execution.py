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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend
from moto.awslambda.models import LambdaBackend
from moto.cloudwatch.models import CloudWatchBackend, cloudwatch_backends
from moto.core.base_backend import BackendDict
from moto.ec2.models import EC2Backend
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends
from moto.sagemaker.models import SageMakerModelBackend
from moto.sts.models import sts_backends

from localaws import changes, regions, shell
from localaws.errors import LocalAwsError
from localaws.iam.policy import PolicyError, Principal, Request, evaluate
from localaws.processes import Running
from localaws.turnstile import waiting
from localaws.weather import SERVICE_AGENT, Weather

ACCOUNT = "123456789012"
REGION = regions.DEFAULT
ADMINISTRATOR = "test"
"""Access key of the account's administrator, who may do everything."""
AWS = "amazonaws"
"""Access key of AWS's own services, where they act under no role of the account."""
AWS_SECRET = secrets.token_hex(32)
"""Its secret: nobody outside of this process can be taken for AWS."""

_SERVICES = (
    "monitoring.alarms:Alarms",
    "functions.service:Functions",
    "functions.sources:EventSources",
    "hosting.endpoints:Endpoints",
    "instances:Instances",
    "jobs.processing:ProcessingJobs",
    "jobs.training:TrainingJobs",
    "jobs.transform:TransformJobs",
    "monitoring.scaling:Scaling",
    "rules:Rules",
    "jobs.tuning:TuningJobs",
)
# Whose records the services hold, and change without asking moto for them.
_RECORDS = (ApplicationAutoscalingBackend, CloudWatchBackend, LambdaBackend, SageMakerModelBackend)
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
    """The services that run something in one region, and what they need.

    Attributes:
        region: The region.
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
        weather: Weather,
    ) -> None:
        """Make the services; nothing runs yet.

        Args:
            endpoint: localaws' own address.
            folder: For what runs; emptied.
            time_scale: See the class.
            changing: Around changes that no request makes: none while the state is taken.
            weather: See `weather`.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.region = regions.current()
        self.endpoint = endpoint
        self.folder = folder
        self.time_scale = time_scale
        self.waiting = waiting
        """`with execution.waiting():` around what a request waits for: an endpoint's answer or a
        function's, which may itself call localaws. Change none of moto's objects inside."""
        self._changing = changing
        self.weather = weather
        """Says how what is started starts."""
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
        for service in self._services.values():
            service.resume()

    def stop(self) -> None:
        """End all that runs. The records go on saying that it runs."""
        self._ended.set()
        for service in self._services.values():
            service.stop()

    def service(self, kind: type[S]) -> S:
        """The service of a kind."""
        found = self._services[kind]
        assert isinstance(found, kind)  # noqa: S101 (tells the type)
        return found

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around each change of moto's objects that is made outside of a request; it is saved.

        Be quick inside: while the state is taken to be saved, nobody gets in.
        """
        with self._changing():
            for service in _RECORDS:
                changes.touch(service)
            yield

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
        require_trust(role_arn, service)
        with self._changing():
            assumed = sts_backends[ACCOUNT]["aws"].assume_role(
                region_name=self.region,
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
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
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
                region_name=self.region,
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
        with self._changing():
            cloudwatch_backends[ACCOUNT][self.region].put_metric_data(namespace, data)


def require_trust(role_arn: str, service: str, source_arn: str | None = None) -> None:
    """Ask a role whether a service may act under it.

    Args:
        role_arn: The role.
        service: Such as "sagemaker.amazonaws.com".
        source_arn: What the service acts for, where it tells.

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
        {
            "aws:SourceAccount": ACCOUNT,
            "aws:SecureTransport": "true",
            **({"aws:SourceArn": source_arn} if source_arn else {}),
        },
        Principal(service, "Service"),
    )
    try:
        trusted = evaluate([], request, resource_policies=[_document(role)])
    except PolicyError as error:
        raise RoleError(f"the trust policy of {role_arn}: {error}") from error
    if not trusted.allowed:
        raise RoleError(f"{role_arn} does not trust {service}; its trust policy must allow it")


class Executions(Running):
    """What runs in each region; made when a region is used first."""

    def __init__(self, folder: Path, make: Callable[[Path], Execution]) -> None:
        """Make none yet.

        Args:
            folder: For what runs; emptied.
            make: Makes the execution of the region that it is called in, with a folder of its own.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self._folder, self._make = folder, make
        self._lock = threading.RLock()
        self._of_region: dict[str, Execution] = {}

    def start(self) -> None:
        """Let every region take up what was running there; requests are answered already."""
        global _current
        _current = self
        used = {
            region
            for services in BackendDict._instances  # type: ignore[misc]
            if services.backend in (*_RECORDS, EC2Backend)
            for region in services[ACCOUNT]
        }
        for region in sorted({REGION, *used}):
            self.of(region)

    def stop(self) -> None:
        """End all that runs. The records go on saying that it runs."""
        global _current
        for execution in list(self._of_region.values()):
            execution.stop()
        _current = None

    def everywhere(self, kind: type[S]) -> list[S]:
        """The services of a kind, of all regions."""
        return [execution.service(kind) for execution in list(self._of_region.values())]

    def of(self, region: str) -> Execution:
        """What runs in a region."""
        with self._lock:
            execution = self._of_region.get(region)
            if execution is None:
                with regions.within(region):
                    execution = self._make(self._folder / region)
                    self._of_region[region] = execution
                    execution.start()
            return execution


_current: Executions | None = None


def running(kind: type[S]) -> S | None:
    """The service of a kind, in the region of this call; None where records only are kept."""
    return _current.of(regions.current()).service(kind) if _current else None


def everywhere(kind: type[S]) -> list[S]:
    """The services of a kind, of all regions; none where localaws keeps records only."""
    return _current.everywhere(kind) if _current else []


def _document(role: Any) -> Mapping[str, Any]:
    text = role.assume_role_policy_document
    content: Mapping[str, Any] = json.loads(text) if isinstance(text, str) else text
    return content

"""The instances of an endpoint: each a process of the inference server."""

import math
import random
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from localaws.execution import Execution, Metric
from localaws.hosting.containers import (
    ANSWER_SECONDS,
    Container,
    HostingError,
    Reply,
    UnreachableError,
)
from localaws.hosting.model_artifacts import OtherServerError, have_model
from localaws.hosting.output import Output
from localaws.hosting.records import Release, Variant
from localaws.hosting.variant_metrics import Meter
from localaws.processes import Running, processor_seconds

_STARTUP_SECONDS = 600
_POLL_SECONDS = 0.02
_QUICK_STOP_SECONDS = 2.0
_REST_SECONDS = 5.0

_UNHEALTHY = "The primary container for production variant {} did not pass the ping health check."

T = TypeVar("T")


def log_group(endpoint: str) -> str:
    """The log group of an endpoint's containers."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


class Instance(Running):
    """A container that serves a variant."""

    def __init__(self, fleet: "VariantFleet") -> None:
        """Start it."""
        self.id = f"i-{uuid.uuid4().hex[:17]}"
        self.outstanding = 0
        self._is_draining = False
        log = fleet.folder / f"{self.id}.log"
        self.container = Container(["serve"], log, fleet.environment, fleet.folder)
        self.output = Output(
            fleet.role.client("logs"), log_group(fleet.endpoint), f"{fleet.name}/{self.id}", log
        )

    @property
    def serves(self) -> bool:
        """Whether requests may be sent to it."""
        return not self._is_draining and not self.container.has_ended

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """See `Container.invoke`; one that cannot be reached gets no more requests."""
        try:
            return self.container.invoke(body, headers)
        except UnreachableError:
            self._is_draining = True
            raise

    def drain(self) -> None:
        """Take no more requests, answer those that are there, and end."""
        self._is_draining = True
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.outstanding and not self.container.has_ended and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self.container.stop()
        self.output.ship()

    def stop(self) -> None:
        """End it at once."""
        self._is_draining = True
        self.container.stop(_QUICK_STOP_SECONDS)
        self.output.ship()


class VariantFleet(Running):
    """The instances of one variant of one release."""

    def __init__(
        self, execution: Execution, endpoint: str, release: Release, variant: Variant, folder: Path
    ) -> None:
        """Have image and model as SageMaker has them, under the model's role; start nothing.

        Args:
            execution: For credentials and clients.
            endpoint: The endpoint's name.
            release: What the variant belongs to.
            variant: The variant.
            folder: Its own; it does not exist.

        Raises:
            HostingError: Image or model cannot be had.
        """
        settings = release.settings(variant)
        model = release.model(variant)
        self.name: str = variant["VariantName"]
        self.weight: float = variant["DesiredWeight"]
        self.size: int = variant.get("DesiredInstanceCount") or 1
        """How many instances it has outside of a release."""
        self.endpoint = endpoint
        self.folder = folder
        self.meter = Meter()
        self._startup_seconds = settings.get(
            "ContainerStartupHealthCheckTimeoutInSeconds", _STARTUP_SECONDS
        )
        # Held by who starts or ends instances; requests find their way meanwhile.
        self._scaling = threading.RLock()
        self.is_over = False
        """Whether it was ended, since something else takes its requests."""
        self._lock = threading.Lock()
        self._instances: list[Instance] = []
        self._wanted = 0
        self._rest_until = 0.0
        self._processor_seconds: dict[str, float] = {}
        self._processor_read = time.monotonic()
        try:
            self.role, self.environment = have_model(execution, model, folder)
        except OtherServerError as error:
            raise HostingError(f"{_UNHEALTHY.format(self.name)} ({error})") from error

    @property
    def instances(self) -> list[Instance]:
        """Those that requests may go to."""
        with self._lock:
            return [instance for instance in self._instances if instance.serves]

    @property
    def lacks_instances(self) -> bool:
        """Whether fewer serve than are wanted, and it is time to try again."""
        return len(self.instances) < self._wanted and time.monotonic() > self._rest_until

    def scale(self, count: int, told: Callable[[int], None] = lambda _: None) -> None:
        """Start or end instances until `count` serve.

        Args:
            count: How many.
            told: Called with the number of those that serve, each time that it changes.

        Raises:
            HostingError: One did not become healthy; those that did stay.
        """
        with self._scaling:
            self._wanted, self.is_over = count, not count
            serving = self.instances
            with self._lock:
                gone = [each for each in self._instances if each not in serving]
                self._instances = serving[:count]
            for instance in gone:
                instance.stop()
            if count < len(serving):
                told(count)
                _each(Instance.drain, serving[count:])
            else:
                _each(lambda _: self._start(told), range(count - len(serving)))

    def retreat(self, count: int, told: Callable[[int], None]) -> None:
        """Go back to at most `count`; what is missing is left to `repair`.

        Args:
            count: How many are to serve.
            told: See `scale`.
        """
        with self._scaling:
            self.scale(min(count, len(self.instances)), told)
            self._wanted, self.is_over = count, False

    def repair(self) -> None:
        """Replace instances that ended, unless it is being scaled already.

        Raises:
            HostingError: A new one did not become healthy.
        """
        if self._scaling.acquire(blocking=False):
            try:
                self.scale(self._wanted)
            finally:
                self._scaling.release()

    def _start(self, told: Callable[[int], None]) -> None:
        instance = Instance(self)
        try:
            instance.container.wait(self._startup_seconds)
        except HostingError as error:
            instance.stop()
            self._rest_until = time.monotonic() + _REST_SECONDS
            raise HostingError(
                f"{_UNHEALTHY.format(self.name)} Please check CloudWatch logs for this endpoint."
            ) from error
        with self._lock:
            self._instances.append(instance)
        told(len(self.instances))

    @contextmanager
    def taken(self) -> Iterator[Instance | None]:
        """The instance with the fewest requests, for one more; None if none serves."""
        with self._lock:
            chosen = min(
                (instance for instance in self._instances if instance.serves),
                # Without chance an idle fleet would always use its first instance.
                key=lambda instance: (instance.outstanding, random.random()),
                default=None,
            )
            if chosen:
                chosen.outstanding += 1
        self.meter.change(1)
        try:
            yield chosen
        finally:
            self.meter.change(-1)
            if chosen:
                with self._lock:
                    chosen.outstanding -= 1

    def ship_logs(self) -> None:
        """Send the new output of all instances to CloudWatch Logs."""
        with self._lock:
            instances = list(self._instances)
        for instance in instances:
            instance.output.ship()

    def request_metrics(self) -> list[Metric]:
        """What happened to its requests since the last call."""
        return self.meter.read(len(self.instances), self._dimensions)

    def processor_metrics(self) -> list[Metric]:
        """How busy each instance was since the last call, in per cent of one processor."""
        now, instances = time.monotonic(), self.instances
        seconds, self._processor_read = now - self._processor_read, now
        used = {each.id: processor_seconds(each.container.pid) for each in instances}
        former, self._processor_seconds = self._processor_seconds, used
        return [
            Metric(
                "CPUUtilization",
                max(0.0, 100 * (busy - former.get(name, 0.0)) / seconds),
                self._dimensions,
                "Percent",
            )
            for name, busy in used.items()
        ]

    @property
    def _dimensions(self) -> dict[str, str]:
        return {"EndpointName": self.endpoint, "VariantName": self.name}

    def drain(self) -> None:
        """End all instances; requests that they have are answered first."""
        self.scale(0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        """End all instances at once."""
        self._wanted = 0
        with self._lock:
            instances, self._instances = self._instances, []
        _each(Instance.stop, instances)


class Fleet(Running):
    """All instances of one release."""

    def __init__(self, execution: Execution, endpoint: str, release: Release, folder: Path) -> None:
        """Have images and models; start nothing.

        Args:
            execution: For credentials and clients.
            endpoint: The endpoint's name.
            release: What it serves.
            folder: Its own; it does not exist.

        Raises:
            HostingError: An image or a model cannot be had.
        """

        def made(variants: Iterable[Variant], name: str) -> list[VariantFleet]:
            return [
                VariantFleet(execution, endpoint, release, variant, folder / name / str(number))
                for number, variant in enumerate(variants)
            ]

        self._folder = folder
        self.release = release
        self.variants = made(release.variants, "production")
        self.shadows = made(release.shadows, "shadow")

    @property
    def all(self) -> list[VariantFleet]:
        """Of production and shadow variants."""
        return [*self.variants, *self.shadows]

    @property
    def described(self) -> list[tuple[VariantFleet, Variant]]:
        """Each variant with what `DescribeEndpoint` says of it."""
        variants = [*self.release.variants, *self.release.shadows]
        return list(zip(self.all, variants, strict=True))

    def scale(self, share: float, told: Callable[[Variant, int], None]) -> None:
        """Start or end instances until `share` of each variant's serve.

        Args:
            share: Of 1; a part of an instance counts as a whole.
            told: Called with variant and number of those that serve, each time that it changes.

        Raises:
            HostingError: One did not become healthy; those that did stay.
        """

        def scaled(pair: tuple[VariantFleet, Variant]) -> None:
            fleet, variant = pair
            # A share is a quotient of counts.
            count = math.ceil(fleet.size * share - 1e-9)
            fleet.scale(count, lambda serving: told(variant, serving))

        _each(scaled, self.described)

    def drain(self) -> None:
        """End all instances; requests that they have are answered first."""
        _each(VariantFleet.drain, self.all)
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """End all instances at once."""
        _each(VariantFleet.stop, self.all)


def _each(task: Callable[[T], None], things: Iterable[T]) -> None:
    """Do a task for all things at a time; raises what the first raises, once all are done."""
    listed = list(things)
    if len(listed) == 1:
        task(listed[0])
    elif listed:
        with ThreadPoolExecutor(len(listed)) as threads:
            for done in [threads.submit(task, thing) for thing in listed]:
                done.result()

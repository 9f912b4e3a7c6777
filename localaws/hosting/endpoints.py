"""Runs what SageMaker would host: a model's endpoint, and SageMaker's runtime in front of it."""

import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from moto.sagemaker.models import FakeEndpoint, sagemaker_backends
from urllib3 import HTTPHeaderDict

from localaws import regions
from localaws.execution import ACCOUNT, Execution, Service
from localaws.hosting import records
from localaws.hosting.capture import Capture, Exchange
from localaws.hosting.containers import (
    Connections,
    Container,
    HostingError,
    Reply,
    UnreachableError,
)
from localaws.hosting.fleets import Fleet, VariantFleet, log_group
from localaws.hosting.model_artifacts import Role
from localaws.hosting.output import complain
from localaws.hosting.records import Release, Variant
from localaws.hosting.rollout import Step, alarms, limit_seconds, steps
from localaws.hosting.variant_metrics import CONCURRENCY, missed_periods
from localaws.loopback import LOOPBACK, GuardedRequests, LoopbackServer
from localaws.processes import Running

MAX_BODY_BYTES = 6 * 2**20
"""What SageMaker takes as a request."""

_ALARM_SECONDS = 10
_METRIC_SECONDS = 10
_PROCESSOR_SECONDS = 60
_REPAIR_SECONDS = 0.2
_SHIP_SECONDS = 1.0
_SHADOWED_REQUESTS = 32
# A container, an alarm or localaws itself; a disk may be full.
_FAILURES = (HostingError, OSError, BotoCoreError, ClientError)


class InvocationError(Exception):
    """SageMaker's runtime refuses a request, or the container did.

    Attributes:
        status: HTTP status.
        kind: The error's name, such as "ModelError".
        content: The answer's members.
    """

    def __init__(self, status: int, kind: str, content: Mapping[str, object]) -> None:
        """Keep what the caller is to be told."""
        super().__init__(kind)
        self.status = status
        self.kind = kind
        self.content = content

    @classmethod
    def refusal(cls, message: str) -> "InvocationError":
        """A request that is wrong."""
        return cls(400, "ValidationError", {"Message": message})

    @classmethod
    def of_model(cls, endpoint: str, reply: Reply) -> "InvocationError":
        """A container's own error, or that there is no answer."""
        said = reply.body.decode(errors="replace")
        side = "client" if 400 <= reply.status < 500 else "server"
        return cls(
            424,
            "ModelError",
            {
                "Message": f"Received {side} error ({reply.status}) from primary with message"
                f' "{said}".',
                "OriginalStatusCode": reply.status,
                "OriginalMessage": said,
                "LogStreamArn": (
                    f"arn:aws:logs:{regions.current()}:{ACCOUNT}:log-group:{log_group(endpoint)}"
                ),
            },
        )


@dataclass(frozen=True)
class Answer:
    """The runtime's answer to a request."""

    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, reply: Reply, variant: str) -> "Answer":
        """A container's answer, as the runtime passes it on."""
        attributes = "X-Amzn-SageMaker-Custom-Attributes"
        return cls(
            reply.body,
            {
                "Content-Type": reply.headers.get("Content-Type", "application/octet-stream"),
                "x-Amzn-Invoked-Production-Variant": variant,
                **({attributes: reply.headers[attributes]} if attributes in reply.headers else {}),
            },
        )


class _EndedError(Exception):
    """localaws ends; what it was doing is taken up when it starts again."""


class _Hosted:
    """An endpoint that runs.

    Attributes:
        record: moto's.
        live: What serves; None until something does.
        incoming: What is to take its place; None where nothing is.
        traffic: Who gets the requests: fleets and their shares, which add up to 1.
        capture: Keeps requests and answers; None if they are not to be kept.
        working: Held by who changes fleets; one at a time.
        shadows: Sends copies of requests.
    """

    def __init__(self, record: FakeEndpoint) -> None:
        self.record = record
        self.live: Fleet | None = None
        self.incoming: Fleet | None = None
        self.traffic: tuple[tuple[Fleet, float], ...] = ()
        self.capture: Capture | None = None
        self.working = threading.Lock()
        self.shadows = ThreadPoolExecutor(2, thread_name_prefix="shadow")

    @property
    def name(self) -> str:
        name: str = self.record.endpoint_name
        return name

    @property
    def fleets(self) -> list[Fleet]:
        return [fleet for fleet in (self.live, self.incoming) if fleet]

    @property
    def variants(self) -> list[VariantFleet]:
        return [variant for fleet in self.fleets for variant in fleet.all]

    def choose(self, target: str) -> VariantFleet:
        """The variant for a request, by chance and weight or by name.

        Raises:
            InvocationError: There is none.
        """
        traffic = self.traffic
        if not traffic:
            raise _not_found(self.name)
        (fleet,) = random.choices([fleet for fleet, _ in traffic], [share for _, share in traffic])
        if target:
            for variant in fleet.variants:
                if variant.name == target:
                    return variant
            raise InvocationError.refusal(f"Variant {target} not found for Endpoint {self.name}.")
        weights = [variant.weight for variant in fleet.variants]
        if not any(weights):
            raise InvocationError.refusal(f"No variant of Endpoint {self.name} has a weight.")
        (variant,) = random.choices(fleet.variants, weights)
        return variant


class Endpoints(Service):
    """Runs the endpoints that were created through SageMaker.

    Requests find their way by `_Hosted.traffic` alone, so that no deployment holds them up.
    """

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self._hosted: dict[str, _Hosted] = {}
        self._ended = threading.Event()
        self._folders = count()
        self._requests_published = time.time()

    def resume(self) -> None:
        """Start what the records say is there; a release that was under way begins again."""
        for task, seconds in (
            (self._repair, _REPAIR_SECONDS),
            (self._ship, _SHIP_SECONDS),
            (self._publish_requests, self.execution.seconds(_METRIC_SECONDS)),
            (self._publish_processors, self.execution.seconds(_PROCESSOR_SECONDS)),
        ):
            self._start(self._repeat, task, seconds)
        for record in sagemaker_backends[ACCOUNT][regions.current()].endpoints.copy().values():
            if record.endpoint_status == "Deleting":
                self._start(self._delete, self._host(record))
            elif record.endpoint_status != "Failed":
                self._start(self._take_up, self._host(record))

    def stop(self) -> None:
        """End all containers; requests that they have get no answer."""
        self._ended.set()
        for hosted in self._running():
            hosted.traffic = ()
            for fleet in hosted.fleets:
                fleet.stop()
            hosted.shadows.shutdown(wait=False)
            self._write(hosted)

    def release(self, record: FakeEndpoint) -> None:
        """Bring into service what the record says is to be served."""
        hosted = self._hosted.get(record.endpoint_name) or self._host(record)
        self._start(self._release, hosted)

    def scale(self, record: FakeEndpoint) -> None:
        """Start and end instances as the record wants; weights hold at once."""
        hosted = self._hosted[record.endpoint_name]
        if hosted.live:
            for fleet, variant in hosted.live.described:
                fleet.weight = variant["DesiredWeight"]
        self._start(self._scale, hosted)

    def delete(self, record: FakeEndpoint) -> None:
        """End an endpoint, then its record; requests under way are answered."""
        hosted = self._hosted.get(record.endpoint_name) or self._host(record)
        self._start(self._delete, hosted)

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Answer a request.

        Args:
            name: The endpoint's.
            body: The request's.
            headers: The request's; their names are found in any case.

        Raises:
            InvocationError: It is refused, or the container did not answer with success.
        """
        started = time.perf_counter()
        hosted = self._hosted.get(name)
        if not hosted:
            raise _not_found(name)
        if len(body) > MAX_BODY_BYTES:
            raise InvocationError.refusal(
                "1 validation error detected: Value at 'body' failed to satisfy constraint:"
                f" Member must have length less than or equal to {MAX_BODY_BYTES}"
            )
        variant, reply = _ask(
            lambda: hosted.choose(headers.get("X-Amzn-SageMaker-Target-Variant", "")),
            body,
            headers,
            started,
        )
        self._shadow(hosted, body, headers)
        if not reply.is_success:
            raise InvocationError.of_model(name, reply)
        answer = Answer.of(reply, variant.name)
        if capture := hosted.capture:
            capture.add(variant.name, _exchange(body, headers, answer))
        return answer

    def _shadow(self, hosted: _Hosted, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a copy to shadow variants, as often as their weights say; answers are dropped."""
        if not hosted.live:
            return
        whole = sum(variant.weight for variant in hosted.live.variants)
        for shadow in hosted.live.shadows:
            busy = sum(instance.outstanding for instance in shadow.instances)
            if busy < _SHADOWED_REQUESTS and random.random() * whole < shadow.weight:
                hosted.shadows.submit(_ask_shadow, shadow, body, headers)

    # What changes an endpoint, each in a thread of its own.

    def _take_up(self, hosted: _Hosted) -> None:
        """Go on where the former localaws ended."""
        record = hosted.record
        if served := records.served(record):
            with hosted.working:
                try:
                    self._go_live(hosted, self._fleet(hosted, served))
                except _FAILURES as error:
                    self._change(records.fail, record, str(error))
                    return
            self._scale(hosted)
        if records.pending(record):
            if record.endpoint_status == "RollingBack":
                self._change(records.give_up, record, record.failure_reason)
            else:
                self._release(hosted)

    def _release(self, hosted: _Hosted) -> None:
        with hosted.working:
            release = records.pending(hosted.record)
            assert release  # noqa: S101 (tells the type)
            former, fleet = hosted.live, None
            try:
                self._await_instances(hosted.name)
                fleet = hosted.incoming = self._fleet(hosted, release)
                self._roll_out(hosted, fleet, former)
            except _FAILURES as error:
                if not self._ended.is_set():
                    self._take_back(hosted, fleet, former, str(error))
            else:
                self._change(records.finish, hosted.record)
                self._go_live(hosted, fleet)
                if former:
                    former.drain()

    def _await_instances(self, endpoint: str) -> None:
        """Wait until a release's instances are there.

        Raises:
            HostingError: They never will be.
        """
        start = self.execution.weather.start("endpoint", endpoint)
        if start.seconds and not self.execution.sleep(start.seconds):
            raise _EndedError
        if start.fault:
            raise HostingError(start.fault)

    def _roll_out(self, hosted: _Hosted, fleet: Fleet, former: Fleet | None) -> None:
        """Take a release's steps.

        Raises:
            HostingError: A container is not healthy, an alarm went off, or the time is over.
        """
        deployment = fleet.release.deployment if former else {}
        deadline = time.monotonic() + limit_seconds(deployment)
        watched = fleet.variants[0].role, alarms(deployment)
        largest = max(variant.size for variant in fleet.variants)
        for step in steps(deployment, largest):
            fleet.scale(step.up, self._count)
            hosted.traffic = (
                ((former, 1 - step.traffic), (fleet, step.traffic)) if former else ((fleet, 1.0),)
            )
            self._watch(step, deadline, *watched)
            if former and step.kept < 1:
                former.scale(step.kept, self._count)

    def _watch(self, step: Step, deadline: float, role: Role, names: Sequence[str]) -> None:
        left: float = step.wait_seconds
        while True:
            # Where there is no time to bake, nobody asks the alarms, not even once.
            if step.wait_seconds and (tripped := _tripped(role, names)):
                raise HostingError(
                    f"CloudWatch alarm(s) [{', '.join(tripped)}] went off during the deployment."
                )
            if time.monotonic() > deadline:
                raise HostingError("The deployment did not end within its maximum execution time.")
            if left <= 0:
                return
            pause = min(left, _ALARM_SECONDS)
            if not self.execution.sleep(pause):
                raise _EndedError
            left -= pause

    def _take_back(
        self, hosted: _Hosted, fleet: Fleet | None, former: Fleet | None, reason: str
    ) -> None:
        """Go on with the former release; as on AWS, the endpoint is in service again with it."""
        if former:
            self._change(records.roll_back, hosted.record, reason)
            try:
                former.scale(1.0, self._count)
            except _FAILURES as error:
                complain(f"endpoint {hosted.name}", error)
        hosted.incoming, hosted.traffic = None, ((former, 1.0),) if former else ()
        if fleet:
            fleet.drain()
        self._change(records.give_up, hosted.record, reason)

    def _scale(self, hosted: _Hosted) -> None:
        """Make the instances as many as the record wants."""
        if not hosted.live:
            return
        reason = None
        with hosted.working:
            for fleet, variant in hosted.live.described:
                former, fleet.size = fleet.size, variant.get("DesiredInstanceCount") or 1
                try:
                    fleet.scale(fleet.size, partial(self._count, variant))
                except _FAILURES as error:
                    reason, fleet.size = str(error), former
                    self._change(variant.update, {"DesiredInstanceCount": former})
                    fleet.retreat(former, partial(self._count, variant))
            if not records.pending(hosted.record):
                self._change(records.settle, hosted.record, reason)

    def _delete(self, hosted: _Hosted) -> None:
        with hosted.working:
            hosted.traffic = ()
            for fleet in hosted.fleets:
                fleet.drain()
            hosted.shadows.shutdown()
            self._write(hosted)
            del self._hosted[hosted.name]
            endpoints = sagemaker_backends[ACCOUNT][regions.current()].endpoints
            self._change(endpoints.pop, hosted.name, None)

    def _host(self, record: FakeEndpoint) -> _Hosted:
        hosted = self._hosted[record.endpoint_name] = _Hosted(record)
        return hosted

    def _fleet(self, hosted: _Hosted, release: Release) -> Fleet:
        folder = self.execution.folder / "endpoints" / str(next(self._folders))
        try:
            return Fleet(self.execution, hosted.name, release, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _go_live(self, hosted: _Hosted, fleet: Fleet) -> None:
        self._write(hosted)
        hosted.live, hosted.incoming, hosted.traffic = fleet, None, ((fleet, 1.0),)
        hosted.capture = _capture(hosted.name, fleet)

    def _change(self, change: Callable[..., object], *given: Any) -> None:
        """Change a record."""
        with self.execution.changing():
            change(*given)

    def _count(self, variant: Variant, serving: int) -> None:
        if "CurrentInstanceCount" in variant:
            self._change(variant.update, {"CurrentInstanceCount": serving})

    # What goes on all the time.

    def _start(self, task: Callable[..., None], *given: Any) -> None:
        def run() -> None:
            with suppress(_EndedError):
                task(*given)

        regions.Thread(target=run, daemon=True).start()

    def _repeat(self, task: Callable[[], None], seconds: float) -> None:
        while not self._ended.wait(seconds):
            # It has to go on, whatever a single endpoint does.
            try:
                task()
            except Exception as error:
                complain(task.__name__.strip("_"), error)

    def _running(self) -> list[_Hosted]:
        return list(self._hosted.values())

    def _repair(self) -> None:
        for hosted in self._running():
            for variant in hosted.variants:
                if variant.lacks_instances:
                    self._start(_repair, variant)

    def _ship(self) -> None:
        for hosted in self._running():
            for variant in hosted.variants:
                variant.ship_logs()
            self._write(hosted)

    def _write(self, hosted: _Hosted) -> None:
        if capture := hosted.capture:
            try:
                capture.write()
            except (BotoCoreError, ClientError) as error:
                complain(f"data capture of endpoint {hosted.name}", error)

    def _publish_requests(self) -> None:
        # On a busy machine this comes late; alarms still find a value in each period.
        now, length = time.time(), self.execution.seconds(_METRIC_SECONDS)
        missed = missed_periods(self._requests_published, now, length)
        self._requests_published = now
        for hosted in self._running():
            for fleet, _ in hosted.traffic:
                for variant in fleet.all:
                    metrics = variant.request_metrics()
                    self.execution.publish("AWS/SageMaker", metrics)
                    means = [metric for metric in metrics if metric.name == CONCURRENCY]
                    for began in missed:
                        self.execution.publish("AWS/SageMaker", means, began)

    def _publish_processors(self) -> None:
        for hosted in self._running():
            for variant in hosted.variants:
                self.execution.publish("/aws/sagemaker/Endpoints", variant.processor_metrics())


def _not_found(name: str) -> InvocationError:
    return InvocationError.refusal(f"Endpoint {name} of account {ACCOUNT} not found.")


def _ask(
    choose: Callable[[], VariantFleet], body: bytes, headers: Mapping[str, str], started: float
) -> tuple[VariantFleet, Reply]:
    """A container's answer.

    Args:
        choose: Gives the variant that is to answer.
        body: The request's.
        headers: The request's.
        started: When it came, by `time.perf_counter`.

    Raises:
        InvocationError: No instance serves.
    """
    while True:
        variant = choose()
        with variant.taken() as instance:
            # Another one has taken its place since it was chosen.
            if not instance and variant.is_over:
                continue
            asked = time.perf_counter()
            try:
                reply = instance.invoke(body, headers) if instance else Reply(503, b"")
            except UnreachableError:
                # It has not seen the request: another one may answer.
                continue
        answered = time.perf_counter()
        variant.meter.add(reply.status, answered - asked, asked - started)
        if not instance:
            message = f"No instance of variant {variant.name} is healthy. Try again later."
            raise InvocationError(503, "ServiceUnavailable", {"Message": message})
        return variant, reply


def _ask_shadow(shadow: VariantFleet, body: bytes, headers: Mapping[str, str]) -> None:
    def chosen() -> VariantFleet:
        if shadow.is_over:
            raise _not_found(shadow.name)
        return shadow

    with suppress(InvocationError):
        _ask(chosen, body, headers, time.perf_counter())


def _exchange(body: bytes, headers: Mapping[str, str], answer: Answer) -> Exchange:
    return Exchange(
        body=body,
        content_type=headers.get("Content-Type", ""),
        answer=answer.body,
        answer_type=answer.headers["Content-Type"],
        inference_id=headers.get("X-Amzn-SageMaker-Inference-Id", ""),
        custom_attributes=headers.get("X-Amzn-SageMaker-Custom-Attributes", ""),
    )


def _capture(endpoint: str, fleet: Fleet) -> Capture | None:
    described = fleet.release.capture
    if not described or not described["EnableCapture"]:
        return None
    return Capture(
        fleet.release.config.data_capture_config,
        described["CurrentSamplingPercentage"],
        endpoint,
        partial(fleet.variants[0].role.client, "s3"),
    )


def _tripped(role: Role, names: Sequence[str]) -> list[str]:
    """Which of these alarms went off."""
    if not names:
        return []
    cloudwatch = role.client("cloudwatch")
    alarms = cloudwatch.describe_alarms(AlarmNames=list(names))["MetricAlarms"]
    # Composite alarms are told only to who may describe all alarms.
    if others := sorted({*names} - {alarm["AlarmName"] for alarm in alarms}):
        composite = cloudwatch.describe_alarms(AlarmNames=others, AlarmTypes=["CompositeAlarm"])
        alarms += composite["CompositeAlarms"]
    return [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM"]


def _repair(variant: VariantFleet) -> None:
    try:
        variant.repair()
    except _FAILURES as error:
        complain(f"endpoint {variant.endpoint}", error)


class ServedEndpoint(Running):
    """The inference server, started from a model as SageMaker would start its container."""

    def __init__(
        self, model: Path, log: Path, options: Sequence[str] = (), start_seconds: float = 60.0
    ) -> None:
        """Start the server and wait until it answers `/ping` with 200.

        Args:
            model: Model archive, or folder that holds an unpacked one.
            log: File to which the server's output is appended.
            options: More flags for `python -m inference.server`.
            start_seconds: How long the start may take.

        Raises:
            HostingError: It ended, or was not ready in time.
        """
        here = ("--host", LOOPBACK, "--hosts", LOOPBACK, "--port", "0")
        self._container = Container(["--model", str(model), *here, *options], log)
        try:
            self._container.wait(start_seconds)
        except BaseException:
            self._container.kill()
            raise
        self.url = f"http://{LOOPBACK}:{self._container.port}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._container.pid

    def stop(self) -> None:
        """End the server: SIGTERM, and SIGKILL after 30 s."""
        self._container.stop()


class RuntimeGateway(Running):
    """SageMaker's runtime, `POST /endpoints/{name}/invocations`, for endpoints on this machine.

    boto3 uses it through `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME`.
    """

    def __init__(self, endpoints: Mapping[str, str]) -> None:
        """Serve `endpoints`, each name to the URL of its inference server."""
        addresses = {name: urlsplit(url) for name, url in endpoints.items()}
        connections = {
            name: Connections(address.hostname or LOOPBACK, address.port or 80)
            for name, address in addresses.items()
        }

        class Answering(GuardedRequests):
            def do_POST(self) -> None:
                body, name = self.body(), endpoint_name(urlsplit(self.path).path)
                try:
                    answer = _through(connections, name, body, HTTPHeaderDict(self.headers.items()))
                except InvocationError as error:
                    self.answer_json(error.status, error.content, {"x-amzn-ErrorType": error.kind})
                else:
                    self.answer(200, answer.body, answer.headers)

        self._server = LoopbackServer(Answering)
        self.url = f"http://{self._server.address}"

    def stop(self) -> None:
        """End the gateway; the endpoints go on."""
        self._server.stop()


def _through(
    connections: Mapping[str, Connections], name: str, body: bytes, headers: Mapping[str, str]
) -> Answer:
    if name not in connections:
        raise _not_found(name)
    try:
        reply = connections[name].invoke(body, headers)
    except UnreachableError:
        reply = Reply(0, b"")
    if not reply.is_success:
        raise InvocationError.of_model(name, reply)
    return Answer.of(reply, "AllTraffic")


def endpoint_name(path: str) -> str:
    """The endpoint that a path of SageMaker's runtime names; empty for another path."""
    parts = path.split("/")
    is_invocation = len(parts) == 4 and parts[1] == "endpoints" and parts[3] == "invocations"
    return unquote(parts[2]) if is_invocation else ""

"""The execution environments of one version of a function: on demand, and kept ready."""

import io
import os
import shutil
import threading
import time
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from localaws import regions
from localaws.execution import ACCOUNT, Execution, RoleError
from localaws.functions.environment import (
    ON_DEMAND,
    PROVISIONED,
    Environment,
    Event,
    Outcome,
    Program,
)
from localaws.functions.log import FunctionLog, LogStream
from localaws.functions.runtimes import Runtime
from localaws.iam.authorization import CredentialsError, caller_of, decide
from localaws.iam.policy import PolicyError, Request
from localaws.processes import Running

IDLE_SECONDS = 600.0
"""How long an environment stays warm on AWS, about."""
PROVISIONED_INIT_SECONDS = 130.0
"""What Lambda gives a function for its start where it is kept ready, at least."""

# Both together end well before a role's session does.
_CREDENTIALS_SECONDS = 4 * 3600.0
_LIFETIME_SECONDS = 4 * 3600.0
# More starts at once than processors would each take longer, and run into the limit of a start.
_STARTS = threading.BoundedSemaphore(os.cpu_count() or 1)


@dataclass
class Reserve:
    """Environments that are kept ready for one qualifier.

    Attributes:
        wanted: How many there should be.
        idle: Those that wait for an event.
        ready: How many have started and live, with those that answer.
        starting: How many are on their way.
        failed: Whether a start failed; no other is tried until the wish is renewed.
        most_busy: The most that answered at once since this was last set to 0.
    """

    wanted: int
    idle: list[Environment] = field(default_factory=list)
    ready: int = 0
    starting: int = 0
    failed: bool = False
    most_busy: int = 0

    @property
    def busy(self) -> int:
        """How many answer now."""
        return self.ready - len(self.idle)


@dataclass
class _Warm:
    environment: Environment
    since: float


class Fleet(Running):
    """The environments that run one version of a function."""

    def __init__(
        self, execution: Execution, config: Mapping[str, Any], code: bytes, runtime: Runtime
    ) -> None:
        """Unpack the code; nothing runs yet.

        Args:
            execution: Gives credentials and clients.
            config: What Lambda answers to `GetFunctionConfiguration`.
            code: The zip.
            runtime: What runs it.

        Raises:
            zipfile.BadZipFile: It is none.
        """
        self.config = config
        self._execution = execution
        self._runtime = runtime
        name = f"{config['RevisionId']}-{config['Version']}"
        self._folder = execution.folder / "functions" / name.replace("$", "")
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            archive.extractall(self._folder / "code")
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._idle: list[_Warm] = []
        self._reserves: dict[str, Reserve] = {}
        self._reserve_of: dict[Environment, Reserve] = {}
        self._streams: dict[Environment, LogStream] = {}
        self._ended: list[LogStream] = []
        self._retired = False
        self._credentials: dict[str, str] = {}
        self._credentials_until = 0.0
        self._logs: Any = None

    def invoke(self, event: Event, qualifier: str) -> tuple[Outcome, bool]:
        """Answer an event in an environment that is free, or in a new one.

        Args:
            event: The event.
            qualifier: What was called; what is kept ready for it is used first.

        Returns:
            What came of it, and whether an environment that is kept ready did it.

        Raises:
            RoleError: Lambda may not act under the function's role.
        """
        environment = self._take(qualifier)
        try:
            if environment is None:
                with _STARTS:
                    environment = self._start(ON_DEMAND)
                    environment.initialize()
            return environment.invoke(event), environment in self._reserve_of
        finally:
            if environment is not None:
                self._give_back(environment)

    def has_reserve(self, qualifier: str) -> bool:
        """Whether environments are kept ready for a qualifier."""
        return qualifier in self._reserves

    def reserves(self) -> dict[str, Reserve]:
        """What is kept ready, by qualifier."""
        return dict(self._reserves)

    def keep_ready(self, qualifier: str, wanted: int) -> None:
        """Keep as many environments ready for a qualifier; none if 0."""
        with self._lock:
            reserve = self._reserves.setdefault(qualifier, Reserve(wanted))
            if reserve.wanted != wanted:
                reserve.wanted, reserve.failed = wanted, False
            surplus = reserve.ready - wanted
            while reserve.idle and surplus > 0:
                surplus -= 1
                self._end(reserve.idle.pop())
            missing = 0 if reserve.failed else wanted - reserve.ready - reserve.starting
            reserve.starting += max(0, missing)
            if not wanted:
                del self._reserves[qualifier]
        for _ in range(missing):
            regions.Thread(target=self._add_to, args=(reserve,), daemon=True).start()

    def try_again(self, qualifier: str) -> None:
        """Start what is kept ready for a qualifier anew, where that failed."""
        if reserve := self._reserves.get(qualifier):
            reserve.failed = False

    def tidy(self) -> None:
        """End what was idle for long."""
        limit = time.monotonic() - self._execution.seconds(IDLE_SECONDS)
        with self._lock:
            for warm in [warm for warm in self._idle if warm.since < limit]:
                self._idle.remove(warm)
                self._end(warm.environment)
            for reserve in self._reserves.values():
                for environment in [e for e in reserve.idle if e.age > _LIFETIME_SECONDS]:
                    reserve.idle.remove(environment)
                    self._end(environment)

    def send_logs(self) -> None:
        """Bring what is new in the logs to CloudWatch Logs."""
        with self._sending:
            with self._lock:
                living, ended = list(self._streams.values()), self._ended
                self._ended = []
            for stream in living:
                stream.send()
            for stream in ended:
                stream.close()

    def stop(self) -> None:
        """End all environments: those that answer when they have."""
        with self._lock:
            self._retired = True
            for reserve in self._reserves.values():
                reserve.wanted = 0
            for environment in [warm.environment for warm in self._idle]:
                self._end(environment)
            for environment in [e for reserve in self._reserves.values() for e in reserve.idle]:
                self._end(environment)
            self._idle.clear()
            self._reserves.clear()

    @property
    def is_over(self) -> bool:
        """Whether all environments have ended, and all logs are sent."""
        return not self._streams and not self._ended

    def kill(self) -> None:
        """End all environments at once."""
        self.stop()
        for environment in list(self._streams):
            self._end(environment)
        shutil.rmtree(self._folder / "code", ignore_errors=True)

    def _take(self, qualifier: str) -> Environment | None:
        with self._lock:
            reserve = self._reserves.get(qualifier)
            if reserve and reserve.idle:
                environment = reserve.idle.pop()
                reserve.most_busy = max(reserve.most_busy, reserve.busy)
                return environment
            return self._idle.pop().environment if self._idle else None

    def _give_back(self, environment: Environment) -> None:
        with self._lock:
            reserve = self._reserve_of.get(environment)
            old = environment.age > _LIFETIME_SECONDS
            surplus = reserve is not None and reserve.ready > reserve.wanted
            if self._retired or surplus or old or not environment.usable:
                self._end(environment)
            elif reserve:
                reserve.idle.append(environment)
            else:
                self._idle.append(_Warm(environment, time.monotonic()))

    def _add_to(self, reserve: Reserve) -> None:
        """Start an environment that is kept ready."""
        environment = None
        seconds = max(PROVISIONED_INIT_SECONDS, self.config["Timeout"])
        with suppress(OSError, RoleError), _STARTS:
            if not self._retired and not reserve.failed:
                environment = self._start(PROVISIONED)
                environment.initialize(seconds)
        with self._lock:
            reserve.starting -= 1
            if environment is None:
                reserve.failed = not self._retired
                return
            self._reserve_of[environment] = reserve
            reserve.ready += 1
            if environment.is_ready and not self._retired and reserve.ready <= reserve.wanted:
                reserve.idle.append(environment)
            else:
                reserve.failed = reserve.failed or not environment.is_ready
                self._end(environment)

    def _start(self, initialization: str) -> Environment:
        unique = uuid.uuid4().hex
        today = datetime.now(UTC).strftime("%Y/%m/%d")
        name = f"{today}/[{self.config['Version']}]{unique}"
        logging = self.config["LoggingConfig"]
        log = FunctionLog(
            self._folder / "logs" / f"{unique}.log",
            logging["LogFormat"] == "JSON",
            logging.get("SystemLogLevel", "INFO"),
        )
        with self._lock:
            variables = self._variables()
            environment = Environment(
                Program(
                    name=self.config["FunctionName"],
                    version=self.config["Version"],
                    handler=self.config["Handler"],
                    code=self._folder / "code",
                    runtime=self._runtime,
                    variables=variables,
                    memory_mb=self.config["MemorySize"],
                    timeout_seconds=self.config["Timeout"],
                    log_group=logging["LogGroup"],
                ),
                log,
                name,
                self._folder / "tmp" / unique,
                initialization,
            )
            self._streams[environment] = LogStream(
                log,
                logging["LogGroup"],
                name,
                self._client_of_logs,
                self._may_create_group,
                self._execution.publish,
            )
        return environment

    def _end(self, environment: Environment) -> None:
        environment.stop()
        if reserve := self._reserve_of.pop(environment, None):
            reserve.ready -= 1
        if stream := self._streams.pop(environment, None):
            self._ended.append(stream)

    def _variables(self) -> dict[str, str]:
        logging = self.config["LoggingConfig"]
        levels = {
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_LEVEL": logging.get("ApplicationLogLevel", "INFO"),
        }
        credentials = self.credentials()
        return {
            **self._execution.environment(credentials),
            **self.config.get("Environment", {}).get("Variables", {}),
            **credentials,
            **(levels if logging["LogFormat"] == "JSON" else {}),
        }

    def credentials(self) -> dict[str, str]:
        """Credentials of a session of the function's role.

        Raises:
            RoleError: There is no such role, or it does not trust Lambda.
        """
        with self._lock:
            if time.monotonic() > self._credentials_until:
                self._credentials = self._execution.credentials(
                    self.config["Role"], "lambda.amazonaws.com", self.config["FunctionName"]
                )
                self._credentials_until = time.monotonic() + _CREDENTIALS_SECONDS
                self._logs = None
            return self._credentials

    def _client_of_logs(self) -> Any:
        if self._logs is None:
            self._logs = self._execution.client("logs", self.credentials())
        return self._logs

    def _may_create_group(self) -> bool:
        """Whether the role lets Lambda make the log group, asked even where IAM is not enforced.

        Otherwise a late line would bring back a group that was deleted with its function.
        """
        group = self.config["LoggingConfig"]["LogGroup"]
        arn = f"arn:aws:logs:{regions.current()}:{ACCOUNT}:log-group:{group}:*"
        with suppress(CredentialsError, PolicyError):
            caller = caller_of(self.credentials()["AWS_ACCESS_KEY_ID"])
            return decide(caller, Request("logs:CreateLogGroup", arn)).allowed
        return False

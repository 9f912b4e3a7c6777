"""A pytest plugin: moto's own tests, in its server mode, against localaws.

Each process of pytest-xdist has a server of its own. What differs from moto on purpose is in
`differences.toml`, and has to go on failing. What fails on moto's own server, too, is in
`fails_on_moto.txt`; with `AGAINST=moto` the tests run there, and the file is written anew.
"""

import json
import os
import re
import socket
import sys
import tempfile
import time
import tomllib
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import pytest
from botocore import auth
from botocore.client import BaseClient
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from localaws import execution, loopback, shell
from localaws.processes import ManagedProcess

AGAINST = os.environ.get("AGAINST") or "localaws"
_HERE = Path(__file__).parent
_DIFFERENCES = _HERE / "differences.toml"
_FAILS_ON_MOTO = _HERE / "fails_on_moto.txt"
_VERSION = f"moto {version('moto')}"
_SECONDS = 120
# What keys begin with that IAM and STS gave out. All others are made up by the tests.
_GIVEN_OUT = ("AKIA", "ASIA", "LSIA")
_NO_POLICIES = ("some policy", "test policy")
_SERVICES = [f"{name}.amazonaws.com" for name in ("codebuild", "lambda", "logs", "sagemaker")]
_TRUST = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": _SERVICES}}
_RIGHTS = {"Effect": "Allow", "Action": "*", "Resource": "*"}
# In small letters: no bucket can have this name.
_FAKE_BUCKET = "MyBucket"
_MADE_UP = re.compile(
    "Could not (assume role|access model data|find model data)"
    "|is not authorized to perform: sts:AssumeRole on"
)
_ROLE = re.compile(r":role(/(?:[\w.-]+/)*)([\w.-]+)")
_IN_BETWEEN = re.compile(
    r"update is in progress for resource|Cannot update in-progress endpoint"
    r"|Status \((Pending|Stopping|Updating|Deleting)\) not in"
)
_NO_KEY = re.compile("(?:RunInstances|Request.*) operation: The key pair '(.*)' does not exist")
_NO_ACLS = "AccessControlListNotSupported"
_ZONES = {"AvailabilityZone", "AvailabilityZoneId"}
_DESCRIBED = {
    "EndpointName": "DescribeEndpoint",
    "FunctionName": "GetFunctionConfiguration",
    "NotebookInstanceName": "DescribeNotebookInstance",
}
# Which of them a machine has is not what is tested.
_RUNTIMES = ",".join(f"python3.{minor}" for minor in range(9, 15))


def pytest_configure(config: pytest.Config) -> None:
    """Start this process's server."""
    if AGAINST not in ("localaws", "moto"):
        raise pytest.UsageError(f"AGAINST={AGAINST}: must be localaws or moto")
    noted_for = _FAILS_ON_MOTO.read_text().partition("\n")[0]
    if AGAINST == "localaws" and noted_for != _VERSION:
        raise pytest.UsageError(
            f"{_FAILS_ON_MOTO} is for {noted_for}, and {_VERSION} is installed: "
            "run `make test-moto AGAINST=moto`, then read what changed"
        )
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures())
        if config.getoption("numprocesses", None):
            return
    shell.leave()
    server = _Server()
    config.add_cleanup(server.stop)
    os.environ["TEST_SERVER_MODE_ENDPOINT"] = server.endpoint
    if AGAINST == "localaws":
        _sign_as_administrator()
        _sign_by_the_clock()
        _be_in_earnest()


class _Server:
    """What the tests of one process run against."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="moto-tests-")
        folder = Path(self._folder.name)
        if AGAINST == "localaws":
            program = [str(_HERE / "door.py"), "run", "--state", str(folder), "--save", "end"]
        else:
            program = ["-m", "moto.server", "--host", loopback.LOOPBACK]
        with socket.create_server((loopback.LOOPBACK, 0)) as free:
            port = free.getsockname()[1]
        # As moto's own tests have it.
        self.endpoint = f"http://localhost:{port}"
        log = folder / "log"
        # moto's tests set some for themselves, and localaws' images are those of no such setting.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MOTO_")}
        environment = {**kept, "LOCALAWS_STAND_IN": _RUNTIMES}
        command = [sys.executable, *program, "--port", str(port)]
        self._process = ManagedProcess(command, log, environment)
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.exit_code is not None:
                raise RuntimeError(f"{AGAINST} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with suppress(OSError), urlopen(f"{self.endpoint}/moto-api/data.json"):
            return True
        return False

    def stop(self) -> None:
        """End it, and forget what it holds."""
        self._process.kill()
        self._folder.cleanup()


def _sign_as_administrator() -> None:
    """Have what moto takes unseen, made-up keys, signed with one that localaws knows."""
    original = Credentials.__init__

    def init(self: Credentials, access_key: str, secret_key: str, *more: Any, **named: Any) -> None:
        if not access_key.startswith(_GIVEN_OUT):
            access_key = secret_key = execution.ADMINISTRATOR
        original(self, access_key, secret_key, *more, **named)

    Credentials.__init__ = init


def _sign_by_the_clock() -> None:
    """Have tests that stop the clock sign by the real one."""
    # freezegun does not find it in here.
    clock = datetime.now

    def now(remove_tzinfo: bool = True) -> datetime:
        found = clock(UTC)
        return found.replace(tzinfo=None) if remove_tzinfo else found

    auth.get_current_datetime = now


def _be_in_earnest() -> None:
    """Have what AWS asks for, where a test has made it up or does not wait for it.

    Without it the tests of Lambda and SageMaker would say nothing but that there is no such role.
    """
    original = BaseClient._make_api_call

    def call(self: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        if parameters.get("AssumeRolePolicyDocument") in _NO_POLICIES and operation == "CreateRole":
            parameters = {**parameters, "AssumeRolePolicyDocument": _policy(_TRUST)}
        if operation == "CreateModel":
            text = json.dumps(parameters).replace(_FAKE_BUCKET, _FAKE_BUCKET.lower())
            parameters = json.loads(text)
        if operation == "CreateSubnet" and not _ZONES & parameters.keys():
            # Not every one has every type of instance, and EC2 takes any.
            parameters = {**parameters, "AvailabilityZone": f"{self.meta.region_name}a"}
        for _ in range(_SECONDS):
            try:
                return original(self, operation, parameters)
            except ClientError as error:
                said = str(error)
                if operation.startswith("Create") and _MADE_UP.search(said):
                    _make_role(self, said)
                    _make_model(self)
                    break
                if _NO_ACLS in said and "Bucket" in parameters:
                    _allow_acls(self, parameters["Bucket"])
                    break
                if key := _NO_KEY.search(said):
                    original(self, "CreateKeyPair", {"KeyName": key[1]})
                    break
                if not _IN_BETWEEN.search(said):
                    raise
                # What is described goes on.
                for name in _DESCRIBED.keys() & parameters.keys():
                    original(self, _DESCRIBED[name], {name: parameters[name]})
                time.sleep(1)
        return original(self, operation, parameters)

    BaseClient._make_api_call = call


def _policy(statement: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _allow_acls(client: Any, bucket: str) -> None:
    """As all buckets did before April 2023."""
    rules = [{"ObjectOwnership": "ObjectWriter"}]
    client.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": rules})
    client.delete_public_access_block(Bucket=bucket)


def _make_role(client: BaseClient, said: str) -> None:
    iam = boto3.client("iam", "us-east-1", endpoint_url=client.meta.endpoint_url)
    for path, name in _ROLE.findall(said):
        given = {"Path": path, "RoleName": name}
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(**given, AssumeRolePolicyDocument=_policy(_TRUST))
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=_policy(_RIGHTS))


def _make_model(client: BaseClient) -> None:
    s3 = boto3.client("s3", "us-east-1", endpoint_url=client.meta.endpoint_url)
    s3.create_bucket(Bucket=_FAKE_BUCKET.lower())
    s3.put_object(Bucket=_FAKE_BUCKET.lower(), Key="model.tar.gz", Body=b"")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what fails on moto, too, and expect to fail what differs on purpose."""
    if AGAINST == "moto":
        return
    _, *failing = _FAILS_ON_MOTO.read_text().splitlines()
    tests = {item.nodeid for item in items}
    left_out = set(failing) & tests
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]
    named = _Differences(items)
    config.pluginmanager.register(named)
    # A test that is named alone says nothing about the others of its file.
    if any("::" in argument for argument in config.args):
        return
    collected = {name.partition("::")[0] for name in tests}
    for file, names in (
        (_DIFFERENCES, named.unused),
        (_FAILS_ON_MOTO, sorted(set(failing) - tests)),
    ):
        if stale := [name for name in names if name.partition("::")[0] in collected]:
            raise pytest.UsageError(f"{file} names no test of moto's: {', '.join(stale)}")


class _Differences:
    """Holds the tests that differ on purpose to how they do."""

    def __init__(self, items: Sequence[pytest.Item]) -> None:
        self._of_test: dict[str, dict[str, Any]] = {}
        self.unused: list[str] = []
        tests = {item.nodeid for item in items}
        for difference in tomllib.loads(_DIFFERENCES.read_text())["difference"]:
            told = f"{difference['reason']} ({difference['source']})"
            difference = {"may_pass": False, **difference, "told": told}
            for name in difference["tests"]:
                pattern = re.compile(re.escape(name).replace(r"\*", ".*"))
                matching = filter(pattern.fullmatch, tests) if "*" in name else {name} & tests
                found = dict.fromkeys(matching, difference)
                self._of_test |= found
                if not found:
                    self.unused.append(name)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take the failure that is described for an expected one."""
        report = yield
        if difference := self._of_test.get(item.nodeid):
            is_over = report.passed and report.when == "call" and not difference["may_pass"]
            if is_over or report.skipped:
                does = "is skipped" if report.skipped else "passes"
                report.outcome = "failed"
                report.longrepr = f"it {does}: strike it from {_DIFFERENCES.name}"
            elif call.excinfo and re.search(
                difference["says"], call.excinfo.exconly(tryshort=True)
            ):
                report.outcome = "skipped"
                report.wasxfail = difference["told"]
        return report


class _Failures:
    """Writes down what fails on moto."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if AGAINST == "moto" and session.config.args_source.name != "ARGS":
            _FAILS_ON_MOTO.write_text("\n".join([_VERSION, *sorted(self._failed)]) + "\n")

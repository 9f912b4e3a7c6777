import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from localaws.functions.service import InvocationResult, LambdaFunction

FUNCTION = """
import os, sys, time
def handler(event, context):
    print("event", event["do"][:20])
    if event["do"] == "fail":
        raise ValueError("what failed")
    if event["do"] == "exit":
        os._exit(3)
    if event["do"] == "sleep":
        time.sleep(event["seconds"])
    if event["do"] == "environment":
        return dict(os.environ)
    if event["do"] == "context":
        return {
            "name": context.function_name,
            "arn": context.invoked_function_arn,
            "memory": context.memory_limit_in_mb,
            "milliseconds": context.get_remaining_time_in_millis(),
        }
    return event["do"]
"""

Start = Callable[..., LambdaFunction]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "function.log"


@pytest.fixture
def start(tmp_path: Path, log: Path) -> Iterator[Start]:
    functions: list[LambdaFunction] = []

    def start(
        code: str = FUNCTION, timeout_seconds: float = 20.0, init_seconds: float = 20.0
    ) -> LambdaFunction:
        package = tmp_path / "function.zip"
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("main.py", code)
        function = LambdaFunction(
            package,
            "main.handler",
            log,
            {"SETTING": "given", "AWS_REGION": "mars-1"},
            timeout_seconds=timeout_seconds,
            init_seconds=init_seconds,
        )
        functions.append(function)
        return function

    yield start
    for function in functions:
        function.stop()


def error_type(result: InvocationResult) -> str:
    assert result.payload is None
    assert result.error is not None
    return str(result.error["errorType"])


def test_a_function_starts_once_and_stays_warm(start: Start, log: Path) -> None:
    function = start()
    first, second = function.invoke({"do": "first"}), function.invoke({"do": "second"})
    assert (first.payload, second.payload) == ("first", "second")
    assert (first.cold, second.cold) == (True, False)
    assert first.error is second.error is None
    text = log.read_text()
    assert [text.count(f"{word} RequestId: ") for word in ("START", "END", "REPORT")] == [2, 2, 2]
    assert text.count("Init Duration: ") == 1
    assert "event first" in text


def test_large_events_and_answers_arrive_whole(start: Start) -> None:
    large = "x" * 5_000_000
    assert start().invoke({"do": large}).payload == large


def test_an_error_is_reported_and_the_function_stays_warm(start: Start) -> None:
    function = start()
    result = function.invoke({"do": "fail"})
    assert error_type(result) == "ValueError"
    assert (result.error or {})["errorMessage"] == "what failed"
    assert not function.invoke({"do": "go on"}).cold


def test_a_crash_is_reported_and_the_function_starts_anew(start: Start) -> None:
    function = start()
    result = function.invoke({"do": "exit"})
    assert error_type(result) == "Runtime.ExitError"
    assert "exit status 3" in (result.error or {})["errorMessage"]
    again = function.invoke({"do": "go on"})
    assert (again.payload, again.cold) == ("go on", True)


def test_a_time_out_kills_the_function_and_it_starts_anew(start: Start, log: Path) -> None:
    function = start(timeout_seconds=1.0)
    result = function.invoke({"do": "sleep", "seconds": 1000})
    assert error_type(result) == "Sandbox.Timedout"
    assert (result.error or {})["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert "Task timed out after 1.00 seconds" in log.read_text()
    again = function.invoke({"do": "go on"})
    assert (again.payload, again.cold) == ("go on", True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import no_such_module", "Runtime.ImportModuleError"),
        ("handler = 1 +", "Runtime.UserCodeSyntaxError"),
        ("import os; os._exit(5)", "Runtime.ExitError"),
    ],
)
def test_a_failed_start_is_reported_and_tried_again(start: Start, code: str, kind: str) -> None:
    function = start(code)
    for _ in range(2):
        result = function.invoke({})
        assert error_type(result) == kind
        assert result.cold


def test_a_start_that_takes_too_long(start: Start) -> None:
    code = "import time; time.sleep(1000)"
    result = start(code, timeout_seconds=1.0, init_seconds=1.0).invoke({})
    assert error_type(result) == "Sandbox.Timedout"


def test_the_environment_is_lambdas_own(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the user's own")
    environment = start().invoke({"do": "environment"}).payload
    assert environment["SETTING"] == "given"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "kennel"
    assert "AWS_SESSION_TOKEN" not in environment


def test_the_context_is_lambdas_own(start: Start) -> None:
    function = start(timeout_seconds=20.0)
    context = function.invoke({"do": "context"}).payload
    assert context["name"] == "kennel"
    assert context["arn"] == function.arn
    assert context["memory"] == "512"
    assert 0 < context["milliseconds"] <= 20_000


def test_calls_from_many_threads_take_turns(start: Start) -> None:
    function = start()
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda n: function.invoke({"do": str(n)}), range(8)))
    assert [result.payload for result in results] == [str(n) for n in range(8)]
    assert sum(result.cold for result in results) == 1


def test_stopping_leaves_nothing_behind(start: Start) -> None:
    function = start()
    environment = function.invoke({"do": "environment"}).payload
    code = Path(environment["LAMBDA_TASK_ROOT"])
    assert code.is_dir()
    function.stop()
    function.stop()
    assert not code.exists()
    assert not [
        child for child in psutil.Process().children(recursive=True) if child.cwd() == str(code)
    ]

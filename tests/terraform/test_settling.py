"""What SageMaker changes is waited for before it is changed or deleted."""

from pathlib import Path
from typing import Any

import pytest

from terraform.cli import settling, stack
from tests.localaws.conftest import LocalAws
from trainer.errors import KennelError
from trainer.target import Target

RESOURCES = [
    (settling.ENDPOINT, "endpoint"),
    ("aws_sagemaker_notebook_instance", "notebook"),
    ("aws_sagemaker_model", "model"),
]


def states_of(monkeypatch: pytest.MonkeyPatch, states: dict[str, list[str]]) -> list[float]:
    """Let SageMaker give these states one after the other; give the pauses between the looks."""

    class SageMaker:
        def describe_endpoint(self, EndpointName: str) -> Any:
            return {"EndpointStatus": states[EndpointName].pop(0)}

        def describe_notebook_instance(self, NotebookInstanceName: str) -> Any:
            return {"NotebookInstanceStatus": states[NotebookInstanceName].pop(0)}

    slept: list[float] = []
    monkeypatch.setattr(Target, "client", lambda *_: SageMaker())
    monkeypatch.setattr(settling.time, "sleep", slept.append)
    return slept


def test_what_changes_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {
        "endpoint": ["Creating", "SystemUpdating", "Updating", "RollingBack", "Failed"],
        "notebook": ["Pending", "InService"],
    }
    slept = states_of(monkeypatch, states)
    settling.wait(Target("kennel", "dev", "us-east-1"), RESOURCES)
    assert (states, len(slept)) == ({"endpoint": [], "notebook": []}, 5)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "waiting for endpoint, which is Creating",
        "waiting for notebook, which is Pending",
    ]


def test_what_goes_on_changing_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    states_of(monkeypatch, {"endpoint": ["Updating"]})
    with pytest.raises(KennelError, match=r"^endpoint is still Updating after 0 minutes: give"):
        settling.wait(Target("kennel", "dev", "us-east-1"), RESOURCES, seconds=-1)


def test_an_alias_that_lambda_moves_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[dict[str, Any]] = [
        {"FunctionVersion": "2", "RoutingConfig": {"AdditionalVersionWeights": {"1": 1.0}}},
        {"FunctionVersion": "2"},
    ]

    class Lambda:
        def get_alias(self, FunctionName: str, Name: str) -> Any:
            assert (FunctionName, Name) == ("kennel-dev", "live")
            return answers.pop(0)

    monkeypatch.setattr(Target, "parameter", lambda *_: "kennel-dev")
    monkeypatch.setattr(Target, "client", lambda *_: Lambda())
    monkeypatch.setattr(Lambda, "exceptions", Lambda, raising=False)
    monkeypatch.setattr(Lambda, "ResourceNotFoundException", LookupError, raising=False)
    monkeypatch.setattr(settling.time, "sleep", lambda _: None)
    settling.wait_for_alias(Target("kennel", "dev", "us-east-1"))
    assert not answers
    assert capsys.readouterr().err.startswith(
        "waiting for kennel-dev, which is moving to version 2: Lambda makes its environments ready"
    )


def test_what_is_not_there_is_not_waited_for(
    localaws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in localaws.environment.items():
        monkeypatch.setenv(name, value)
    settling.wait(Target("kennel", "dev", "us-east-1"), RESOURCES)
    settling.wait_for_alias(Target("kennel", "dev", "us-east-1"))


@pytest.mark.parametrize(
    "said",
    [
        "Cannot update in-progress\n│ endpoint",
        "InvalidParameterValueException: Alias with weights can\nnot be used with Provisioned",
    ],
)
def test_a_refusal_that_passes_is_told_from_others(said: str) -> None:
    assert settling.refused(said)
    assert not settling.refused("AccessDenied")


def test_a_plan_is_made_once_nothing_changes_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A release that Ctrl-C has left alone ends first: its end is what the plan starts from."""
    order: list[str] = []
    monkeypatch.setattr(settling, "wait", lambda *_: order.append("endpoint"))
    monkeypatch.setattr(settling, "wait_for_alias", lambda *_: order.append("alias"))
    monkeypatch.setattr(stack, "_plan", lambda *_, **__: order.append("plan"))
    monkeypatch.setattr(Target, "parameter", lambda *_: "kennel-dev")
    serving = stack.Stack("serving", Target("kennel", "dev", "us-east-1"), tmp_path)
    stack.apply(serving, None, (), approved=True)
    assert order[:3] == ["endpoint", "alias", "plan"]

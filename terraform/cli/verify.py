"""`make verify`: whether what serves is what was deployed, and answers as it should.

SageMaker rolls a release back by itself and says so nowhere that Terraform looks: an endpoint that
is in service may run another configuration than the one that was applied.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from terraform.cli import function, model, settling, smoke, stack
from terraform.cli.model import Archive
from terraform.cli.page import Page
from terraform.cli.stack import Stack
from trainer.errors import KennelError, UsageError
from trainer.make_command import make_command
from trainer.target import Target, explained, load


@dataclass(frozen=True)
class Check:
    """One row of the report.

    Attributes:
        name: What was looked at.
        passed: Whether it is as it should be.
        found: What was found, in a line.
        remedy: What to do; empty where nothing need be done.
    """

    name: str
    passed: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of a deployment.

    Attributes:
        digest: The model that should serve.
        checks: The rows, in the order in which a request passes what they look at.
    """

    digest: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return not self.fault

    @property
    def fault(self) -> str:
        """What failed, in a line; empty if nothing did."""
        return "; ".join(f"{row.name}: {row.found}" for row in self.checks if not row.passed)


@dataclass(frozen=True)
class _Deployment:
    """What the checks look at.

    Attributes:
        target: The environment.
        outputs: Outputs of `serving`.
        endpoint: The endpoint as SageMaker describes it; empty if there is none.
        smoke: The picture with a known answer.
        answer: What the service answered to it; None if it could not be asked.
        unasked: Why it could not be asked.
    """

    target: Target
    outputs: Mapping[str, Any]
    endpoint: dict[str, Any]
    smoke: smoke.Smoke
    answer: function.Answer | None
    unasked: str = ""

    @property
    def fault(self) -> str | None:
        """Why there are no predictions."""
        return self.answer.failure if self.answer else self.unasked


def run(options: argparse.Namespace, _: list[str]) -> int:
    """Verify a deployment, print the report, and fail if anything is not as it should be."""
    serving = Stack("serving", load(options.env), options.out, sys.stderr)
    stack.prepare(serving)
    outputs = stack.outputs(serving)
    report = check(serving.target, outputs)
    show(report, serving.target, options.json)
    if not report.passed:
        raise KennelError(f"{report.fault} ({way_back(report, outputs, serving.target)})")
    if not options.json:
        sys.stderr.write(f"next: {make_command('status', serving.target.name)}\n")
    return 0


def way_back(report: Report, outputs: Mapping[str, Any], target: Target) -> str:
    """How to go back from what a report finds fault with, if there is anything to go back to."""
    for row in report.checks:
        if row.name == "configuration" and not row.passed:
            return row.remedy
    if outputs.get("previous_model"):
        return f"`{make_command('rollback', target.name)}` goes back"
    return "there is no former model to go back to"


def check(target: Target, outputs: Mapping[str, Any]) -> Report:
    """Look at all that a deployment consists of.

    Args:
        target: The environment.
        outputs: What was deployed: the outputs of `serving`.

    Raises:
        UsageError: No model has been in service.
    """
    if "model" not in outputs:
        raise UsageError(
            f"no model has been in service: `{make_command('deploy', target.name)}` deploys "
            "what was trained last"
        )
    digest, endpoint = outputs["model"]["digest"], settling.live(target)
    # Of the model that serves: after a rollback, too, it is to be seen whether that one is well.
    archive = Archive(
        target.required_parameter("bucket"),
        served(target, endpoint["EndpointConfigName"])["digest"] if endpoint else digest,
    )
    picture = smoke.of(archive, target)
    answer, unasked = None, ""
    try:
        with explained():
            answer = function.call(target, {"image": picture.image})
    except KennelError as error:
        unasked = str(error)
    found = _Deployment(target, outputs, endpoint, picture, answer, unasked)
    return Report(digest, tuple(look(found) for look in _CHECKS))


def variants(target: Target, configuration: str) -> list[dict[str, Any]]:
    """Production variants of an endpoint's configuration."""
    described = target.client("sagemaker").describe_endpoint_config(
        EndpointConfigName=configuration
    )
    found: list[dict[str, Any]] = described["ProductionVariants"]
    return found


def container(target: Target, model_name: str) -> dict[str, Any]:
    """What a model of SageMaker consists of: `ModelDataUrl`, `Image` and more."""
    described = target.client("sagemaker").describe_model(ModelName=model_name)
    found: dict[str, Any] = described["PrimaryContainer"]
    return found


def served(target: Target, configuration: str) -> dict[str, str]:
    """The model of an endpoint's configuration, as the stack's outputs name one."""
    described = container(target, variants(target, configuration)[0]["ModelName"])
    archive = model.locate(described["ModelDataUrl"], target)
    return {"archive_uri": archive.uri, "digest": archive.digest, "image_uri": described["Image"]}


def alarms(target: Target) -> dict[str, str]:
    """State of each of the environment's alarms by name, those of autoscaling left out."""
    pages = (
        target.client("cloudwatch")
        .get_paginator("describe_alarms")
        .paginate(AlarmNamePrefix=f"{target.prefix}-", AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    )
    return {
        alarm["AlarmName"]: alarm["StateValue"]
        for page in pages
        for alarm in [*page.get("MetricAlarms", []), *page.get("CompositeAlarms", [])]
    }


def provisioned(target: Target, function_name: str) -> dict[str, Any]:
    """Provisioned concurrency of the alias; empty if there is none."""
    client = target.client("lambda")
    try:
        described: dict[str, Any] = client.get_provisioned_concurrency_config(
            FunctionName=function_name, Qualifier=function.ALIAS
        )
    except client.exceptions.ProvisionedConcurrencyConfigNotFoundException:
        return {}
    return described


def show(report: Report, target: Target, as_json: bool) -> None:
    """Print a report as a table, or as JSON."""
    if as_json:
        content = {
            "digest": report.digest,
            "passed": report.passed,
            "checks": [asdict(row) for row in report.checks],
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    page = Page()
    listed = [
        (row.name, "pass" if row.passed else "FAIL", page.told(row.found, row.remedy))
        for row in report.checks
    ]
    styles = {"pass": "green", "FAIL": "red"}
    page.rows(f"{target.prefix}: model {report.digest[:12]}", listed, styles)


def _in_service(found: _Deployment) -> Check:
    status = found.endpoint.get("EndpointStatus", "there is no endpoint")
    reason = found.endpoint.get("FailureReason", "")
    logs = f"`{make_command('logs', found.target.name, WHAT='endpoint')}` shows why"
    if status == "InService":
        return Check("endpoint", True, status)
    if settling.runs(found.endpoint, found.outputs["endpoint_configuration_name"]):
        return Check("endpoint", True, f"{status}: serves, while its instances change")
    return Check("endpoint", False, f"{status}: {reason}" if reason else status, logs)


def _configuration(found: _Deployment) -> Check:
    planned = found.outputs["endpoint_configuration_name"]
    if not found.endpoint:
        remedy = f"`{make_command('apply', found.target.name, STACK='serving')}` makes it again"
        return Check("configuration", False, f"nothing runs {planned}", remedy)
    runs = found.endpoint["EndpointConfigName"]
    if runs == planned:
        return Check("configuration", True, runs)
    return Check(
        "configuration",
        False,
        f"runs {runs}, applied was {planned}: SageMaker rolled the release back",
        f"`{make_command('rollback', found.target.name)}` makes what serves the applied one",
    )


def _function(found: _Deployment) -> Check:
    if found.answer is None or found.fault:
        remedy = f"`{make_command('logs', found.target.name, WHAT='function')}` shows why"
        return Check("function", False, str(found.fault), remedy)
    return Check("function", True, f"answers in {found.answer.round_trip_ms:.0f} ms")


def _model(found: _Deployment) -> Check:
    if found.answer is None or found.fault:
        return Check("model", False, "no answer")
    digest, expected = found.answer.body["model"]["digest"], found.outputs["model"]["digest"]
    if digest == expected:
        return Check("model", True, found.answer.body["model"]["name"])
    return Check(
        "model",
        False,
        f"{digest[:12]} answers, deployed was {expected[:12]}",
        f"`{make_command('status', found.target.name)}` shows what serves",
    )


def _smoke(found: _Deployment) -> Check:
    if found.answer is None or found.fault:
        return Check("smoke image", False, "no answer")
    fault = found.smoke.fault(found.answer)
    if fault is None:
        return Check("smoke image", True, f"{found.smoke.label} ({found.smoke.probability:.3f})")
    image = make_command("image", found.target.name)
    remedy = f"bring the serving image up to date: `{image}`, deploy again"
    return Check("smoke image", False, fault, remedy)


def _alarms(found: _Deployment) -> Check:
    states = alarms(found.target)
    loud = sorted(name for name, state in states.items() if state == "ALARM")
    if loud:
        return Check("alarms", False, ", ".join(loud), "the alarms' descriptions say where to look")
    return Check("alarms", True, f"{len(states)}, none is on")


def _provisioned(found: _Deployment) -> Check:
    described = provisioned(found.target, found.outputs["function_name"])
    if not described:
        return Check("warm environments", True, "none are asked for")
    counts = (
        f"{described.get('AvailableProvisionedConcurrentExecutions', 0)} of "
        f"{described['RequestedProvisionedConcurrentExecutions']} {described['Status']}"
    )
    reason = described.get("StatusReason", "")
    if described["Status"] == "READY":
        return Check("warm environments", True, counts)
    return Check(
        "warm environments",
        False,
        f"{counts} {reason}".strip(),
        "wait if they are in progress; else raise the account's quota of concurrent executions",
    )


_CHECKS: tuple[Callable[[_Deployment], Check], ...] = (
    _in_service,
    _configuration,
    _function,
    _model,
    _smoke,
    _alarms,
    _provisioned,
)

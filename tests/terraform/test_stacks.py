"""Both stacks, applied for real: made, planned again, given a second model, changed, destroyed.

All of it happens once, in `cycle`, through `make` and python-terraform, as users do it; the tests
look at what was seen on the way.
"""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from python_terraform import IsFlagged, Terraform

from lambda_src.build import build
from terraform.cli import binary, job_logs
from tests.archives import make_archive
from tests.localaws.conftest import until
from tests.outside import Outside
from tests.terraform.conftest import attach
from tests.terraform.iam_calls import refused

# Most of it is waiting: for the provider, which waits for AWS, and for other tests beside this one.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
SCALING = {
    "min_capacity": 2,
    "max_capacity": 6,
    "target": 40,
    "scale_in_cooldown_s": 60,
    "scale_out_cooldown_s": 10,
}
# What `serving` reads of what the foundation leaves in Parameter Store.
HANDOVER = set(
    re.findall(r"local\.foundation\.(\w+)", (ROOT / "terraform/stacks/serving/main.tf").read_text())
)
LAMBDA = {"provisioned_concurrency": {"executions": 3}, "reserved_concurrency": 20}


@dataclass
class Cycle:
    """What was seen on the way."""

    costs: str = ""
    """What `make` said the serving stack costs."""
    second_model: dict[str, str] = field(default_factory=dict)
    """What Terraform said that it would do to which address."""
    plans: dict[str, "Plan"] = field(default_factory=dict)
    configurations: dict[str, str] = field(default_factory=dict)
    """The endpoint's configuration as SageMaker describes it, after each deployment."""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Outputs of `serving` after each deployment."""
    numbers: dict[str, int] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    """What localaws was asked for after `make bootstrap`."""
    budget: dict[str, Any] = field(default_factory=dict)
    """The foundation's budget."""
    refusal: str = ""
    """What the foundation says where it lacks a network."""
    outside: list[str] = field(default_factory=list)
    """What became of all else that their shell led to."""
    policies: list[dict[str, Any]] = field(default_factory=list)
    """The deploy role's policies."""


@dataclass(frozen=True)
class Plan:
    exit_code: int
    """Of `-detailed-exitcode`: 0 for nothing to do, 2 for changes."""
    changes: dict[str, str]
    """Actions by address, as in `{"module.endpoint.aws_sagemaker_endpoint.this": "update"}`."""
    warned: tuple[str, ...] = field(default=(), compare=False)
    """The checks that do not hold, as in `check.somebody_is_told`."""


class Operator:
    """Someone at a terminal, with a localaws and an output folder of their own.

    Their shell leads elsewhere, which nothing that they do heeds.
    """

    def __init__(self, out: Path, provider: dict[str, str], shell: Outside) -> None:
        self._provider = provider
        self._shell = shell
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.out = out
        self.attached: dict[str, str] = {}
        """What makes Terraform talk to a provider that runs already, once it does."""
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def make(self, target: str, **variables: object) -> str:
        """Give what `make` prints; fail with all of it where it fails."""
        given = {
            "ENV": "local",
            "YES": 1,
            "OUT": self.out,
            "LOCALAWS_PORT": self._port,
            **variables,
        }
        found = {name: value for name, value in self._provider.items() if name.startswith("TF_")}
        run = subprocess.run(
            ["make", target, *(f"{name}={value}" for name, value in given.items())],
            cwd=ROOT,
            # Old instances are kept for minutes on AWS.
            env={**self._shell.environ, **found, "LOCALAWS_TIME_SCALE": "60"},
            text=True,
            capture_output=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    @contextmanager
    def provider(self, folder: Path) -> Iterator[dict[str, str]]:
        """Run one for what `make` does not run, in an empty folder; give what leads to it."""
        environment = {**os.environ, **self.environment("none")}
        del environment["TF_DATA_DIR"]
        with attach(folder, binary.find(), environment) as environ:
            name = "TF_REATTACH_PROVIDERS"
            yield {name: environ[name]}

    def environment(self, stack: str) -> dict[str, str]:
        """What `make` runs Terraform with."""
        return {
            **self._provider,
            **self.attached,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "3",
            "TF_DATA_DIR": str(self.out / "terraform/local" / stack),
        }

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def calls(self) -> list[dict[str, Any]]:
        """Give every call that localaws has answered."""
        lines = (self.out / "localaws/calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def inventory(self) -> dict[str, list[str]]:
        """Give all that localaws holds, by service."""
        return requests.get(f"{self.endpoint}/_localaws/inventory", timeout=60).json()


class Stack:
    """A stack that `make` has applied, driven by python-terraform from then on."""

    def __init__(self, operator: Operator, name: str) -> None:
        self._environment = operator.environment(name)
        folder = ROOT / "terraform/stacks" / name
        self._terraform = Terraform(str(folder), terraform_bin_path=str(binary.find()))
        self._files = [
            str(path)
            for path in (
                ROOT / "terraform/environments/local.tfvars",
                ROOT / f"terraform/environments/local.{name}.tfvars",
            )
        ]
        self._plan = operator.out / f"{name}.plan"
        self._variables: dict[str, Any] = {}
        if name == "serving":
            outputs = self.outputs()
            self._variables = {
                "lambda_zip_path": str(operator.out / "lambda/kennel-lambda-arm64.zip"),
                "model": outputs["model"],
            }
            # Terraform tells no output that is null.
            if "previous_model" in outputs:
                self._variables["previous_model"] = outputs["previous_model"]

    def _run(self, command: str, *arguments: str, good: tuple[int, ...] = (0,), **options: Any):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environment.items():
                patch.setenv(name, value)
            code, out, err = self._terraform.cmd(command, *arguments, **options)
        assert code in good, f"{command}: {out}{err}"
        return code, out + err if code == 1 else out

    def outputs(self) -> dict[str, Any]:
        _, out = self._run("output", json=IsFlagged)
        return {name: output["value"] for name, output in json.loads(out).items()}

    def plan(self, **variables: Any) -> Plan:
        code, _ = self._run(
            "plan",
            good=(0, 2),
            detailed_exitcode=IsFlagged,
            input=False,
            out=str(self._plan),
            # What comes last counts.
            var_file=self._files,
            var=self._variables | variables,
        )
        _, out = self._run("show", str(self._plan), json=IsFlagged)
        planned = json.loads(out)
        changes = {
            change["address"]: "+".join(change["change"]["actions"])
            for change in planned.get("resource_changes", [])
            if change["change"]["actions"] not in (["no-op"], ["read"])
        }
        warned = [
            check["address"]["to_display"]
            for check in planned.get("checks", [])
            if check["status"] == "fail"
        ]
        return Plan(code, changes, tuple(warned))

    def refusal(self, **variables: Any) -> str:
        """Give what a plan says that fails."""
        _, said = self._run(
            "plan",
            good=(1,),
            input=False,
            no_color=IsFlagged,
            var=variables,
            var_file=self._files,
        )
        return " ".join(re.sub("[│╷╵]", " ", said).split())

    def deploy_policies(self) -> list[dict[str, Any]]:
        """Give what the foundation lets the deploy role do, whether there is one or not."""
        _, out = self._run("show", json=IsFlagged)
        modules = json.loads(out)["values"]["root_module"]["child_modules"]
        (roles,) = (module for module in modules if module["address"] == "module.roles")
        documents = {
            resource["name"]: json.loads(resource["values"]["json"])
            for resource in roles["resources"]
            if resource["type"] == "aws_iam_policy_document"
        }
        return [
            document
            for name, document in documents.items()
            if name in ("operate", "train") or (name.startswith("deploy_") and name != "deploy_key")
        ]

    def apply(self) -> None:
        """Apply the plan made last."""
        self._run("apply", str(self._plan), input=False)


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory, provider: dict[str, str]) -> Cycle:
    folder = tmp_path_factory.mktemp("cycle")
    first = make_archive(folder / "first")
    second = make_archive(folder / "second", classes=("Rose", "Grass", "Sky"))
    build(folder / "out/lambda", "arm64")
    build(folder / "out/lambda", "x86_64")
    (folder / "outside").mkdir()
    (folder / "provider").mkdir()
    outside = Outside(folder / "outside")
    operator = Operator(folder / "out", provider, outside)
    seen = Cycle()

    def deployed(step: str) -> None:
        described = operator.client("sagemaker").describe_endpoint(EndpointName="kennel-local")
        seen.configurations[step] = described["EndpointConfigName"]
        seen.outputs[step] = Stack(operator, "serving").outputs()

    operator.make("local-up")
    beside = ExitStack()
    try:
        operator.make("bootstrap")
        bootstrap_calls = len(operator.calls())
        make_both(operator, first)
        deployed("first model")

        said = operator.make("apply", STACK="serving", MODEL=second)
        (seen.costs,) = re.findall(r"^cost: (.+?) \(", said, re.MULTILINE)
        (named,) = re.findall(r"^the whole plan: (.+)$", said, re.MULTILINE)
        whole = Path(named)
        # Anything that the first apply had left to do would be told here, too.
        seen.second_model = dict(
            re.findall(r"^  # (\S+) (?:will|must) be (.+)$", whole.read_text(), re.MULTILINE)
        )
        deployed("second model")

        # What localaws knows outlives it.
        operator.make("local-down")
        operator.make("local-up")
        operator.attached = beside.enter_context(operator.provider(folder / "provider"))
        for stack in ("foundation", "serving"):
            seen.plans[stack] = Stack(operator, stack).plan()

        serving = Stack(operator, "serving")
        seen.plans["numbers"] = serving.plan(scaling=SCALING, **{"lambda": LAMBDA})
        serving.apply()
        seen.plans["numbers again"] = serving.plan(scaling=SCALING, **{"lambda": LAMBDA})
        seen.numbers = _numbers(operator)

        seen.policies = Stack(operator, "foundation").deploy_policies()
        seen.budget = operator.client("budgets").describe_budget(
            AccountId="123456789012", BudgetName="kennel-local"
        )["Budget"]
        operator.client("logs").create_log_stream(
            logGroupName=job_logs.TRAINING, logStreamName="kennel-prod-dogs-1/algo-1"
        )
        operator.make("destroy", DELETE_DATA=1)
        seen.left = operator.inventory()
        # The stream is the other environment's.
        seen.calls = [
            call
            for call in operator.calls()[bootstrap_calls:]
            if call["operation"] != "CreateLogStream"
        ]
        delete_default_vpc(operator)
        foundation = Stack(operator, "foundation")
        seen.plans["no network"] = foundation.plan(enable_ec2_trainer=False, alarm_emails=[])
        seen.refusal = foundation.refusal(enable_ec2_trainer=True)
    finally:
        beside.close()
        operator.make("local-reset")
    seen.outside = outside.seen
    outside.stop()
    return seen


def delete_default_vpc(operator: Operator) -> None:
    """As many companies do in every account."""
    ec2 = operator.client("ec2")
    only = [{"Name": "is-default", "Values": ["true"]}]
    (vpc,) = ec2.describe_vpcs(Filters=only)["Vpcs"]
    inside = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    for subnet in ec2.describe_subnets(Filters=inside)["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])


def make_both(operator: Operator, model: Path) -> None:
    """Apply both stacks.

    The provider waits for most of a minute until S3 knows the rules of the bucket's life cycle,
    which `serving` does not need: it begins as soon as it finds its parameters.
    """
    parameters = operator.client("ssm").get_paginator("get_parameters_by_path")

    def is_ready() -> bool:
        pages = parameters.paginate(Path="/kennel/local/")
        names = {found["Name"] for page in pages for found in page["Parameters"]}
        return {f"/kennel/local/{key}" for key in HANDOVER} <= names

    with ThreadPoolExecutor(1) as beside:
        foundation = beside.submit(operator.make, "apply", STACK="foundation")
        until(lambda: foundation.done() or is_ready())
        operator.make("apply", STACK="serving", MODEL=model)
        foundation.result()


def _numbers(operator: Operator) -> dict[str, int]:
    """Give every number of SCALING and LAMBDA as AWS's own interfaces tell them."""
    scaling = operator.client("application-autoscaling")
    functions = operator.client("lambda")
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    provisioned = functions.get_provisioned_concurrency_config(
        FunctionName="kennel-local-classify", Qualifier="live"
    )
    reserved = functions.get_function_concurrency(FunctionName="kennel-local-classify")
    return {
        "min_capacity": target["MinCapacity"],
        "max_capacity": target["MaxCapacity"],
        "target": tracking["TargetValue"],
        "scale_in_cooldown_s": tracking["ScaleInCooldown"],
        "scale_out_cooldown_s": tracking["ScaleOutCooldown"],
        "executions": provisioned["RequestedProvisionedConcurrentExecutions"],
        "reserved_concurrency": reserved["ReservedConcurrentExecutions"],
    }


@pytest.mark.parametrize("stack", ["foundation", "serving"])
def test_a_plan_after_an_apply_and_a_restart_is_empty(cycle: Cycle, stack: str) -> None:
    assert cycle.plans[stack] == Plan(0, {})


def test_an_account_without_a_default_vpc_can_have_the_foundation(cycle: Cycle) -> None:
    assert cycle.plans["no network"].exit_code == 2
    assert (
        "us-east-1 has no default VPC: set vpc to one of yours, or enable_ec2_trainer to false."
    ) in cycle.refusal


def test_a_second_model_is_a_new_model_a_new_configuration_and_an_update_in_place(
    cycle: Cycle,
) -> None:
    kinds = sorted(
        (address.split(".")[-2], action) for address, action in cycle.second_model.items()
    )
    assert kinds == [
        ("aws_sagemaker_endpoint", "updated in-place"),
        ("aws_sagemaker_endpoint_configuration", "created"),
        ("aws_sagemaker_model", "created"),
        ("terraform_data", "updated in-place"),
    ]


def test_what_an_apply_costs_is_the_readme_s_sum_at_its_least(cycle: Cycle) -> None:
    # Endpoint, warm environments, dashboard and alarms, of which autoscaling's are not a plan's.
    most = 97.41 + 3 * 83.95
    assert cycle.costs == f"97.41 to {most:.2f} USD a month as it stands"


def test_the_endpoint_runs_the_configuration_that_was_applied(cycle: Cycle) -> None:
    planned = {
        step: outputs["endpoint_configuration_name"] for step, outputs in cycle.outputs.items()
    }
    assert cycle.configurations == planned
    assert planned["first model"] != planned["second model"]


def test_the_model_before_is_kept_for_a_rollback(cycle: Cycle) -> None:
    before, after = cycle.outputs["first model"], cycle.outputs["second model"]
    assert "previous_model" not in before
    assert after["previous_model"] == before["model"] != after["model"]


def test_every_scaling_and_concurrency_number_changes_in_place(cycle: Cycle) -> None:
    changes = cycle.plans["numbers"].changes
    # A configuration starts with the least number of instances, so another number is another one.
    others = {
        address: action
        for address, action in changes.items()
        if ".aws_sagemaker_endpoint_configuration." not in address
    }
    assert set(others.values()) == {"update"}
    assert "module.endpoint.aws_sagemaker_endpoint.this" in others
    assert cycle.plans["numbers again"] == Plan(0, {})
    assert cycle.numbers == {
        **SCALING,
        "executions": LAMBDA["provisioned_concurrency"]["executions"],
        "reserved_concurrency": LAMBDA["reserved_concurrency"],
    }


def test_nothing_is_left_but_the_state_bucket_and_what_others_use(cycle: Cycle) -> None:
    (group,) = cycle.left.pop("logs")
    assert group.removesuffix(":*").endswith(f":log-group:{job_logs.TRAINING}")
    assert cycle.left == {"s3": ["Bucket arn:aws:s3:::kennel-tfstate-123456789012-us-east-1"]}
    # The next foundation finds it.
    address = f'module.observability.aws_cloudwatch_log_group.jobs["{job_logs.TRAINING}"]'
    assert cycle.plans["no network"].changes[address] == "update"


def test_the_budget_counts_the_project_and_a_plan_warns_where_nobody_is_told(
    cycle: Cycle,
) -> None:
    assert cycle.budget["CostFilters"] == {"TagKeyValue": ["user:project$kennel"]}
    assert "check.somebody_is_told" not in cycle.plans["foundation"].warned
    assert "check.somebody_is_told" in cycle.plans["no network"].warned


def test_nothing_left_this_machine(cycle: Cycle) -> None:
    assert cycle.outside == []


def test_every_call_was_answered(cycle: Cycle) -> None:
    assert len(cycle.calls) > 500
    failed = [call for call in cycle.calls if call["status"] >= 500]
    assert not failed


def test_the_deploy_role_may_do_all_of_it(cycle: Cycle) -> None:
    # The rest was asked by what the stacks run, under its own roles.
    calls = [call for call in cycle.calls if call["access_key"] == "test"]
    assert refused(calls, cycle.policies) == []
    assert refused(calls, cycle.policies[1:])

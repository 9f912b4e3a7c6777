"""What a change does to what is there: planned by the real provider over recorded states.

Only a state and the provider tell an update from a replacement. Record the states again with
`RECORD_STATES=1 make test TESTS=tests/terraform/test_upgrades.py`, and only where a module has
gained or lost resources: a state from before a change is what shows the change to be safe.
"""

import json
import os
import re
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import boto3
import pytest
import requests

from localaws.loopback import LoopbackServer, Requests

MODULES = Path(__file__).parents[2] / "terraform/modules"
STATES = Path(__file__).parent / "states"
RECORDING = "RECORD_STATES" in os.environ

Inputs: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Inputs of modules, by the modules' names."""

REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving"
KEY = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
ROLE = "arn:aws:iam::123456789012:role/"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        },
    }
)


def _model(digit: str, image: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "archive_uri": f"s3://kennel-dev/models/{digit * 12}/model.tar.gz",
        "digest": digit * 64,
        "image_uri": f"{REPOSITORY}@sha256:{image * 64}",
    } | more


def _main(**changes: Any) -> dict[str, Any]:
    return {"main": {"initial_instance_count": 2} | changes}


# The modules of each root, as they were applied when its state was recorded.
ROOTS: dict[str, Inputs] = {
    "bucket": {"bucket": {"environment": "dev", "name": "kennel-dev"}},
    "ec2_trainer": {
        "ec2_trainer": {
            "bucket_name": "kennel-dev",
            "instance_profile_name": "kennel-dev-ec2",
            "name": "kennel-dev",
            "vpc": {"subnet_ids": ["subnet-first", "subnet-second"], "vpc_id": "vpc-first"},
        }
    },
    "endpoint": {
        "endpoint": {
            "model": _model("1"),
            "name": "kennel-dev",
            # As it was by default when the state was recorded.
            "release": {"termination_wait_s": 0},
            "role_arn": f"{ROLE}kennel-dev-serving",
            "variants": _main(),
        },
        "autoscaling": {
            "endpoint_name": "${module.endpoint.name}",
            "instance_type": "${module.endpoint.variants.main.instance_type}",
            "schedule": {"begin": "cron(0 20 * * ? *)", "end": "cron(0 7 * * ? *)"},
        },
    },
    "inference_lambda": {
        "inference_lambda": {
            "endpoint_name": "kennel-dev",
            "function_url": {"cors": {"allow_origins": ["https://example.com"]}},
            "name": "kennel-dev",
            "role_arn": f"{ROLE}kennel-dev-lambda",
            "zip_path": "first.zip",
        }
    },
    "notebook": {"notebook": {"name": "kennel-dev", "role_arn": f"{ROLE}kennel-dev-notebook"}},
}

LASTING = {
    "aws_appautoscaling_target",
    "aws_lambda_alias",
    "aws_lambda_function",
    "aws_launch_template",
    "aws_s3_bucket",
    "aws_sagemaker_endpoint",
    "aws_sagemaker_notebook_instance",
}
"""What no change may delete or replace, but for the rows of the table that say so."""


@dataclass(frozen=True)
class Change:
    """Changed inputs of a root, and the whole plan: how many of which kind are made, and so on."""

    root: str
    name: str
    inputs: Inputs
    plan: Counter[str]
    loses: str = ""
    """What is lasting and yet replaced, since AWS has no other way."""
    state: tuple[str, str] = ("", "")
    """What the state has in the place of what was recorded: the recorded text, and the other."""


NOTHING = Counter[str]()
# The script that a machine starts with has gained a step since the state was recorded.
START_SCRIPT = Counter({"update launch_template": 1})
SETTINGS = Counter(
    {
        "create sagemaker_endpoint_configuration": 1,
        "update sagemaker_endpoint": 1,
        "delete sagemaker_endpoint_configuration": 1,
    }
)
RELEASE = Counter(
    {
        "create sagemaker_model": 1,
        "create sagemaker_endpoint_configuration": 1,
        "update sagemaker_endpoint": 1,
    }
)
REPLACED_MODEL = Counter(
    {
        "replace sagemaker_model": 1,
        "replace sagemaker_endpoint_configuration": 1,
        "update sagemaker_endpoint": 1,
    }
)
REGISTERED_AGAIN = Counter(
    {
        "replace appautoscaling_policy": 1,
        "replace appautoscaling_scheduled_action": 2,
        "replace appautoscaling_target": 1,
        "replace terraform_data": 2,
    }
)


FUNCTION = Counter({"update lambda_alias": 1, "update lambda_function": 1})
NOTEBOOK = Counter({"update sagemaker_notebook_instance": 1})
OTHER_AMI = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-ubuntu-22.04/latest/ami-id"


def _one(
    module: str,
    name: str,
    plan: Counter[str],
    loses: str = "",
    state: tuple[str, str] = ("", ""),
    **inputs: Any,
) -> Change:
    """Change inputs of the module that a root is named after."""
    return Change(module, name, {module: inputs}, plan, loses, state)


CHANGES = [
    *(
        Change(root, "nothing", {}, START_SCRIPT if root == "ec2_trainer" else NOTHING)
        for root in ROOTS
    ),
    _one("endpoint", "new model", RELEASE, model=_model("2"), previous_model=_model("1")),
    _one(
        "endpoint", "new image", RELEASE, model=_model("1", image="b"), previous_model=_model("1")
    ),
    _one(
        "endpoint",
        "new model, old one given up",
        RELEASE
        + Counter({"delete sagemaker_model": 1, "delete sagemaker_endpoint_configuration": 1}),
        model=_model("2"),
    ),
    _one(
        "endpoint",
        "container's environment",
        RELEASE,
        model=_model("1", environment={"KENNEL_QUEUE": "64"}),
        previous_model=_model("1"),
    ),
    _one(
        "endpoint",
        "instance type",
        SETTINGS + REGISTERED_AGAIN,
        "aws_appautoscaling_target",
        variants=_main(instance_type="ml.m5.xlarge"),
    ),
    _one("endpoint", "instance count", SETTINGS, variants=_main(initial_instance_count=4)),
    _one("endpoint", "weight", SETTINGS, variants=_main(weight=0.5)),
    _one(
        "endpoint",
        "second variant",
        SETTINGS + Counter({"create cloudwatch_metric_alarm": 2, "replace terraform_data": 1}),
        variants=_main() | {"other": {}},
    ),
    _one(
        "endpoint",
        "shadow",
        SETTINGS + Counter({"create sagemaker_model": 1}),
        shadow={"model": _model("2")},
    ),
    _one("endpoint", "capture", SETTINGS, data_capture={"bucket_name": "kennel-dev"}),
    _one("endpoint", "watched at once", SETTINGS, release={}),
    _one("endpoint", "canary", SETTINGS, release={"strategy": "canary"}),
    _one("endpoint", "rolling", SETTINGS, release={"percent": 50, "strategy": "rolling"}),
    _one(
        "endpoint",
        "key",
        Counter(
            {
                "replace sagemaker_endpoint_configuration": 1,
                "update sagemaker_endpoint": 1,
                "update cloudwatch_log_group": 1,
            }
        ),
        kms_key_arn=KEY,
    ),
    _one("endpoint", "role", REPLACED_MODEL, role_arn=f"{ROLE}other"),
    _one("endpoint", "network isolation", REPLACED_MODEL, enable_network_isolation=False),
    _one(
        "endpoint",
        "network",
        REPLACED_MODEL,
        vpc={"security_group_ids": ["sg-1"], "subnet_ids": ["subnet-1"]},
    ),
    _one(
        "endpoint",
        "topic, retention and thresholds",
        Counter({"update cloudwatch_log_group": 1, "update cloudwatch_metric_alarm": 2}),
        alarm_topic_arn="arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms",
        log_retention_days=90,
        thresholds={"error_percent": 1, "latency_p99_ms": 500},
    ),
    Change(
        "endpoint",
        "all numbers of the scaling",
        {
            "autoscaling": {
                "max_capacity": 8,
                "metric": "invocations_per_minute",
                "min_capacity": 2,
                "scale_in_cooldown_s": 300,
                "scale_out_cooldown_s": 60,
                "target": 1500,
            }
        },
        Counter(
            {
                "update appautoscaling_policy": 1,
                "update appautoscaling_scheduled_action": 1,
                "update appautoscaling_target": 1,
            }
        ),
    ),
    Change(
        "endpoint",
        "no schedule",
        {"autoscaling": {"schedule": None}},
        Counter({"delete appautoscaling_scheduled_action": 2}),
    ),
    _one(
        "bucket",
        "lifecycle",
        Counter({"update s3_bucket_lifecycle_configuration": 1}),
        lifecycle_days={"capture": 7, "checkpoints": 7},
    ),
    _one(
        "bucket",
        "key",
        Counter(
            {
                "update s3_bucket_policy": 1,
                "update s3_bucket_server_side_encryption_configuration": 1,
            }
        ),
        kms_key_arn=KEY,
    ),
    _one("bucket", "force_destroy", Counter({"update s3_bucket": 1}), force_destroy=True),
    _one(
        "bucket",
        "access logs",
        Counter({"create s3_bucket_logging": 1}),
        access_log_bucket={"name": "logs", "prefix": "s3/"},
    ),
    _one("ec2_trainer", "image by another parameter", START_SCRIPT, ami_ssm_parameter=OTHER_AMI),
    _one(
        "ec2_trainer",
        "image by id",
        Counter({"replace launch_template": 1, "update terraform_data": 1}),
        "aws_launch_template",
        ami_id="ami-0123456789abcdef0",
    ),
    _one(
        "ec2_trainer",
        "machine",
        Counter({"update launch_template": 1, "update cloudwatch_log_group": 1}),
        enable_spot=True,
        instance_type="g5.2xlarge",
        kms_key_arn=KEY,
        max_hours=24,
        volume_size_gb=90,
    ),
    _one(
        "ec2_trainer",
        "SSH",
        Counter({"update launch_template": 1, "create vpc_security_group_ingress_rule": 1}),
        ssh={"cidr_blocks": ["192.0.2.0/24"], "key_name": "key"},
    ),
    _one(
        "ec2_trainer",
        "subnets",
        START_SCRIPT,
        vpc={"subnet_ids": ["subnet-second"], "vpc_id": "vpc-first"},
    ),
    _one("inference_lambda", "code", FUNCTION, zip_path="second.zip"),
    _one("inference_lambda", "memory and time", FUNCTION, memory_mb=1024, timeout_s=60),
    _one("inference_lambda", "runtime", FUNCTION, architecture="x86_64", runtime="python3.12"),
    _one(
        "inference_lambda",
        "endpoint and hosts",
        FUNCTION,
        endpoint_name="other",
        allowed_hosts=["images.example.com"],
    ),
    _one("inference_lambda", "contact", FUNCTION, contact="https://example.com/bot"),
    _one("inference_lambda", "role", FUNCTION, role_arn=f"{ROLE}other"),
    _one(
        "inference_lambda",
        "key",
        FUNCTION + Counter({"update cloudwatch_log_group": 1, "update sqs_queue": 1}),
        kms_key_arn=KEY,
    ),
    _one(
        "inference_lambda",
        "provisioned concurrency",
        Counter({"update lambda_provisioned_concurrency_config": 1}),
        provisioned_concurrency={"executions": 5},
    ),
    _one(
        "inference_lambda",
        "no function URL",
        Counter({"delete lambda_function_url": 1}),
        function_url=None,
    ),
    _one("notebook", "instance type", NOTEBOOK, instance_type="ml.t3.large"),
    _one("notebook", "volume", NOTEBOOK, volume_size_gb=20),
    _one("notebook", "role", NOTEBOOK, role_arn=f"{ROLE}other"),
    _one(
        "notebook",
        "idle stop",
        Counter({"update sagemaker_notebook_instance_lifecycle_configuration": 1}),
        idle_minutes=30,
        max_hours_per_day=4,
    ),
    # SageMaker changes neither platform nor key of a notebook.
    _one(
        "notebook",
        "platform",
        Counter({"replace sagemaker_notebook_instance": 1}),
        "aws_sagemaker_notebook_instance",
        state=("notebook-al2-v3", "notebook-al2-v2"),
        platform_identifier="notebook-al2-v3",
    ),
    _one(
        "notebook",
        "key",
        Counter({"replace sagemaker_notebook_instance": 1}),
        "aws_sagemaker_notebook_instance",
        kms_key_arn=KEY,
    ),
]


OWN_PROVIDER = {"TF_REATTACH_PROVIDERS": ""}


@dataclass(frozen=True)
class Terraform:
    """Terraform in folders of root modules."""

    binary: Path
    environment: Mapping[str, str]

    def attempt(
        self, folder: Path, *arguments: str, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it, with more environment variables."""
        return subprocess.run(
            [self.binary, *arguments, "-no-color"],
            cwd=folder,
            env={**self.environment, **more},
            text=True,
            capture_output=True,
        )

    def run(self, folder: Path, *arguments: str) -> str:
        """Give what it prints; fail with all of it where it fails."""
        done = self.attempt(folder, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def terraform(terraform_binary: Path, attached: dict[str, str]) -> Terraform:
    return Terraform(terraform_binary, attached)


def _write(folder: Path, *roots: Inputs) -> None:
    """Write a root module that calls the modules of several: those of the first as NAME_0."""
    modules: dict[str, Any] = {}
    for index, root in enumerate(roots):
        for name, inputs in json.loads(_numbered(json.dumps(root), index)).items():
            modules[f"{name}_{index}"] = {"source": str(MODULES / name)} | inputs
    provider = {"region": "us-east-1", "s3_use_path_style": True}
    (folder / "main.tf.json").write_text(
        json.dumps({"module": modules, "provider": {"aws": provider}})
    )
    for name in ("first", "second"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("handler.py"), name)


def _numbered(text: str, index: int) -> str:
    return re.sub(r"\bmodule\.(\w+?)(_0)?\b", rf"module.\1_{index}", text)


def _stable(state: str) -> str:
    """Take from a state what is another each time and means nothing to a plan."""
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*"
    content = json.loads(re.sub(moment, "2026-01-01T00:00:00", state))
    content |= {
        "check_results": None,
        "lineage": "00000000-0000-0000-0000-000000000000",
        "serial": 1,
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _record(terraform: Terraform, folder: Path, root: str) -> None:
    """Apply a root, keep its state, and destroy it."""
    iam, ec2 = (_client(terraform, service) for service in ("iam", "ec2"))
    iam.create_role(RoleName="kennel-dev-lambda", AssumeRolePolicyDocument=TRUST)
    subnets = ec2.describe_subnets()["Subnets"]
    names = {
        "vpc-first": subnets[0]["VpcId"],
        "subnet-first": subnets[0]["SubnetId"],
        "subnet-second": subnets[1]["SubnetId"],
    }
    inputs = json.dumps(ROOTS[root])
    for name, real in names.items():
        inputs = inputs.replace(name, real)
    _write(folder, json.loads(inputs))
    terraform.run(folder, "init", "-input=false")
    terraform.run(folder, "apply", "-auto-approve", "-input=false")
    state = _stable((folder / "terraform.tfstate").read_text())
    for name, real in names.items():
        state = state.replace(real, name)
    (STATES / f"{root}.tfstate").write_text(state)
    terraform.run(folder, "destroy", "-auto-approve", "-input=false")
    iam.delete_role(RoleName="kennel-dev-lambda")


def _client(terraform: Terraform, service: str) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=terraform.environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture(scope="module")
def planned(
    tmp_path_factory: pytest.TempPathFactory, terraform: Terraform
) -> Callable[[Change], list[tuple[str, str]]]:
    """Give what tells, for a change, which actions the plan has for which types of resources.

    All changes of a root are one plan, each over its own copy of the recorded state.
    """

    @cache
    def plan(root: str) -> list[tuple[str, str, str]]:
        folder = tmp_path_factory.mktemp(root)
        if RECORDING:
            _record(terraform, folder, root)
        recorded = (STATES / f"{root}.tfstate").read_text()
        rows = [change for change in CHANGES if change.root == root]
        _write(
            folder,
            *(
                {
                    name: {**inputs, **row.inputs.get(name, {})}
                    for name, inputs in ROOTS[root].items()
                }
                for row in rows
            ),
        )
        state = json.loads(recorded)
        state["resources"] = [
            resource
            for index, row in enumerate(rows)
            for resource in json.loads(_numbered(recorded.replace(*row.state), index))["resources"]
        ]
        (folder / "terraform.tfstate").write_text(json.dumps(state))
        terraform.run(folder, "init", "-input=false")
        lines = terraform.run(
            folder, "plan", "-refresh=false", "-input=false", "-json"
        ).splitlines()
        changes = [line["change"] for line in map(json.loads, lines) if "change" in line]
        return [
            (
                rows[int(change["resource"]["module"].rsplit("_", 1)[1])].name,
                change["action"],
                change["resource"]["resource_type"],
            )
            for change in changes
            if change["action"] not in ("noop", "read")
        ]

    return lambda change: [
        (action, kind) for name, action, kind in plan(change.root) if name == change.name
    ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.root}, {change.name}")
def test_change(planned: Callable[[Change], list[tuple[str, str]]], change: Change) -> None:
    actions = planned(change)
    lost = {kind for action, kind in actions if action in ("delete", "replace")} & LASTING
    assert lost == ({change.loses} if change.loses else set())
    assert (
        Counter(f"{action} {kind.removeprefix('aws_')}" for action, kind in actions) == change.plan
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, terraform: Terraform) -> Iterator[Path]:
    """Give the folder of a root whose endpoint is in service and scales.

    All tests but the last leave it as they found it.
    """
    folder = tmp_path_factory.mktemp("service")
    _write(folder, _served(ROOTS["endpoint"]))
    # For the runs that have the provider for themselves, too.
    terraform.attempt(folder, "init", "-input=false", **OWN_PROVIDER).check_returncode()
    terraform.run(folder, "apply", "-auto-approve", "-input=false")
    yield folder
    terraform.run(folder, "destroy", "-auto-approve", "-input=false")


def _changed(name: str) -> Inputs:
    [change] = [change for change in CHANGES if (change.root, change.name) == ("endpoint", name)]
    root = ROOTS["endpoint"]
    return _served({module: {**root[module], **change.inputs.get(module, {})} for module in root})


def _served(inputs: Inputs) -> Inputs:
    """Give them images of another account: of its own, SageMaker wants to see them."""
    other = REPOSITORY.replace("123456789012", "210987654321")
    changed: Inputs = json.loads(json.dumps(inputs).replace(REPOSITORY, other))
    return changed


def _waits_for(graph: str, node: str) -> set[str]:
    """Give all that must be done before a node of a graph in the language of Graphviz."""
    edges = re.findall(r'"\[root\] (.+?)" -> "\[root\] (.+?)"(?: \[|\n|;|$)', graph)
    before: set[str] = set()
    found = {node}
    while found:
        found = {end for start, end in edges if start in found} - before
        before |= found
    return before


@contextmanager
def _rolling_back(endpoint: str) -> Iterator[str]:
    """Serve AWS as it is when SageMaker rolls an update of an endpoint back."""

    class Handler(Requests):
        def do_POST(self) -> None:
            body = self.body()
            if self.headers.get("X-Amz-Target") == "SageMaker.UpdateEndpoint":
                self.answer_json(200, {"EndpointArn": ""})
                return
            answer = requests.post(
                endpoint + self.path, body, headers=dict(self.headers), timeout=60
            )
            self.answer(answer.status_code, answer.content, {})

    with LoopbackServer(Handler) as server:
        yield f"http://{server.address}"


@pytest.mark.parametrize("name", ["new model, old one given up", "instance type"])
def test_what_sagemaker_rolls_back_to_is_not_deleted(
    service: Path, terraform: Terraform, name: str
) -> None:
    sagemaker = _client(terraform, "sagemaker")
    live = sagemaker.describe_endpoint(EndpointName="kennel-dev")["EndpointConfigName"]
    _write(service, _changed(name))
    with _rolling_back(terraform.environment["AWS_ENDPOINT_URL"]) as address:
        applied = terraform.attempt(
            service,
            "apply",
            "-auto-approve",
            "-input=false",
            **OWN_PROVIDER,
            AWS_ENDPOINT_URL=address,
        )
    assert applied.returncode == 1
    message = " ".join(applied.stderr.replace("│", " ").split())
    assert f"SageMaker rolled the endpoint back to {live}. It serves as before." in message
    variants = sagemaker.describe_endpoint_config(EndpointConfigName=live)["ProductionVariants"]
    assert sagemaker.describe_model(ModelName=variants[0]["ModelName"])

    _write(service, _served(ROOTS["endpoint"]))
    terraform.run(service, "apply", "-auto-approve", "-input=false")
    assert sagemaker.describe_endpoint(EndpointName="kennel-dev")["EndpointConfigName"] == live
    assert sagemaker.describe_endpoint_config(EndpointConfigName=live)


def test_a_variant_is_no_scalable_target_while_its_instance_type_changes(
    service: Path, terraform: Terraform
) -> None:
    _write(service, _changed("instance type"))
    terraform.run(service, "plan", "-input=false", "-out=plan")
    graph = terraform.run(service, "graph", "-type=apply", "-plan=plan")
    endpoint = "module.endpoint_0.aws_sagemaker_endpoint.this"
    target = "module.autoscaling_0.aws_appautoscaling_target.this"
    assert f"{target} (destroy)" in _waits_for(graph, endpoint)
    assert endpoint in _waits_for(graph, target)
    terraform.run(service, "apply", "-input=false", "plan")
    terraform.run(service, "plan", "-input=false", "-detailed-exitcode")

"""The policies that Terraform renders: who may do what, and that their commands are among it."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2
import pytest

from localaws.iam.policy import Outcome, Principal, Request, evaluate
from tests.terraform import iam_table as table
from tests.terraform.checkout import Checkout, done
from tests.terraform.people import Account
from tests.terraform.test_refusals import LITERAL
from trainer import catalogue

MODULES = Path(__file__).parents[2] / "terraform" / "modules"
ACCOUNT = table.ACCOUNT
SAGEMAKER = Principal("sagemaker.amazonaws.com", "Service")
GITHUB_HOST = "token.actions.githubusercontent.com"
GITHUB = Principal(f"arn:aws:iam::{ACCOUNT}:oidc-provider/{GITHUB_HOST}", "Federated")

# `dev` has every option, `prod` none.
ROOT = f"""
provider "aws" {{
  region            = "us-east-1"
  s3_use_path_style = true
}}

module "bucket" {{
  source      = "{MODULES / "bucket"}"
  environment = "dev"
  name        = "{table.BUCKET.rpartition(":")[2]}"
}}

module "dev" {{
  source                   = "{MODULES / "roles"}"
  bucket_arn               = "{table.BUCKET}"
  dead_letter_queue_name   = "kennel-dev-classify-failed"
  enable_vpc               = true
  endpoint_name            = "kennel-dev"
  environment              = "dev"
  function_name            = "kennel-dev-classify"
  github = {{
    branch          = "main"
    create_provider = false
    environments    = ["dev"]
    repository      = "example/kennel"
  }}
  kms_key_arn              = "{table.KEY}"
  name                     = "kennel-dev"
  permissions_boundary_arn = "{table.BOUNDARY}"
  project                  = "kennel"
  repository_arn           = "{table.IMAGE}"
  state_bucket_arn         = "{table.STATE}"
}}

module "prod" {{
  source                 = "{MODULES / "roles"}"
  bucket_arn             = "{table.PROD_BUCKET}"
  dead_letter_queue_name = "kennel-prod-classify-failed"
  endpoint_name          = "kennel-prod"
  environment            = "prod"
  function_name          = "kennel-prod-classify"
  name                   = "kennel-prod"
  project                = "kennel"
  repository_arn         = "arn:aws:ecr:us-east-1:{ACCOUNT}:repository/kennel-prod-serving"
  github = {{
    branch          = "main"
    create_provider = false
    owner_id        = 123456
    repository      = "example/kennel"
    repository_id   = 456789
  }}
}}

output "policies" {{
  value = {{ dev = module.dev.policies, prod = module.prod.policies }}
}}

output "trust" {{
  value = {{ dev = module.dev.trust_policies, prod = module.prod.trust_policies }}
}}
"""

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Rendered:
    """Policies and trust policies of each role of both environments, the bucket's policy."""

    policies: dict[str, dict[str, list[Document]]]
    trusts: dict[str, dict[str, Document]]
    bucket: Document


@pytest.fixture(scope="module")
def rendered(
    tmp_path_factory: pytest.TempPathFactory,
    terraform_binary: Path,
    attached: dict[str, str],
) -> Rendered:
    """A plan is enough: no policy depends on what an apply makes."""
    folder = tmp_path_factory.mktemp("roles")
    (folder / "main.tf").write_text(ROOT)

    def terraform(*words: str) -> str:
        command = [terraform_binary, *words]
        answer = subprocess.run(command, cwd=folder, env=attached, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    terraform("init", "-no-color", "-input=false")
    terraform("plan", "-no-color", "-input=false", "-out=plan")
    planned = json.loads(terraform("show", "-json", "plan"))["planned_values"]
    resources = {
        resource["address"]: resource["values"]
        for module in planned["root_module"]["child_modules"]
        for resource in module["resources"]
    }
    outputs = planned["outputs"]
    return Rendered(
        {
            environment: {
                name: [json.loads(text) for text in texts] for name, texts in roles.items()
            }
            for environment, roles in outputs["policies"]["value"].items()
        },
        {
            environment: {name: json.loads(text) for name, text in roles.items()}
            for environment, roles in outputs["trust"]["value"].items()
        },
        json.loads(resources["module.bucket.aws_s3_bucket_policy.this"]["policy"]),
    )


def rows(given: Mapping[str, list[table.Row]]) -> list[Any]:
    return [
        pytest.param(role, *row, *[{}][: 3 - len(row)], id=f"{role}-{row[0]}-{number}")
        for role, of_role in given.items()
        for number, row in enumerate(of_role)
    ]


def decide(
    rendered: Rendered, role: str, action: str, resource: str, context: Mapping[str, str]
) -> Outcome:
    name = f"kennel-dev-{role}"
    request = Request(
        action,
        resource,
        {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3", "aws:RequestedRegion": "us-east-1"}
        | context,
        Principal(f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/session"),
    )
    of_bucket = [rendered.bucket] if resource.startswith(table.BUCKET) else []
    policies = rendered.policies["dev"][role]
    return evaluate(policies, request, resource_policies=of_bucket).outcome


@pytest.mark.parametrize(("role", "action", "resource", "context"), rows(table.ALLOWED))
def test_allowed(rendered, role, action, resource, context):
    assert decide(rendered, role, action, resource, context) is Outcome.ALLOWED


@pytest.mark.parametrize(("role", "action", "resource", "context"), rows(table.DENIED))
def test_denied(rendered, role, action, resource, context):
    assert decide(rendered, role, action, resource, context) is not Outcome.ALLOWED


def test_every_role_has_rows_of_both_kinds(rendered):
    roles = set(rendered.policies["dev"])
    assert set(table.ALLOWED) == set(table.DENIED) == roles


@pytest.mark.parametrize("role", ["training", "serving", "notebook"])
@pytest.mark.parametrize(("account", "taken"), [(ACCOUNT, True), ("999999999999", False)])
def test_sagemaker_takes_roles_for_this_account_only(rendered, role, account, taken):
    context = {"aws:SourceAccount": account}
    request = Request("sts:AssumeRole", table.role(role), context, SAGEMAKER)
    assert evaluate([], request, resource_policies=[rendered.trusts["dev"][role]]).allowed == taken


@pytest.mark.parametrize("role", ["ec2", "lambda"])
def test_each_service_takes_its_own_role_only(rendered, role):
    taken = [
        service
        for service in ("ec2", "lambda", "sagemaker", "codebuild")
        if evaluate(
            [],
            Request(
                "sts:AssumeRole",
                table.role(role),
                {"aws:SourceAccount": ACCOUNT},
                Principal(f"{service}.amazonaws.com", "Service"),
            ),
            resource_policies=[rendered.trusts["dev"][role]],
        ).allowed
    ]
    assert taken == [role]


@pytest.mark.parametrize(
    ("subject", "audience", "taken"),
    [
        ("repo:example/kennel:environment:dev", "sts.amazonaws.com", True),
        ("repo:example/kennel:ref:refs/heads/main", "sts.amazonaws.com", True),
        ("repo:example/kennel:ref:refs/heads/other", "sts.amazonaws.com", False),
        ("repo:example/kennel:pull_request", "sts.amazonaws.com", False),
        ("repo:example/kennel:environment:prod", "sts.amazonaws.com", False),
        ("repo:example/kennel2:environment:dev", "sts.amazonaws.com", False),
        ("repo:stranger/kennel:environment:dev", "sts.amazonaws.com", False),
        ("repo:example/kennel:environment:dev", "https://github.com/example", False),
    ],
)
def test_github_takes_the_deploy_role_from_named_jobs_only(rendered, subject, audience, taken):
    context = {f"{GITHUB_HOST}:sub": subject, f"{GITHUB_HOST}:aud": audience}
    request = Request("sts:AssumeRoleWithWebIdentity", table.role("deploy"), context, GITHUB)
    trust = rendered.trusts["dev"]["deploy"]
    assert evaluate([], request, resource_policies=[trust]).allowed == taken


@pytest.mark.parametrize(
    ("subject", "taken"),
    [
        ("repo:example@123456/kennel@456789:environment:prod", True),
        ("repo:example@123456/kennel@456789:ref:refs/heads/main", True),
        ("repo:example@123456/kennel@456789:pull_request", False),
        # Somebody else who has the name now, and a token of before the ids.
        ("repo:example@123457/kennel@456790:environment:prod", False),
        ("repo:example/kennel:environment:prod", False),
    ],
)
def test_a_repository_with_ids_is_told_by_them(rendered, subject, taken):
    context = {f"{GITHUB_HOST}:sub": subject, f"{GITHUB_HOST}:aud": "sts.amazonaws.com"}
    request = Request("sts:AssumeRoleWithWebIdentity", table.role("deploy"), context, GITHUB)
    trust = rendered.trusts["prod"]["deploy"]
    assert evaluate([], request, resource_policies=[trust]).allowed == taken


def statements(rendered: Rendered) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for environment, roles in rendered.policies.items():
        for role, documents in roles.items():
            for document in documents:
                for statement in document["Statement"]:
                    yield f"{environment} {role} {statement['Sid']}", statement


def test_actions_are_written_out(rendered):
    assert [name for name, s in statements(rendered) if "*" in json.dumps(s["Action"])] == []


def test_what_is_allowed_on_everything_has_a_condition(rendered):
    everywhere = [
        name for name, s in statements(rendered) if s["Resource"] == "*" and "Condition" not in s
    ]
    assert everywhere == []


def test_policies_stay_within_the_limits_of_iam(rendered):
    for roles in rendered.policies.values():
        for role, documents in roles.items():
            sizes = [len(json.dumps(document, separators=(",", ":"))) for document in documents]
            if role == "deploy":
                assert max(sizes) <= 6_144
                assert len(sizes) <= 10
            else:
                assert sum(sizes) <= 10_240


def test_prod_keeps_its_bucket(rendered):
    actions = ("s3:DeleteBucket", "s3:DeleteObjectVersion", "s3:PutBucketVersioning")
    allowed = [
        action
        for action in actions
        if any(
            evaluate(
                rendered.policies["prod"]["deploy"],
                Request(action, resource, {"aws:RequestedRegion": "us-east-1"}),
            ).allowed
            for resource in (table.PROD_BUCKET, f"{table.PROD_BUCKET}/data/1.jpg")
        )
    ]
    assert allowed == ["s3:PutBucketVersioning"]


def test_without_the_option_nothing_reaches_into_a_vpc_or_a_key(rendered):
    working = {role: p for role, p in rendered.policies["prod"].items() if role != "deploy"}
    assert "ec2:CreateNetworkInterface" not in json.dumps(working)
    assert "kms:" not in json.dumps(rendered.policies["prod"])


def test_training_images_come_from_the_registries_that_the_launcher_names():
    content = hcl2.loads((MODULES / "roles/images.tf").read_text(), serialization_options=LITERAL)
    (local,) = content["locals"]
    assert local["registry_accounts"] == catalogue.load().registries


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, rendered: Rendered) -> Iterator[Account]:
    made = Account(tmp_path_factory.mktemp("account"), rendered.policies["dev"]["ec2"])
    yield made
    made.aws.stop()


@pytest.fixture(scope="module")
def operator(account: Account, rendered: Rendered) -> Checkout:
    return account.person("operator", rendered.policies["dev"]["operate"])


TRAIN_ON_EC2 = ("-m", "trainer.launch", "train", "--where", "ec2", "--env", "dev")


def test_who_operates_uploads_and_trains_on_ec2(account: Account, operator: Checkout) -> None:
    upload = ("-m", "trainer.upload", "upload", "--env", "dev", "--data", str(account.photos))
    done(operator.python(*upload))
    trained = done(operator.python(*TRAIN_ON_EC2, "--dataset", "photos"))
    assert trained.stdout.endswith("/output/model.tar.gz\n")


def test_the_notebook_trains_on_ec2(account: Account, rendered: Rendered) -> None:
    notebook = account.person("notebook", rendered.policies["dev"]["notebook"])
    trained = done(notebook.python(*TRAIN_ON_EC2, "--dataset", "photos"))
    assert trained.stdout.endswith("/output/model.tar.gz\n")


def test_who_operates_sees_verifies_and_asks_what_serves(
    account: Account, operator: Checkout
) -> None:
    found = json.loads(done(operator.run("status", "--env", "dev", "--json")).stdout)
    assert found["endpoint"]["status"] == "InService"
    assert found["function"]["version"] == "1"
    report = json.loads(done(operator.run("verify", "--env", "dev", "--json")).stdout)
    assert report["passed"]
    photo = next(account.photos.rglob("*.png"))
    done(operator.run("invoke", "--env", "dev", "--file", str(photo)))
    logged = done(operator.run("logs", "--env", "dev", "--json")).stdout.splitlines()
    assert {json.loads(line)["what"] for line in logged} == {"endpoint", "function"}


def test_who_operates_deploys_nothing(account: Account, operator: Checkout) -> None:
    refused = operator.run("destroy", "serving", "--env", "dev", "--auto-approve")
    assert refused.returncode == 1
    assert "AccessDenied" in refused.stderr


@pytest.mark.parametrize("role", ["deploy", "operate"])
def test_preflight_can_look_at_all_that_a_deployment_needs(
    account: Account, rendered: Rendered, role: str
) -> None:
    person = account.person(f"{role}-before", rendered.policies["dev"][role])
    looked = person.run("preflight", "--env", "dev", "--json")
    rows = json.loads(looked.stdout)["checks"]
    assert [row for row in rows if row["state"] != "pass"] == []

"""`python -m terraform.cli plan|apply|destroy|...` on small stacks, with real Terraform."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from inference.archive import open_model
from terraform.cli.model import Archive, choose, former, restored
from tests.archives import make_archive
from tests.localaws.conftest import SECONDS
from tests.localaws.roles import create_role
from tests.terraform.checkout import ROOT, Checkout, done, make_checkout
from tests.terraform.conftest import LocalAws
from trainer.errors import UsageError
from trainer.fence import is_loopback
from trainer.target import PROJECT

STATES = "kennel-tfstate-123456789012-us-east-1"
MODELS = "kennel-dev-models"


@pytest.fixture(scope="module")
def s3(localaws: LocalAws) -> Any:
    return localaws.client("s3")


@pytest.fixture(scope="module")
def checkout(localaws: LocalAws, s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with a state bucket and its foundation applied; the tests share it, in order."""
    folder = tmp_path_factory.mktemp("stack")
    made = make_checkout(
        folder / "checkout",
        {**localaws.environment, "KENNEL_STARTED": str(folder / "started")},
    )
    refused = made.run("plan", "foundation", "--env", "dev")
    assert refused.returncode == 1
    assert f"error: there is no state bucket {STATES}: `make bootstrap ENV=dev`" in refused.stderr
    done(made.run("bootstrap", "--env", "dev"))
    early = made.run("plan", "serving", "--env", "dev", "--model", __file__)
    assert early.returncode == 1
    assert "`make apply STACK=foundation ENV=dev`" in early.stderr
    applied = made.run("apply", "foundation", "--env", "dev", "--auto-approve")
    done(applied)
    assert applied.stderr.endswith("next: make preflight ENV=dev\n")
    s3.create_bucket(Bucket=MODELS)
    ssm = localaws.client("ssm")
    ssm.put_parameter(Name="/kennel/dev/bucket", Type="String", Value=MODELS)
    return made


def serving(checkout: Checkout, *arguments: str, command: str = "apply") -> Any:
    approval = [] if command == "plan" else ["--auto-approve"]
    return checkout.run(command, "serving", "--env", "dev", *approval, *arguments)


def outputs(checkout: Checkout) -> dict[str, Any]:
    said = done(checkout.run("output", "serving", "--env", "dev", "--", "-json")).stdout
    return {name: entry["value"] for name, entry in json.loads(said).items()}


def test_no_model_is_deployed_by_chance(checkout: Checkout) -> None:
    refused = serving(checkout, command="plan")
    assert refused.returncode == 2
    assert "MODEL=<model.tar.gz or s3://...>" in refused.stderr


def test_a_model_is_uploaded_when_it_is_applied(
    checkout: Checkout, archives: dict[str, Path], s3: Any
) -> None:
    model = str(archives["one"])
    planned = done(serving(checkout, "--model", model, command="plan"))
    last = planned.stdout.splitlines()[-1]
    assert last == "plan of serving (dev): 1 to add (1 terraform_data)"
    assert "Contents" not in s3.list_objects_v2(Bucket=MODELS)
    applied = done(serving(checkout, "--model", model)).stdout
    # Nobody is asked, so that a log gets what the plan comes to, and a file the rest.
    assert "\nPlan: 1 to add, 0 to change, 0 to destroy.\nthe whole plan: " in f"\n{applied}"
    assert "will be created" not in applied
    assert (
        "will be created" in Path(applied.split("the whole plan: ")[1].split("\n")[0]).read_text()
    )
    assert applied.endswith("applied to serving (dev): 1 added (1 terraform_data)\n")
    (stored,) = s3.list_objects_v2(Bucket=MODELS)["Contents"]
    found = outputs(checkout)
    digest = found["model"]["digest"]
    assert stored["Key"] == f"models/{digest[:12]}/model.tar.gz"
    assert found["model"]["archive_uri"] == f"s3://{MODELS}/{stored['Key']}"
    assert "previous_model" not in found
    assert found["zip"] is True
    both = done(checkout.run("output", "all", "--env", "dev", "--json")).stdout
    assert json.loads(both) == {"foundation": {}, "serving": found}
    head = s3.head_object(Bucket=MODELS, Key=stored["Key"])
    assert head["Metadata"] == {"kennel-digest": digest}
    body = s3.get_object(Bucket=MODELS, Key=stored["Key"])["Body"].read()
    assert body == archives["one"].read_bytes()


def test_what_it_comes_to_is_said_before_the_question(
    checkout: Checkout, archives: dict[str, Path]
) -> None:
    model = ("--model", str(archives["two"]))
    unasked = checkout.run("apply", "serving", "--env", "dev", *model)
    assert unasked.returncode == 2
    # Before any work, and so before the plan.
    assert unasked.stdout == ""
    assert (
        unasked.stderr
        == "error: there is no terminal to ask on: pass --auto-approve (`make`: YES=1)\n"
    )
    refused = checkout.asked("apply", "serving", "--env", "dev", *model)
    assert refused.returncode == 1
    assert "error: not confirmed, nothing was changed" in refused.stderr
    # The plan itself, and what it comes to: a line of its own where there is something to price.
    assert "terraform_data.endpoint will be" in refused.stdout
    assert refused.stdout.splitlines()[-1].startswith("plan of serving (dev): 1 to ")


def test_the_zip_is_that_of_the_function_s_architecture(checkout: Checkout) -> None:
    own = checkout.folder / "terraform/environments/dev.serving.tfvars"
    own.write_text('lambda = { architecture = "x86_64" }\n')
    refused = serving(checkout, command="plan")
    own.unlink()
    assert refused.returncode == 1
    wanted = checkout.folder / "build/lambda/kennel-lambda-x86_64.zip"
    assert refused.stderr.endswith(f"error: {wanted} is not there: `make lambda` builds it\n")


def test_a_second_model_keeps_the_first_for_a_rollback(
    checkout: Checkout, archives: dict[str, Path], s3: Any
) -> None:
    first = outputs(checkout)["model"]
    done(serving(checkout, "--model", str(archives["two"])))
    second = outputs(checkout)
    assert second["previous_model"] == first
    # The same again, and none at all: nothing to do.
    for arguments in (["--model", str(archives["two"])], []):
        again = done(serving(checkout, *arguments))
        assert "No changes." in again.stdout
    # Back, by the address of what was uploaded, without another upload.
    before = s3.head_object(Bucket=MODELS, Key=first["archive_uri"].split("/", 3)[3])
    done(serving(checkout, "--model", first["archive_uri"]))
    back = outputs(checkout)
    assert back["model"]["digest"] == first["digest"]
    assert back["previous_model"]["digest"] == second["model"]["digest"]
    after = s3.head_object(Bucket=MODELS, Key=first["archive_uri"].split("/", 3)[3])
    assert after["LastModified"] == before["LastModified"]


def test_what_sagemaker_refuses_while_the_endpoint_scales_is_done_after_it(
    checkout: Checkout, archives: dict[str, Path], tmp_path: Path
) -> None:
    busy = tmp_path / "busy"
    # Its provisioners run where it is made and destroyed.
    done(checkout.run("destroy", "serving", "--env", "dev", "--auto-approve"))
    for command, model in (("apply", "two"), ("destroy", None), ("apply", "one")):
        busy.write_text('ValidationException: Cannot update in-progress endpoint "kennel-dev".')
        arguments = [command, "serving", "--env", "dev", "--auto-approve"]
        arguments += ["--model", str(archives[model])] if model else []
        told = done(checkout.run(*arguments, KENNEL_BUSY=str(busy)))
        assert "Cannot update in-progress endpoint" in " ".join(told.stderr.split())
        assert "stopped half way" not in told.stderr
        assert not busy.exists()
    assert outputs(checkout)["model"]


def test_a_job_s_output_is_verified_and_put_in_its_place(
    checkout: Checkout, archives: dict[str, Path], s3: Any
) -> None:
    s3.upload_file(str(archives["two"]), MODELS, "jobs/a/output/model.tar.gz")
    done(serving(checkout, "--model", f"s3://{MODELS}/jobs/a/output/model.tar.gz"))
    digest = outputs(checkout)["model"]["digest"]
    assert outputs(checkout)["model"]["archive_uri"].endswith(f"models/{digest[:12]}/model.tar.gz")
    s3.put_object(Bucket=MODELS, Key="jobs/b/output/model.tar.gz", Body=b"no archive")
    refused = serving(checkout, "--model", f"s3://{MODELS}/jobs/b/output/model.tar.gz")
    assert refused.returncode == 1
    assert "not a sound model" in refused.stderr


def test_another_object_at_the_model_s_place_is_never_deployed(
    checkout: Checkout, tmp_path: Path, s3: Any
) -> None:
    archive = make_archive(tmp_path / "model", classes=("Other", "Green", "Blue"))
    key = f"models/{open_model(archive).digest[:12]}/model.tar.gz"
    s3.put_object(Bucket=MODELS, Key=key, Body=b"something else")
    refused = serving(checkout, "--model", str(archive))
    assert refused.returncode == 1
    assert "is there and is not the model" in refused.stderr
    assert "has other labels than" in refused.stderr.splitlines()[0]
    s3.delete_object(Bucket=MODELS, Key=key)


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("nowhere.tar.gz", 2, "MODEL=nowhere.tar.gz: no such file"),
        (str(ROOT), 2, f"MODEL={ROOT}: a folder; name the model.tar.gz in it"),
        ("s3://nowhere", 2, "must be like s3://bucket/path/model.tar.gz"),
        (f"s3://{MODELS}/nowhere", 2, "cannot be read (404)"),
        (str(ROOT / "Makefile"), 1, "not a sound model"),
    ],
)
def test_a_model_that_is_none_is_refused(
    checkout: Checkout, model: str, code: int, said: str
) -> None:
    refused = serving(checkout, "--model", model, command="plan")
    assert refused.returncode == code
    assert refused.stderr.startswith("error: ")
    assert said in refused.stderr


def test_exit_codes_and_arguments_pass(checkout: Checkout) -> None:
    same = serving(checkout, "--", "-detailed-exitcode", command="plan")
    assert same.returncode == 0, same.stderr
    other = serving(
        checkout, "--", "-detailed-exitcode", "-replace=terraform_data.endpoint", command="plan"
    )
    assert other.returncode == 2
    wrong = serving(checkout, "--", "-no-such-flag", command="plan")
    assert wrong.returncode == 1
    assert "no-such-flag" in wrong.stderr
    listed = done(checkout.run("run", "serving", "--env", "dev", "--", "state", "list"))
    assert listed.stdout == "terraform_data.endpoint\n"


def test_nothing_is_applied_without_consent(checkout: Checkout) -> None:
    asked = checkout.asked(
        *("apply", "serving", "--env", "dev", "--", "-replace=terraform_data.endpoint")
    )
    assert asked.returncode == 1
    assert "will be replaced, as requested" in asked.stdout
    assert "nothing was changed: serving (dev) stays as it is" in asked.stderr
    assert "No changes." in serving(checkout, command="plan").stdout


def test_an_initialized_stack_is_not_initialized_again(checkout: Checkout) -> None:
    assert "initializing" not in serving(checkout, command="plan").stderr
    source = checkout.folder / "terraform/stacks/serving/main.tf"
    source.write_text(source.read_text() + "\n# changed\n")
    assert "initializing serving (dev)" in serving(checkout, command="plan").stderr


@pytest.mark.parametrize("content", [b'{"version": 3, "ter', None])
def test_a_stack_whose_place_is_damaged_is_initialized_again(
    checkout: Checkout, content: bytes | None
) -> None:
    """Terraform's own file about where the state is; the state is in the bucket."""
    (pointer,) = checkout.folder.glob("build/terraform/dev/foundation/terraform.tfstate")
    pointer.unlink()
    pointer.mkdir() if content is None else pointer.write_bytes(content)
    again = done(checkout.run("plan", "foundation", "--env", "dev"))
    assert "initializing foundation (dev)" in again.stderr
    assert "No changes." in again.stdout


def test_environments_do_not_disturb_each_other(checkout: Checkout) -> None:
    environments = checkout.folder / "terraform/environments"
    (environments / "two.tfvars").write_text('environment = "two"\nregion = "us-east-1"\n')
    (environments / "two.s3.tfbackend").write_text((environments / "dev.s3.tfbackend").read_text())
    done(checkout.run("plan", "foundation", "--env", "two"))
    same = checkout.run("plan", "foundation", "--env", "dev", "--", "-detailed-exitcode")
    assert same.returncode == 0
    assert "initializing" not in same.stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nowhere", None, "there are dev"),
        (
            "wrong",
            'environment = "dev"\nregion = "us-east-1"\n',
            'must say `environment = "wrong"`',
        ),
        ("bare", 'environment = "bare"\n', "must say `region"),
    ],
)
def test_an_environment_that_is_none_is_refused(
    checkout: Checkout, name: str, text: str | None, said: str
) -> None:
    if text:
        (checkout.folder / f"terraform/environments/{name}.tfvars").write_text(text)
    refused = checkout.run("plan", "all", "--env", name)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_aws_that_does_not_answer_is_one_line(checkout: Checkout) -> None:
    refused = checkout.run("plan", "all", "--env", "dev", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "`make local-up`" in refused.stderr


def test_without_the_function_s_zip_nothing_begins(checkout: Checkout, tmp_path: Path) -> None:
    refused = serving(checkout, "--out", str(tmp_path), command="plan")
    assert refused.returncode == 1
    assert "`make lambda` builds it" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_lets_terraform_end_in_order(checkout: Checkout, s3: Any, number: int) -> None:
    started = Path(checkout.environ["KENNEL_STARTED"])
    started.unlink(missing_ok=True)
    arguments = ["-m", "terraform.cli", "apply", "serving", "--env", "dev", "--auto-approve"]
    with checkout.start(
        *arguments, "--", "-var=wait_s=600", "-replace=terraform_data.endpoint"
    ) as process:
        while not started.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "Gracefully shutting down" in out
    by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    *_, why, what_next = err.splitlines()
    head = f"error: apply of serving (dev) was stopped by {by}; Terraform's errors: "
    assert why.startswith(head)
    assert what_next.endswith(" `make apply STACK=serving ENV=dev` goes on from there")
    # Of these no more is shown, and nothing of them is lost.
    assert err.count("rror: ") == 1
    assert "execution halted" in Path(why.removeprefix(head)).read_text()
    # Terraform has let go of the state.
    assert "force-unlock" not in err
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=STATES)["Contents"]]
    assert "dev/serving.tfstate.tflock" not in keys
    done(serving(checkout))


def test_a_lock_that_was_left_behind_is_explained(checkout: Checkout, s3: Any) -> None:
    lock = {
        "ID": "11111111-2222-3333-4444-555555555555",
        "Who": "me@here",
        "Created": "2026-01-02T03:04:05Z",
    }
    key = "dev/serving.tfstate.tflock"
    s3.put_object(Bucket=STATES, Key=key, Body=json.dumps(lock))
    refused = serving(checkout)
    assert refused.returncode == 1
    held = f"me@here since {lock['Created']}"
    told = f"`make unlock STACK=serving LOCK={lock['ID']} ENV=dev`"
    assert f"The state is locked by {held}. If that run is dead: {told}" in refused.stderr
    unlock = ("unlock", "serving", "--env", "dev", "--lock")
    # On a terminal it asks; here it may not.
    assert checkout.run(*unlock, lock["ID"]).returncode == 2
    other = checkout.run(*unlock, "another", "--auto-approve")
    assert other.returncode == 2
    assert f"is locked by {held}, as LOCK={lock['ID']}" in other.stderr
    done(checkout.run(*unlock, lock["ID"], "--auto-approve"))
    done(serving(checkout))
    again = done(checkout.run(*unlock, lock["ID"], "--auto-approve"))
    assert again.stderr == "the state of serving (dev) is not locked\n"


def test_old_providers_are_for_localaws_only(checkout: Checkout, tmp_path: Path) -> None:
    """A provider that would break an endpoint's update is refused where AWS is real."""
    fake = checkout.program(
        "old",
        'case "$1" in\n'
        'version) if [ "$2" = -json ]; then\n'
        """echo '{"provider_selections": {"registry.terraform.io/hashicorp/aws": "6.39.0"}}'\n"""
        "else echo 'Terraform v1.12.0'; echo 'on linux_amd64'; fi;;\n"
        "esac",
    )
    endpoint = checkout.environ["AWS_ENDPOINT_URL"]
    local = checkout.run("plan", "foundation", "--env", "dev", TERRAFORM=str(fake))
    assert local.returncode == 0, local.stderr
    # By an address that is not this machine's alone; localaws answers at its own only.
    own = {f"AWS_ENDPOINT_URL_{service}": endpoint for service in ("S3", "STS")}
    real = endpoint.replace("127.0.0.1", "0.0.0.0")
    refused = checkout.run(
        "plan", "foundation", "--env", "dev", TERRAFORM=str(fake), AWS_ENDPOINT_URL=real, **own
    )
    assert refused.returncode == 1
    assert "hashicorp/aws 6.39.0 must not be used on AWS, only 6.40 or later" in refused.stderr


def test_a_public_url_gets_the_right_that_the_modules_cannot_say(
    checkout: Checkout, localaws: LocalAws
) -> None:
    """And loses it again: all of it whatever Terraform itself has to do."""
    client, name = localaws.client("lambda"), "kennel-dev-classify"
    client.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=create_role(localaws.client("iam"), "url", "lambda"),
        Handler="main.handler",
        # A zip without files.
        Code={"ZipFile": b"PK\x05\x06" + bytes(18)},
    )
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="$LATEST")
    live = {"FunctionName": name, "Qualifier": "live"}
    parameter = {"Name": "/kennel/dev/function_name"}
    localaws.client("ssm").put_parameter(**parameter, Type="String", Value=name)
    client.create_function_url_config(**live, AuthType="NONE")

    for _ in range(2):
        done(serving(checkout))
        (statement,) = json.loads(client.get_policy(**live)["Policy"])["Statement"]
        assert statement["Condition"] == {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
        assert (statement["Action"], statement["Principal"]) == ("lambda:InvokeFunction", "*")
    client.update_function_url_config(**live, AuthType="AWS_IAM")
    done(serving(checkout))
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_policy(**live)
    client.delete_function(FunctionName=name)
    localaws.client("ssm").delete_parameter(**parameter)


def test_a_question_about_destroying_comes_after_names_not_after_the_whole_plan(
    checkout: Checkout,
) -> None:
    unasked = checkout.run("destroy", "serving", "--env", "dev")
    assert unasked.returncode == 2
    assert "there is no terminal to ask on" in unasked.stderr
    assert unasked.stdout == ""
    refused = checkout.asked("destroy", "serving", "--env", "dev")
    assert refused.returncode == 1
    *told, last = refused.stdout.splitlines()
    assert told == [
        "terraform_data.endpoint will be destroyed",
        "Plan: 0 to add, 0 to change, 1 to destroy.",
    ]
    whole = Path(last.removeprefix("the whole plan: ")).read_text()
    assert '- resource "terraform_data" "endpoint" {' in whole


def test_all_is_destroyed_in_reverse(checkout: Checkout, localaws: LocalAws, s3: Any) -> None:
    ssm = localaws.client("ssm")
    # What `image` leaves there, and Terraform does not know.
    ssm.put_parameter(Name="/kennel/dev/image_uri", Type="String", Value="image")
    said = done(checkout.run("destroy", "all", "--env", "dev", "--auto-approve")).stdout
    assert said.index("terraform_data.endpoint: Destr") < said.index("terraform_data.bucket: Destr")
    for stack in ("foundation", "serving"):
        state = s3.get_object(Bucket=STATES, Key=f"dev/{stack}.tfstate")["Body"].read()
        assert json.loads(state)["resources"] == []
    left = ssm.get_parameters_by_path(Path="/kennel/dev/")["Parameters"]
    assert [parameter["Name"] for parameter in left] == ["/kennel/dev/bucket"]
    again = done(checkout.run("destroy", "all", "--env", "dev", "--auto-approve"))
    assert "serving (dev) holds nothing" in again.stderr
    assert "foundation (dev) holds nothing" in again.stderr
    assert " -m terraform.cli bootstrap --delete --env dev` removes it" in again.stderr
    assert again.stderr.splitlines()[-1].startswith("next: ")


MORE_OUTPUTS = """
output "ask" {
  value = "aws lambda invoke --payload '{\\"url\\": \\"it\\"}'; aws sts get-caller-identity"
}
output "bucket" { value = "data" }
output "history" { value = ["one"] }
output "page" { value = "https://us-east-1.console.aws.amazon.com/cloudwatch/home" }
output "script" {
  value     = "set -e\\nif ! found=$(aws ec2 run-instances $1); then exit 7; fi"
  sensitive = true
}
"""


def test_in_a_closed_environment_commands_work_as_they_are_printed(
    checkout: Checkout, localaws: LocalAws, tmp_path: Path
) -> None:
    environments = checkout.folder / "terraform/environments"
    for suffix in (".tfvars", ".s3.tfbackend"):
        text = (environments / f"dev{suffix}").read_text().replace('"dev"', '"here"')
        (environments / f"here{suffix}").write_text(text)
    (environments / "here.aws.toml").write_text(
        f'endpoint = "{localaws.endpoint}"\naccess_key_id = "test"\nsecret_access_key = "test"\n'
        'port_variable = "PORT_OF_IT"\nserver_file = "none/server.json"\n'
    )
    stack = checkout.folder / "terraform/stacks/foundation/main.tf"
    before = stack.read_text()
    stack.write_text(before + MORE_OUTPUTS)
    port = localaws.endpoint.rpartition(":")[2]

    def here(command: str, *flags: str) -> str:
        given = (command, "foundation", "--env", "here", *flags)
        return done(checkout.run(*given, PORT_OF_IT=port)).stdout

    try:
        applied = here("apply", "--auto-approve")
        shown, as_json = here("output"), here("output", "--json")
    finally:
        stack.write_text(before)
    assert "Apply complete!" in applied
    assert applied.count("\nOutputs:") == 1
    assert f"\nOutputs:\n\n{shown}" in applied
    ask, *others = shown.splitlines()
    assert others == ["bucket = data", 'history = ["one"]', "script = <sensitive>"]

    aws = tmp_path / "aws"
    aws.write_text('#!/bin/sh\necho "$AWS_ENDPOINT_URL $AWS_ACCESS_KEY_ID $AWS_PROFILE $*"\n')
    aws.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "AWS_PROFILE": "work"}

    def said(command: str, *arguments: str) -> list[str]:
        run = ["bash", "-c", f"{command}\necho $AWS_PROFILE", *arguments]
        return subprocess.check_output(run, env=environ, text=True).splitlines()

    assert said(ask.removeprefix("ask = ")) == [
        f'{localaws.endpoint} test  lambda invoke --payload {{"url": "it"}}',
        f"{localaws.endpoint} test  sts get-caller-identity",
        "work",
    ]
    values = json.loads(as_json)["foundation"]
    assert values["page"] is None
    assert values["bucket"] == "data"
    aws.write_text("#!/bin/sh\nexit 1\n")
    failed = subprocess.run(
        ["bash", "-s", "request.json"], input=values["script"], env=environ, text=True
    )
    assert failed.returncode == 7


OLD = {"archive_uri": "s3://b/models/old/model.tar.gz", "digest": "0" * 64, "image_uri": "i@1"}
OLDER = {"archive_uri": "s3://b/models/older/model.tar.gz", "digest": "f" * 64, "image_uri": "i@0"}
OLDEST = {"archive_uri": "s3://b/models/e/model.tar.gz", "digest": "e" * 64, "image_uri": "i@0"}
NEW = Archive("b", "1" * 64)


def named(model: dict[str, str]) -> dict[str, str]:
    return {key: model[key] for key in ("archive_uri", "digest")}


@pytest.mark.parametrize(
    ("outputs", "requested", "model", "before"),
    [
        ({}, NEW, {"archive_uri": NEW.uri, "digest": NEW.digest}, []),
        ({"model": OLD}, NEW, {"archive_uri": NEW.uri, "digest": NEW.digest}, [OLD]),
        (
            {"model": OLD, "previous_model": OLDER},
            NEW,
            {"archive_uri": NEW.uri, "digest": NEW.digest},
            [OLD, OLDER],
        ),
        (
            {"model": OLD, "previous_model": OLDER, "history": [OLDEST]},
            NEW,
            {"archive_uri": NEW.uri, "digest": NEW.digest},
            [OLD, OLDER, OLDEST],
        ),
        ({"model": OLD, "previous_model": OLDER}, None, named(OLD), [OLDER]),
        ({"model": OLD}, None, named(OLD), []),
        (
            {"model": OLD, "previous_model": OLDER},
            Archive("b", OLD["digest"]),
            {"archive_uri": "s3://b/models/000000000000/model.tar.gz", "digest": OLD["digest"]},
            [OLDER],
        ),
        # What comes back is not its own past.
        (
            {"model": OLD, "previous_model": OLDER, "history": [OLDEST]},
            Archive("b", OLDER["digest"]),
            {"archive_uri": "s3://b/models/ffffffffffff/model.tar.gz", "digest": OLDER["digest"]},
            [OLD, OLDEST],
        ),
    ],
)
def test_which_model_is_served_and_which_is_kept(
    outputs: dict[str, Any], requested: Archive | None, model: dict[str, str], before: Any
) -> None:
    assert choose(outputs, requested) == models(model, before)


def models(model: dict[str, str], before: list[dict[str, str]]) -> dict[str, Any]:
    previous = before[0] if before else None
    return {"model": model, "previous_model": previous, "history": before[1:]}


def test_a_rollback_goes_back_step_by_step_and_never_forward() -> None:
    outputs = models(OLD, [OLDER, OLDEST])
    for served in (OLDER, OLDEST):
        outputs = former(outputs)
        assert outputs["model"] == served
    assert outputs == models(OLDEST, [])
    with pytest.raises(UsageError, match=r"no former model .* eeeeeeeeeeee is the first"):
        former(outputs)


@pytest.mark.parametrize(
    ("served", "before"), [(OLD, [OLDER, OLDEST]), (OLDER, [OLDEST]), (OLDEST, [])]
)
def test_what_serves_after_a_failed_release_keeps_its_past(
    served: dict[str, str], before: list[dict[str, str]]
) -> None:
    assert restored(models(OLD, [OLDER, OLDEST]), served) == models(served, before)


def test_without_a_model_there_is_nothing_to_choose() -> None:
    with pytest.raises(UsageError, match="no model is deployed"):
        choose({}, None)


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("http://127.0.0.1:4588", True),
        ("http://127.1.2.3", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("https://sagemaker.us-east-1.amazonaws.com", False),
        ("http://127.0.0.1.example.com", False),
        ("", False),
        (None, False),
    ],
)
def test_what_counts_as_this_machine(endpoint: str | None, local: bool) -> None:
    assert is_loopback(endpoint) is local


def test_the_project_is_the_stacks_default() -> None:
    for stack in ("foundation", "serving"):
        text = (ROOT / "terraform/stacks" / stack / "variables.tf").read_text()
        project = text.split('variable "project" {')[1].split("\n}\n")[0]
        assert f'default     = "{PROJECT}"' in project


def test_a_read_only_checkout_applies_from_a_copy(localaws: LocalAws, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout", localaws.environment)
    # An environment of its own, for localaws has the states of other tests.
    for path in (checkout.folder / "terraform/environments").iterdir():
        text = path.read_text().replace('"dev"', '"sealed"')
        path.with_name(path.name.replace("dev", "sealed")).write_text(text)
    folders = [path for path in checkout.folder.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    out = tmp_path / "out"
    # Root writes wherever it likes, unless it has given that right up.
    rights = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    try:
        for command in (["bootstrap"], ["apply", "foundation", "--auto-approve", f"--out={out}"]):
            finished = subprocess.run(
                [*rights, sys.executable, "-m", "terraform.cli", *command, "--env", "sealed"],
                cwd=checkout.folder,
                env={**checkout.environ, "KENNEL_OUT": str(out)},
                capture_output=True,
                text=True,
            )
            assert finished.returncode == 0, finished.stderr
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert "1 added" in finished.stdout
    assert not [*checkout.folder.rglob("*.lock.hcl"), *(checkout.folder / "build").glob("terra*")]

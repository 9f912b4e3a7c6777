"""What Terraform makes of lost answers about its state: nothing is lost, and nobody locked out."""

import getpass
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from terraform.cli import stack, state_lock
from tests.terraform.checkout import Checkout, done, make_checkout
from tests.terraform.conftest import LocalAws
from trainer.errors import KennelError
from trainer.target import Target

STATES = "kennel-tfstate-123456789012-us-east-1"
STATE = "lost/foundation.tfstate"
LOCK = f"{STATE}.tflock"
OWN, OTHER = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
HERE = f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.fixture(scope="module")
def s3(localaws: LocalAws) -> Iterator[Any]:
    client = localaws.client("s3")
    client.create_bucket(Bucket=STATES)
    yield client
    client.delete_object(Bucket=STATES, Key=STATE)


@pytest.fixture(scope="module")
def checkout(localaws: LocalAws, s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """One with an environment that no other test uses."""
    made = make_checkout(tmp_path_factory.mktemp("lost") / "checkout", localaws.environment)
    for path in (made.folder / "terraform/environments").iterdir():
        text = path.read_text().replace('"dev"', '"lost"')
        path.rename(path.with_name(path.name.replace("dev", "lost"))).write_text(text)
    return made


def lose_the_next(localaws: LocalAws, call: str) -> None:
    page = f"{localaws.endpoint}/_localaws/weather?next=lost&call={call}"
    urllib.request.urlopen(urllib.request.Request(page, method="POST")).close()


def foundation(checkout: Checkout, command: str, *arguments: str) -> Any:
    return checkout.run(command, "foundation", "--env", "lost", *arguments)


def is_locked(s3: Any) -> bool:
    return "Contents" in s3.list_objects_v2(Bucket=STATES, Prefix=LOCK)


def lock(s3: Any, lock_id: str) -> str:
    """Lock the state as somebody else does; give the object's entity tag."""
    held = {"ID": lock_id, "Who": HERE, "Created": "2026-01-02T03:04:05Z"}
    return str(s3.put_object(Bucket=STATES, Key=LOCK, Body=json.dumps(held))["ETag"])


def test_a_run_that_meets_its_own_lock_goes_on(
    checkout: Checkout, localaws: LocalAws, s3: Any
) -> None:
    lose_the_next(localaws, "s3:PutObject")
    planned = done(foundation(checkout, "plan"))
    assert "Error acquiring the state lock" in planned.stderr
    assert "note: that lock was this run's own, which has ended: it is gone" in planned.stderr
    assert "1 to add" in planned.stdout
    assert not is_locked(s3)


def test_another_run_s_lock_stays_even_of_the_same_user_and_machine(
    checkout: Checkout, s3: Any
) -> None:
    etag = lock(s3, OTHER)
    refused = foundation(checkout, "plan")
    assert refused.returncode == 1
    assert f"The state is locked by {HERE} since" in refused.stderr
    assert f"`make unlock STACK=foundation LOCK={OTHER} ENV=lost`" in refused.stderr
    assert s3.head_object(Bucket=STATES, Key=LOCK)["ETag"] == etag
    s3.delete_object(Bucket=STATES, Key=LOCK)


@pytest.fixture
def target(localaws: LocalAws, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Target:
    for name, value in localaws.environment.items():
        monkeypatch.setenv(name, value)
    return Target("lost", "kennel", "us-east-1")


def test_a_lock_that_another_takes_at_this_moment_stays(
    target: Target, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = state_lock.Lock(OWN, HERE, "", lock(s3, OWN))
    lock(s3, OTHER)
    monkeypatch.setattr(state_lock, "find", lambda *_: seen)
    assert not state_lock.let_go(target, STATE, {OWN})
    monkeypatch.undo()
    found = state_lock.find(target, STATE)
    assert found
    assert found.id == OTHER
    assert not state_lock.let_go(target, STATE, {OWN})
    assert not state_lock.let_go(target, STATE, set())
    assert state_lock.let_go(target, STATE, {OTHER, OWN})
    assert not is_locked(s3)


def test_a_lock_is_gone_where_the_answer_to_its_removal_is_lost(
    target: Target, localaws: LocalAws, s3: Any
) -> None:
    lock(s3, OWN)
    lose_the_next(localaws, "s3:DeleteObject")
    assert state_lock.let_go(target, STATE, {OWN})
    assert not is_locked(s3)


LOGGED = """\
2026-11-30T16:46:39Z [INFO]  backend-s3: {said} remote state (S3 Native only){end}: \
tf_backend.lock.id={id} tf_backend.lock.info="" tf_backend.operation=Lock
"""


def test_what_terraform_logs_of_its_locks(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert state_lock.not_given_back(log) == set()
    taken = LOGGED.format(said="Attempting to lock", end="...", id=OWN)
    log.write_text(taken)
    assert state_lock.not_given_back(log) == {OWN}
    log.write_text(taken + LOGGED.format(said="Unlocked", end="", id=OWN))
    assert state_lock.not_given_back(log) == set()


def test_who_reads_terraform_s_log_gets_it_as_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert state_lock.logging({}, log) == {"TF_LOG_CORE": "INFO", "TF_LOG_PATH": str(log)}
    for name in ("TF_LOG", "TF_LOG_CORE", "TF_LOG_PATH"):
        assert state_lock.logging({name: "x"}, log) == {name: "x"}


def deny_the_state(s3: Any) -> None:
    denied = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{STATES}/{STATE}",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    s3.put_bucket_policy(Bucket=STATES, Policy=policy)


def test_a_state_that_could_not_be_saved_is_saved_by_the_next_command(
    checkout: Checkout, s3: Any
) -> None:
    deny_the_state(s3)
    failed = foundation(checkout, "apply", "--auto-approve")
    kept = checkout.folder / "terraform/stacks/foundation/errored.lost.tfstate"
    said = f"error: the state of foundation (lost) is not saved: what was made is known to {kept}"
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(said)
    assert "is in the state" not in failed.stderr
    assert not is_locked(s3)
    made = json.loads(kept.read_text())
    assert [resource["name"] for resource in made["resources"]] == ["bucket"]
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=STATES, Key=STATE)

    s3.delete_bucket_policy(Bucket=STATES)
    again = done(foundation(checkout, "apply", "--auto-approve"))
    assert "the state of foundation (lost) is saved" in again.stderr
    assert "No changes." in again.stdout
    assert not kept.exists()
    saved = json.loads(s3.get_object(Bucket=STATES, Key=STATE)["Body"].read())
    assert saved["resources"] == made["resources"]


def state(lineage: str, serial: int) -> str:
    return json.dumps({"lineage": lineage, "serial": serial})


@pytest.fixture
def foundation_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stack.Stack:
    """A foundation with the state `OWN`, of serial 5; what is saved is told by `pushed`."""
    made = stack.Stack("foundation", Target("lost", "kennel", "us-east-1"), tmp_path)
    vars(made)["folder"] = tmp_path
    made.data.mkdir(parents=True)
    monkeypatch.setattr(stack, "_said", lambda *_: state(OWN, 5))

    def push(_: stack.Stack, *words: str) -> int:
        assert words[:2] == ("state", "push")
        (tmp_path / "pushed").write_text(Path(words[2]).read_text())
        return 0

    monkeypatch.setattr(stack, "_run_until_free", push)
    return made


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (state(OWN, 4), r"has another one by now \(serial 5, there 4\)"),
        (state(OTHER, 9), r"has another one by now"),
    ],
)
def test_a_state_is_not_saved_over_another(
    foundation_of: stack.Stack, left: str, said: str
) -> None:
    foundation_of.unsaved.write_text(left)
    with pytest.raises(KennelError, match=said):
        stack._save(foundation_of)
    assert foundation_of.unsaved.read_text() == left
    assert not (foundation_of.folder / "pushed").exists()


def test_a_state_that_nobody_kept_is_saved_where_it_belongs(foundation_of: stack.Stack) -> None:
    # As a killed run leaves it, or Terraform by itself.
    left = foundation_of.folder / "errored.tfstate"
    left.write_text(state(OTHER, 9))
    with pytest.raises(KennelError, match="not known to be that of"):
        stack._save(foundation_of)
    assert left.read_text() == state(OTHER, 9)
    left.write_text(state(OWN, 6))
    assert stack._save(foundation_of)
    assert (foundation_of.folder / "pushed").read_text() == state(OWN, 6)
    assert not left.exists()
    assert not foundation_of.unsaved.exists()
    assert not stack._save(foundation_of)

"""Runs Terraform on a stack of an environment: what was shown is what is applied."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Thread
from typing import IO, Any, NoReturn

import terraform.cli
from terraform.cli import (
    adopt,
    binary,
    compare,
    function,
    model,
    objects,
    provider,
    provider_lock,
    settings,
    settling,
    state_lock,
    summary,
)
from terraform.cli import outputs as outputs_here
from terraform.cli.paths import TERRAFORM, root_module
from trainer.errors import Interrupted, KennelError, UsageError
from trainer.fence import is_loopback
from trainer.files import read_json, write_json_atomic, write_text_atomic
from trainer.make_command import make_command
from trainer.patience import ATTEMPTS
from trainer.target import Target

STACKS = ("foundation", "serving")
"""In the order in which they are applied; each needs those before it."""

OLDEST_ON_AWS = (6, 40)
"""First version of the provider that may work on AWS.

Before 6.21 it updates an endpoint to the configuration that it has already; before 6.29 a public
function URL answers 403; from 6.22 to 6.39 the bucket's encryption is a change in every plan.

Source: hashicorp/terraform-provider-aws, issues 40048 and 44829; cloudposse's
terraform-aws-cloudfront-s3-cdn, issue 379.
"""

CHANGES = 2
"""Exit code of `plan -detailed-exitcode` when there is something to do."""

Choice = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From the outputs of `serving` to its variables of models."""

Begin = Callable[[], object]
"""What is done between the consent and the apply."""

# Seconds until AWS knows a new role everywhere: 10 as a rule, a minute at times. The provider waits
# for it by itself for some resources, not for notebooks.
_ROLE_SECONDS = 15.0
_ROLE_ATTEMPTS = 4
_FETCH = frozenset({"get", "init", "providers"})
_UNKNOWN = {"archive_uri": f"s3://none/models/{'0' * 12}/model.tar.gz", "digest": "0" * 64}

# How often a change is tried that SageMaker refuses since the endpoint changes by itself, or that
# an answer of S3's which got lost has stopped.
_TRIES = 5
# How many lines may stand before a question where nobody knows how many the terminal has.
_SHOWN_LINES = 200
# Terraform's warnings of `-target`, which `destroy` gives by itself for what keeps its data.
_TARGETED = (
    "Warning: Resource targeting is in effect",
    "Warning: Applied changes may be incomplete",
)
_TARGETED_LINES = 16
# Where Terraform writes a state that it could not save.
_UNSAVED = "errored.tfstate"


@dataclass(frozen=True)
class Stack:
    """One stack in one environment.

    Attributes:
        name: One of `STACKS`.
        target: The environment.
        out: Folder of all that is built.
        told: Where Terraform's words go; None for standard output.
        signals: Those that Terraform was told to stop by.
    """

    name: str
    target: Target
    out: Path
    told: IO[str] | None = None
    signals: list[int] = field(default_factory=list, compare=False)

    @cached_property
    def folder(self) -> Path:
        """The root module's folder."""
        return root_module(self.name)

    @property
    def data(self) -> Path:
        """Terraform's own data, apart for each environment: changing it disturbs no other."""
        return (self.out / "terraform" / self.target.name / self.name).absolute()

    @property
    def plan_file(self) -> Path:
        """Where the plan is saved that will be applied."""
        return self.data / "plan"

    @property
    def plan_text(self) -> Path:
        """Where what a plan says is kept, if it was too long to be shown."""
        return self.data / "plan.txt"

    @property
    def stopped_log(self) -> Path:
        """Where Terraform's errors are kept if it was told to stop in the midst of its work."""
        return self.data / "stopped.log"

    @property
    def state_key(self) -> str:
        """Key of the state in the state bucket."""
        return f"{self.target.name}/{self.name}.tfstate"

    @property
    def unsaved(self) -> Path:
        """Where a state is kept that Terraform could not save; `make clean` leaves it."""
        place = self.folder if self.folder.is_relative_to(TERRAFORM) else self.data
        return place / f"errored.{self.target.name}.tfstate"

    @property
    def lock_file(self) -> Path:
        """Which version of the provider was chosen: the environment's lock, or Terraform's own."""
        return self.folder / provider_lock.NAME

    @cached_property
    def environ(self) -> dict[str, str]:
        """The environment that Terraform runs in."""
        own = {
            "TF_DATA_DIR": str(self.data),
            "TF_IN_AUTOMATION": "1",
            # Names come from the environment's files, whatever the shell says.
            "TF_VAR_project": self.target.project,
        }
        return terraform.cli.environment(self.target.fence) | own

    def environ_of(self, command: str) -> dict[str, str]:
        """The same for one command; what fetches the provider leaves a closed environment."""
        fence = self.target.fence
        if fence is None:
            return self.environ
        return fence.with_proxies(self.environ) if command in _FETCH else fence.walled(self.environ)

    def command(self, *arguments: str) -> list[str]:
        """Terraform with arguments."""
        return [str(binary.find()), *arguments]

    def run(
        self,
        *arguments: str,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
        folder: Path | None = None,
        log: Path | None = None,
        colored: bool | None = None,
    ) -> int:
        """Run Terraform to its end and give its exit code.

        Signals reach it through this process, each once: a second Ctrl-C makes Terraform drop what
        it is doing, and a terminal sends one to every process of the group.
        """
        stdout = stdout or self.told
        if colored is None:
            colored = (stdout or sys.stdout).isatty()
        color = () if colored else ("-no-color",)
        words = 2 if arguments[0] == "state" else 1
        environ = self.environ_of(arguments[0])
        with subprocess.Popen(
            self.command(*arguments[:words], *color, *arguments[words:]),
            cwd=folder or self.folder,
            env=state_lock.logging(environ, log) if log else environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            process_group=0,
        ) as process:

            def pass_on(number: int, _: Any) -> None:
                self.signals.append(number)
                # A hangup would end Terraform at once, with the state locked.
                process.send_signal(signal.SIGINT if number == signal.SIGHUP else number)

            signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            former = {number: signal.signal(number, pass_on) for number in signals}
            try:
                return process.wait()
            finally:
                for number, handler in former.items():
                    signal.signal(number, handler)

    def run_locked(
        self,
        *arguments: str,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
        folder: Path | None = None,
        colored: bool | None = None,
    ) -> tuple[int, bool]:
        """Run Terraform with the state locked.

        Returns:
            Its exit code, and whether it has left a lock of its own, which is gone now: then the
            same may be done again.
        """
        with tempfile.TemporaryDirectory(prefix="kennel-lock-") as temporary:
            log = Path(temporary) / "log"
            code = self.run(
                *arguments, stdout=stdout, stderr=stderr, folder=folder, log=log, colored=colored
            )
            # What was killed may have left something that goes on.
            left = state_lock.not_given_back(log) if code >= 0 else ()
        is_freed = state_lock.let_go(self.target, self.state_key, left)
        if is_freed:
            sys.stderr.write("note: that lock was this run's own, which has ended: it is gone\n")
        return code, is_freed

    def become(self, *arguments: str) -> NoReturn:
        """Run Terraform in this process's place."""
        sys.stdout.flush()
        os.chdir(self.folder)
        command = self.command(*arguments)
        os.execve(command[0], command, self.environ_of("".join(arguments[:1])))  # noqa: S606


def prepare(stack: Stack, *, saves: bool = True) -> None:
    """Initialize a stack, if anything that this depends on has changed.

    Args:
        stack: The stack.
        saves: Save first what an earlier apply could not.

    Raises:
        KennelError: There is no state bucket, `init` fails, the provider is too old for AWS, or
            what an earlier apply has made cannot be saved.
    """
    target = stack.target
    stamp = stack.data / "kennel-init"
    is_locked = provider_lock.take(target, stack.lock_file)
    _remove_damaged_pointer(stack)
    if not stamp.exists() or stamp.read_text() != _fingerprint(stack):
        _check_state_bucket(target)
        _initialize(stack, is_locked)
        write_text_atomic(stamp, _fingerprint(stack))
    if not is_loopback(os.environ.get("AWS_ENDPOINT_URL")):
        _check_provider(stack)
    if saves:
        _save(stack)


def plan(stack: Stack, requested: str | None, extra: Sequence[str]) -> int:
    """Show and save a plan, and what it comes to; give Terraform's exit code."""
    archive = _archive(stack, requested)
    code = _plan(stack, _choice(archive), extra)
    if stack.plan_file.exists():
        shown = planned(stack)
        _summarize(stack, shown)
        if summary.has_changes(shown):
            named = (requested or "") if archive else ""
            command = make_command("apply", stack.target.name, STACK=stack.name, MODEL=named)
            sys.stderr.write(f"next: `{command}`\n")
    return code


def apply(stack: Stack, requested: str | None, extra: Sequence[str], approved: bool) -> int:
    """Show a plan, ask, and apply this very plan; give Terraform's exit code.

    Args:
        stack: What to apply.
        requested: The model to serve: a path or an address in S3; None for the present one.
        extra: More arguments of `terraform plan`.
        approved: Do not ask, and show only what the plan comes to.
    """
    archive = _archive(stack, requested)
    if archive:
        _warn(stack, archive)

    def begin() -> None:
        if archive:
            model.publish(archive, stack.target)

    return _opened(stack, _apply(stack, _choice(archive), begin, extra, approved))


def release(
    stack: Stack, archive: model.Archive, begin: Begin, extra: Sequence[str], approved: bool
) -> int:
    """Like `apply`, of a model that `begin` brings to the bucket once somebody has said yes."""
    return _opened(stack, _apply(stack, _choice(archive), begin, extra, approved))


def roll_back(stack: Stack, choice: Choice, extra: Sequence[str], approved: bool) -> int:
    """Like `apply`, to a model that has been served: `model.former` or `model.restored`."""
    return _opened(stack, _apply(stack, choice, lambda: None, extra, approved))


def plan_destroy(stack: Stack, extra: Sequence[str], approved: bool) -> int:
    """Save what would be destroyed, and show its names; give Terraform's exit code.

    Args:
        stack: What is to be destroyed.
        extra: More arguments of `terraform plan`.
        approved: Nobody is asked: what the plan comes to is enough.

    Returns:
        `CHANGES` if there is anything.
    """
    arguments = ["-detailed-exitcode", "-destroy", *extra]
    return _plan(stack, _choice(None), arguments, brief=True, named=not approved)


def apply_destroy(stack: Stack, extra: Sequence[str], tries: int = _TRIES) -> int:
    """Destroy what `plan_destroy` has shown; give Terraform's exit code.

    Args:
        stack: What is destroyed.
        extra: The arguments that `plan_destroy` was given.
        tries: How often at most, where what stops it passes.
    """
    code, stopped = _apply_plan(stack, destroying=True)
    stack.plan_file.unlink(missing_ok=True)
    if stopped.passing and tries > 1:
        code = plan_destroy(stack, extra, approved=True)
        if code == CHANGES:
            return apply_destroy(stack, extra, tries - 1)
    if code != 0:
        _explain(stack, "destroy")
    return code


def unlock(stack: Stack, lock_id: str, approved: bool) -> int:
    """Break the lock of a stack's state, which a killed run has left; give Terraform's exit code.

    Raises:
        UsageError: That is not the lock's id.
        KennelError: Somebody says no.
    """
    label = f"{stack.name} ({stack.target.name})"
    lock = state_lock.find(stack.target, stack.state_key)
    if not lock:
        sys.stderr.write(f"the state of {label} is not locked\n")
        return 0
    held = f"{lock.who} since {lock.created}"
    if lock.id != lock_id:
        raise UsageError(f"LOCK={lock_id}: {label} is locked by {held}, as LOCK={lock.id}")
    if not approved:
        ask(f"Break the lock of {held}? That run must be dead.", stack.target.name, label)
    return stack.run("force-unlock", "-force", lock_id)


def outputs(stack: Stack) -> dict[str, Any]:
    """The stack's present outputs by name; empty before its first deployment.

    Raises:
        KennelError: Terraform cannot read the state.
    """
    return {name: entry["value"] for name, entry in told_outputs(stack).items()}


def told_outputs(stack: Stack) -> dict[str, dict[str, Any]]:
    """The same as Terraform tells them: `value`, `type` and `sensitive` of each.

    Raises:
        KennelError: Terraform cannot read the state.
    """
    entries: dict[str, dict[str, Any]] = json.loads(_said(stack, "output", "-json"))
    return entries


def provider_version(stack: Stack) -> str | None:
    """Version of the AWS provider that was chosen for a stack; None before its first `prepare`.

    Raises:
        KennelError: There is no Terraform.
    """
    selected: dict[str, str] = json.loads(_said(stack, "version", "-json"))["provider_selections"]
    chosen = (version for name, version in selected.items() if name.endswith(provider.PROVIDER))
    return next(chosen, None)


def suits_aws(version: str) -> bool:
    """Whether a version of the provider may work on AWS."""
    return tuple(map(int, version.split(".")[:2])) >= OLDEST_ON_AWS


def resources(stack: Stack) -> list[dict[str, Any]]:
    """What the stack's state holds, as Terraform writes it.

    Raises:
        KennelError: Terraform cannot read the state.
    """
    state = _said(stack, "state", "pull")
    found: list[dict[str, Any]] = json.loads(state)["resources"] if state else []
    return found


def _run_until_free(stack: Stack, *arguments: str, **given: Any) -> int:
    """Run what may be run twice, again where a lock of its own stopped it; give its exit code."""
    for _ in range(_TRIES):
        code, is_freed = stack.run_locked(*arguments, **given)
        if not is_freed:
            break
    return code


def _said(stack: Stack, *arguments: str) -> str:
    """What Terraform prints."""
    finished = subprocess.run(
        stack.command(*arguments),
        cwd=stack.folder,
        env=stack.environ_of(arguments[0]),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise KennelError(f"`terraform {' '.join(arguments)}` of {stack.name} failed; see above")
    return finished.stdout


def _remove_damaged_pointer(stack: Stack) -> None:
    """Remove what says where the state is, if it is damaged, so that it is written anew."""
    pointer = stack.data / "terraform.tfstate"
    if os.path.lexists(pointer) and not read_json(pointer):
        shutil.rmtree(pointer) if pointer.is_dir() else pointer.unlink()
        (stack.data / "kennel-init").unlink(missing_ok=True)


def _initialize(stack: Stack, is_locked: bool) -> None:
    target = stack.target
    sys.stderr.write(f"initializing {stack.name} ({target.name})\n")
    with tempfile.TemporaryFile("w+") as said:
        code = stack.run(
            *("init", "-input=false", "-reconfigure"),
            f"-backend-config={target.backend_file}",
            f"-backend-config=bucket={target.state_bucket}",
            f"-backend-config=key={stack.state_key}",
            f"-backend-config=region={target.region}",
            f"-backend-config=max_retries={ATTEMPTS}",
            *(["-lockfile=readonly"] if is_locked else []),
            stdout=said,
        )
        if code != 0:
            said.seek(0)
            sys.stderr.write(said.read())
            place = provider_lock.path(target) if is_locked else stack.lock_file
            raise KennelError(
                f"`terraform init` of {stack.name} failed; see above (remove {place} if "
                "it asks for a version of the provider that can no longer be had)"
            )


def _archive(stack: Stack, requested: str | None) -> model.Archive | None:
    if requested is None or stack.name != "serving":
        return None
    return model.locate(requested, stack.target)


def _warn(stack: Stack, archive: model.Archive) -> None:
    """Say how a model differs from the one that serves, which `deploy` would refuse."""
    present = outputs(stack).get("model")
    if present and present["digest"] != archive.digest:
        opened = model.opened(model.fetch(archive, stack.target), archive.uri)
        found = compare.with_other(opened, present, "which serves", stack.target)
        for remark in filter(None, (found.other_labels, *found.remarks)):
            sys.stderr.write(f"warning: {remark}\n")


def _choice(archive: model.Archive | None) -> Choice:
    return partial(model.choose, requested=archive)


def _opened(stack: Stack, code: int) -> int:
    """Give the code, after a success with the new version and all that its URL needs in service."""
    if code == 0 and stack.name == "serving":
        settling.wait_for_alias(stack.target)
        function.complete_url(stack.target)
    return code


def _apply(
    stack: Stack,
    choice: Choice,
    begin: Begin,
    extra: Sequence[str],
    approved: bool,
    imports: Mapping[str, str] | None = None,
    tries: int = _TRIES,
    patience: int = _ROLE_ATTEMPTS,
) -> int:
    if stack.name == "serving":
        # What a stopped run has begun is part of what the plan starts from.
        _wait_for_endpoint(stack)
        settling.wait_for_alias(stack.target)
    arguments = ["-detailed-exitcode", *extra]
    code = _plan(stack, choice, arguments, imports, brief=approved, asks=not approved)
    if code != CHANGES:
        return code
    if not approved or summary.deletes(stack.plan_text.read_text(), objects.HOLDERS):
        plan = planned(stack)
        _require_data_kept(stack, plan)
    if not approved:
        _summarize(stack, plan)
        label = f"{stack.name} ({stack.target.name})"
        ask(f"Apply this to {label}, account {stack.target.account}?", "yes", label)
    begin()
    # Reading a plan takes seconds of the provider's, and nobody waits for its summary here.
    with ThreadPoolExecutor(1) as beside:
        read = beside.submit(planned, stack) if approved else None
        code, stopped = _apply_plan(stack)
    stack.plan_file.unlink(missing_ok=True)
    if stopped.early and patience:
        sys.stderr.write("AWS does not know a new role everywhere yet: it is tried again\n")
        time.sleep(_ROLE_SECONDS)
        return _apply(stack, choice, begin, extra, approved, stopped.existing, tries, patience - 1)
    if code == 0:
        if stack.target.fence:
            _tell(stack, "Outputs:", "", *outputs_here.lines(told_outputs(stack)), "")
        if read and not read.exception():
            _summarize(stack, read.result(), applied=True)
        return 0
    if stopped.passing and tries > 1:
        return _apply(stack, choice, begin, extra, approved, imports, tries - 1, patience)
    if stopped.existing:
        names = ", ".join(stopped.existing)
        sys.stderr.write(f"There already, as a run that was killed leaves it: {names}\n")
        return _apply(stack, choice, begin, extra, approved, stopped.existing, patience=patience)
    _explain(stack, "apply")
    return code


def _require_data_kept(stack: Stack, plan: Mapping[str, Any]) -> None:
    """Refuse a plan that takes data away: only `destroy` does, and asks for them by name.

    Raises:
        KennelError: It does.
    """
    for change in summary.deleted(plan):
        if change["type"] not in objects.HOLDERS:
            continue
        if held := objects.held(stack.target, change["type"], summary.name(change)):
            raise KennelError(
                f"{change['address']} would go with {held}, nothing was changed: undo what "
                "replaces it in the environment's files, or move the data elsewhere first"
            )


def _plan(
    stack: Stack,
    choice: Choice,
    arguments: Sequence[str],
    imports: Mapping[str, str] | None = None,
    *,
    brief: bool = False,
    named: bool = False,
    asks: bool = False,
) -> int:
    """Show and save a plan.

    Args:
        stack: Of what.
        choice: Which models its variables name.
        arguments: More of `terraform plan`.
        imports: What it takes in, as `adopt.imports`.
        brief: Show only what it comes to.
        named: And a line for each resource.
        asks: A question follows: show it whole only if the terminal is high enough.

    Returns:
        Terraform's exit code.
    """
    files = stack.target.variable_files(stack.name)
    if stack.name == "serving":
        files.append(_serving_variables(stack, choice, destroying="-destroy" in arguments))
    stack.plan_file.unlink(missing_ok=True)
    told = _written(stack) if brief or asks else nullcontext()
    colored = (stack.told or sys.stdout).isatty() and not brief
    with (
        tempfile.TemporaryFile("w+") as errors,
        told as said,
        adopt.importing(stack.folder, imports or {}) as folder,
    ):
        code = _run_until_free(
            stack,
            "plan",
            "-input=false",
            f"-out={stack.plan_file}",
            *(f"-var-file={path}" for path in files),
            *arguments,
            stdout=said,
            stderr=errors,
            folder=folder,
            colored=colored,
        )
        _pass_on_errors(stack, errors)
    if stack.signals:
        # Also one that came to its end all the same is not to be applied.
        stack.plan_file.unlink(missing_ok=True)
        sys.stderr.write(_lock_left(stack))
        kind = Interrupted if stack.signals[0] == signal.SIGINT else KennelError
        raise kind(
            f"the plan of {stack.name} ({stack.target.name}) was stopped by {_stopper(stack)}, "
            "nothing was changed by it, and the same command begins it anew; Terraform's errors: "
            f"{stack.stopped_log}"
        )
    if brief:
        text = stack.plan_text.read_text()
        short = [*(summary.named(text) if named else ()), *summary.in_short(text)]
        if "-destroy" in arguments:
            short = [line for line in short if not line.startswith(_TARGETED)]
        _tell(stack, *short, f"the whole plan: {stack.plan_text}")
    elif asks:
        _show_before_question(stack)
    if code not in (0, CHANGES):
        sys.stderr.write(_lock_left(stack))
    elif imports and (foreign := adopt.foreign(planned(stack)["resource_changes"])):
        raise KennelError(
            f"{', '.join(foreign)}: there already, but not from {stack.name} "
            f"({stack.target.name}) by the tags; remove it, or take it in by `terraform import`"
        )
    return code


def _show_before_question(stack: Stack) -> None:
    """Show a plan whole, or what it comes to if the question would be far below its beginning."""
    told = stack.told or sys.stdout
    height = os.get_terminal_size(told.fileno()).lines if told.isatty() else 0
    room = height or _SHOWN_LINES
    shown = stack.plan_text.read_text()
    text = adopt.without_colour(shown)
    write_text_atomic(stack.plan_text, text)
    if text.count("\n") <= room:
        told.write(shown)
        told.flush()
        return
    names = summary.named(text)
    short = [*(names if len(names) <= room else ()), *summary.in_short(text)]
    _tell(stack, *short, f"the whole plan: {stack.plan_text}")


def _pass_on_errors(stack: Stack, errors: IO[str]) -> str:
    """Show what Terraform has said in errors, or keep it if it was told to stop; give it."""
    errors.seek(0)
    said = errors.read()
    if stack.signals:
        write_text_atomic(stack.stopped_log, adopt.without_colour(said))
    else:
        sys.stderr.write(said)
    return said


def _stopper(stack: Stack) -> str:
    first = stack.signals[0]
    return "Ctrl-C" if first == signal.SIGINT else signal.Signals(first).name


def _serving_variables(stack: Stack, choice: Choice, destroying: bool) -> Path:
    """Write what the environment's variables cannot say: the models and the function's zip."""
    architecture = settings.architecture(stack.target)
    zip_path = (stack.out / "lambda" / f"kennel-lambda-{architecture}.zip").absolute()
    if not zip_path.exists():
        raise KennelError(f"{zip_path} is not there: `make lambda` builds it")
    if not destroying:
        stack.target.required_parameter("bucket")
    present = outputs(stack)
    if destroying and not present.get("model"):
        # A first deployment that failed early: there is no model to name, and none is needed.
        present = {"model": _UNKNOWN}
    path = _models_file(stack)
    write_json_atomic(path, {**choice(present), "lambda_zip_path": str(zip_path)})
    return path


@dataclass(frozen=True)
class _Stopped:
    """Why Terraform stopped, where the same may be done again.

    Attributes:
        existing: What the plan was to make but is there, as `adopt.imports`.
        passing: Whether the endpoint had begun to change by itself, or the state was locked or
            unsaved for a moment.
        early: Whether all that failed did so since a new role was not known yet.
    """

    existing: dict[str, str]
    passing: bool
    early: bool


def _apply_plan(stack: Stack, *, destroying: bool = False) -> tuple[int, _Stopped]:
    """Terraform's exit code, and why it stopped."""
    if stack.name == "serving":
        _wait_for_endpoint(stack)
    with tempfile.TemporaryFile("w+") as said:
        colored = (stack.told or sys.stdout).isatty()
        with _without(stack, destroying) as stdout:
            code, is_freed = stack.run_locked(
                *("apply", "-input=false", str(stack.plan_file)),
                stdout=stdout,
                stderr=said,
                colored=colored and (destroying or not stack.target.fence),
            )
        errors = _pass_on_errors(stack, said)
    # Another environment's apply may have left one there at this moment.
    if _UNSAVED in errors:
        _keep_unsaved(stack)
    is_late = stack.unsaved.exists() and _save(stack)
    existing = {}
    if adopt.conflicts(errors):
        existing = adopt.imports(errors, planned(stack)["resource_changes"], stack.target)
    passes = is_freed or is_late or settling.refused(errors)
    if stack.signals or adopt.was_interrupted(errors):
        return code, _Stopped({}, passing=False, early=False)
    return code, _Stopped(existing, code != 0 and passes, early=adopt.is_early(errors))


def _wait_for_endpoint(stack: Stack) -> None:
    if name := stack.target.parameter("endpoint_name"):
        settling.wait(stack.target, [(settling.ENDPOINT, name)])


def _keep_unsaved(stack: Stack) -> None:
    """Keep what Terraform has left in a folder that all environments share as this one's own."""
    shutil.move(stack.folder / _UNSAVED, stack.unsaved)
    stack.unsaved.chmod(0o600)


def _save(stack: Stack) -> bool:
    """Save the state of what an apply has made, if Terraform could not.

    Returns:
        Whether there was one to save.

    Raises:
        KennelError: It cannot be saved, and nothing must be done before.
    """
    label, left = f"{stack.name} ({stack.target.name})", stack.folder / _UNSAVED
    if left.exists():
        # An apply was killed, or none of these commands has run it.
        if _line(left.read_text())[0] != _line(_said(stack, "state", "pull"))[0]:
            raise KennelError(
                f"{left} is a state that Terraform could not save, and not known to be that of "
                f"{label}: rename it to errored.<environment>.tfstate, and the next command of "
                "that environment saves it"
            )
        _keep_unsaved(stack)
    if not stack.unsaved.exists():
        return False
    lost = (
        f"the state of {label} is not saved: what was made is known to {stack.unsaved} alone. "
        "Leave that file, and give the command again once the cause above is gone"
    )
    try:
        present = _said(stack, "state", "pull")
    except KennelError as error:
        raise KennelError(lost) from error
    (lineage, serial), (of, reached) = _line(stack.unsaved.read_text()), _line(present)
    if of and (of != lineage or reached > serial):
        raise KennelError(
            f"{stack.unsaved} is a state that could not be saved, and {label} has another one by "
            f"now (serial {reached}, there {serial}): move it away once what it alone names "
            f"(`terraform state list -state={stack.unsaved}`) is imported or removed"
        )
    if _run_until_free(stack, "state", "push", str(stack.unsaved)) != 0:
        raise KennelError(lost)
    stack.unsaved.unlink()
    sys.stderr.write(f"the state of {label} is saved that could not be saved before\n")
    return True


def _line(state: str) -> tuple[str, int]:
    """A state's lineage and serial; empty and 0 if there is none."""
    told = json.loads(state or "{}")
    return told.get("lineage", ""), told.get("serial", 0)


@contextmanager
def _without(stack: Stack, destroying: bool) -> Iterator[IO[str] | None]:
    """Where Terraform's words go: without what is for nobody.

    That is the outputs at their end in a closed environment, and a warning of `destroy`'s targets.
    """
    if stack.target.fence is None and not destroying:
        yield None
        return
    reader, writer = os.pipe()
    thread = Thread(target=_pass_on, args=(stack, reader))
    thread.start()
    try:
        with os.fdopen(writer, "w") as stdout:
            yield stdout
    finally:
        thread.join()


def _pass_on(stack: Stack, reader: int) -> None:
    """Tell what comes, up to the outputs; all is read, or Terraform would stop half way."""
    is_told = True
    with os.fdopen(reader, errors="replace") as said:
        for line in _untargeted(said):
            is_told = is_told and not (stack.target.fence and line == "Outputs:\n")
            if is_told:
                try:
                    _tell(stack, line.rstrip("\n"))
                except BrokenPipeError:  # nobody reads any more
                    is_told = False


def _untargeted(lines: Iterable[str]) -> Iterator[str]:
    """Lines without the warnings of `-target`, framed or not."""
    frame, last, left = "", "", 0
    for line in lines:
        plain = adopt.without_colour(line).strip()
        if last:
            # Another version of Terraform may end it otherwise: no more is left out than this.
            left -= 1
            last = "" if plain.endswith(last) or not left else last
        elif plain.removeprefix("│ ").startswith(_TARGETED):
            frame, last, left = "", "╵" if frame else "message.", _TARGETED_LINES
        else:
            if frame:
                yield frame
            frame = line if plain == "╷" else ""
            if not frame:
                yield line
    if frame:
        yield frame


def planned(stack: Stack) -> dict[str, Any]:
    """The saved plan as Terraform writes it: `resource_changes`, `planned_values` and more.

    Raises:
        KennelError: Terraform cannot read it.
    """
    found: dict[str, Any] = json.loads(_said(stack, "show", "-json", str(stack.plan_file)))
    return {"resource_changes": [], **found}


def _summarize(stack: Stack, plan: Mapping[str, Any], *, applied: bool = False) -> None:
    """Say what a plan comes to, in lines at the end: the plan itself may be thousands."""
    _tell(stack, *summary.lines(stack.name, stack.target, plan, applied=applied))


def _tell(stack: Stack, *lines: str) -> None:
    told = stack.told or sys.stdout
    told.writelines(f"{line}\n" for line in lines)
    told.flush()


@contextmanager
def _written(stack: Stack) -> Iterator[IO[str]]:
    """Where a plan goes that nobody waits for; who reads along is told that it takes a while."""
    sys.stderr.write(f"planning {stack.name} ({stack.target.name})\n")
    stack.plan_text.parent.mkdir(parents=True, exist_ok=True)
    with stack.plan_text.open("w") as file:
        yield file


def _explain(stack: Stack, action: str) -> None:
    """Tell what to do after an action that failed."""
    named = _chosen_model(stack) if action == "apply" else ""
    again = make_command(action, stack.target.name, STACK=stack.name, MODEL=named)
    label = f"{action} of {stack.name} ({stack.target.name})"
    if stack.signals:
        why = f"{label} was stopped by {_stopper(stack)}; Terraform's errors: {stack.stopped_log}"
        once = ""
    else:
        why, once = f"{label} stopped half way; see above", " once the cause is gone"
    sys.stderr.write(
        f"error: {why}\nWhat was done is in the state: `{again}` goes on from there{once}\n"
        f"{_lock_left(stack)}"
    )


def _chosen_model(stack: Stack) -> str:
    """The model that a command names again, if the state does not have it yet."""
    if stack.name != "serving":
        return ""
    with suppress(KennelError, OSError, ValueError):
        chosen = json.loads(_models_file(stack).read_text())["model"]
        if outputs(stack).get("model", {}).get("digest") != chosen["digest"]:
            return str(chosen["archive_uri"])
    return ""


def _models_file(stack: Stack) -> Path:
    return stack.data / "models.tfvars.json"


def _lock_left(stack: Stack) -> str:
    """What to do about the state's lock, if there is one."""
    lock = state_lock.find(stack.target, stack.state_key)
    if not lock:
        return ""
    return (
        f"The state is locked by {lock.who} since {lock.created}. If that run is dead: "
        f"`{make_command('unlock', stack.target.name, STACK=stack.name, LOCK=lock.id)}`\n"
    )


def require_answer(approved: bool = False) -> None:
    """Refuse before all work what would need an answer that nobody can give.

    Args:
        approved: Nobody is asked.

    Raises:
        UsageError: There is no terminal to ask on.
    """
    if not approved and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on: pass --auto-approve (`make`: YES=1)")


def ask(question: str, word: str, what: str) -> None:
    """Go on only if the user types a word.

    Args:
        question: What is asked.
        word: The only answer that goes ahead.
        what: What stays as it is otherwise.

    Raises:
        UsageError: There is no terminal to ask on.
        KennelError: Another word was typed.
        Interrupted: Ctrl-C.
    """
    require_answer()
    try:
        # Not on standard output, which may be JSON.
        sys.stderr.write(f"\n{question} Only '{word}' goes ahead: ")
        sys.stderr.flush()
        answer = input()
    except EOFError:
        answer = ""
        sys.stderr.write("\n")
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise Interrupted(
            f"stopped by Ctrl-C, nothing was changed: {what} stays as it is"
        ) from None
    if answer.strip() != word:
        raise KennelError(f"not confirmed, nothing was changed: {what} stays as it is")


def _fingerprint(stack: Stack) -> str:
    """Digest of all that `init` depends on or has written."""
    target = stack.target
    digest = hashlib.sha256()
    sources = [*stack.folder.glob("*.tf"), *(TERRAFORM / "modules").glob("*/*.tf")]
    for path in [*sorted(sources), target.backend_file, stack.lock_file]:
        if path.exists():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    configuration = stack.environ.get("TF_CLI_CONFIG_FILE", "")
    for part in (str(binary.resolve()), target.state_bucket, endpoint, configuration):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _check_state_bucket(target: Target) -> None:
    if objects.region(target, target.state_bucket) is None:
        raise KennelError(
            f"there is no state bucket {target.state_bucket}: "
            f"`{make_command('bootstrap', target.name)}` makes it"
        )


def _check_provider(stack: Stack) -> None:
    version = provider_version(stack)
    if version and not suits_aws(version):
        oldest = ".".join(map(str, OLDEST_ON_AWS))
        is_locked = provider_lock.version(stack.target)
        place = provider_lock.path(stack.target) if is_locked else stack.lock_file
        raise KennelError(
            f"the provider {provider.PROVIDER} {version} must not be used on AWS, only {oldest} or "
            "later: older ones update an endpoint to the configuration that it has already, leave "
            "a public function URL shut or plan changes for ever; let this machine reach the "
            f"registry or put a later one into the mirror, and remove {place}"
        )

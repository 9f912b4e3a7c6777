"""`python -m terraform.cli COMMAND ...`: what the make targets run."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from terraform.cli import bootstrap, outputs, provider_lock, stack
from terraform.cli.paths import ROOT
from terraform.cli.stack import STACKS, Stack
from trainer.errors import ArgumentParser, KennelError, run_command
from trainer.make_command import make_command
from trainer.target import add_arguments, explained, load

Command = Callable[[argparse.Namespace, list[str]], int]

OUT = ROOT / "build"


def main() -> None:
    """Parse the command line and run it; Terraform's exit code is this process's."""
    own, extra = _split(sys.argv[1:])
    options = _parser(own[:1]).parse_args(own)
    run: Command = options.run
    with explained(options.debug):
        code = run(options, extra)
    raise SystemExit(code)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What is for this command, and what, after `--`, is for Terraform."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:cut], arguments[cut + 1 :]


def _parser(asked: Sequence[str]) -> argparse.ArgumentParser:
    """All commands; the module of one that brings its own arguments is loaded if it is asked."""
    parser = ArgumentParser(
        prog="python -m terraform.cli",
        description="Deploy the stacks. What follows -- goes to Terraform.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    everything = (*STACKS, "all")
    for name, run, stacks, summary in (
        ("plan", _plan, everything, "show what apply would do"),
        ("apply", _apply, everything, "show it, ask, and do it"),
        ("destroy", _destroy, everything, "show what would be destroyed, ask, and destroy it"),
        ("output", _output, everything, "print a stack's outputs"),
        ("run", _run, STACKS, "run any command of Terraform on a stack, such as `state list`"),
        ("unlock", _unlock, STACKS, "break the lock that a killed run has left on a state"),
        ("bootstrap", _bootstrap, (), "make the bucket of the states"),
        ("image", _image, (), "build and push the serving image"),
        ("lock", _lock, (), "lock the environment to the newest version of the provider"),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        command.add_argument("--env", required=True, help="a name in terraform/environments")
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        if stacks:
            command.add_argument("stack", choices=stacks, metavar="STACK", help=", ".join(stacks))
            _add_out(command)
        if run in (_plan, _apply):
            command.add_argument("--model", help="model.tar.gz to serve, or its s3:// address")
        if run is _output:
            command.add_argument("--json", action="store_true", help="print JSON for machines")
        if run is _unlock:
            command.add_argument("--lock", required=True, metavar="ID", help="the lock's id")
        if run in (_apply, _destroy, _bootstrap, _unlock):
            command.add_argument("--auto-approve", action="store_true", help="do not ask")
        if run is _destroy:
            command.add_argument(
                "--delete-data",
                action="store_true",
                help="remove objects, images and models, too, which stay otherwise",
            )
        if run is _bootstrap:
            command.add_argument("--delete", action="store_true", help="remove the bucket instead")
        if run is _lock:
            command.add_argument("--check", action="store_true", help="only say whether it is")
            command.add_argument(
                "--platform",
                action="append",
                help=f"instead of {', '.join(provider_lock.PLATFORMS)}; may be given several times",
            )
        if run is _image:
            command.add_argument("--python-image", help="base image: its tag, or better its digest")
    for name, module, run_name, add_name, summary in (
        ("deploy", "deploy", "run", "add_arguments", "put a model in service and check it"),
        (
            *("rollback", "deploy", "run_rollback", "add_rollback_arguments"),
            "go back to the model before, or to the one that serves after a failed release",
        ),
        ("verify", "verify", "run", "", "check that what was deployed serves, and answers"),
        ("preflight", "preflight", "run", "add_arguments", "check what a deployment needs"),
        ("invoke", "invoke", "run", "add_arguments", "classify photos with what is deployed"),
        ("logs", "logs", "run", "add_arguments", "print what endpoint, function and jobs wrote"),
        ("status", "status", "run", "", "one page on what runs and what it costs"),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        add_arguments(command)
        if name in asked:
            loaded = import_module(f"terraform.cli.{module}")
            command.set_defaults(run=getattr(loaded, run_name))
            if add_name:
                getattr(loaded, add_name)(command)
        if module in ("deploy", "verify"):
            _add_out(command)
    checked = commands.add_parser("check", help="check the sources' format and validity")
    checked.set_defaults(run=_check)
    documented = commands.add_parser("docs", help="write the tables of the modules' READMEs")
    documented.set_defaults(run=_docs)
    documented.add_argument("--check", action="store_true", help="only say which are out of date")
    for command in (checked, documented):
        command.set_defaults(debug=False)
    return parser


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=OUT, help="where everything goes")


def _stacks(options: argparse.Namespace) -> list[Stack]:
    target = load(options.env)
    names = STACKS if options.stack == "all" else (options.stack,)
    return [Stack(name, target, options.out) for name in names]


def _in_turn(stacks: Sequence[Stack], act: Callable[[Stack], int]) -> int:
    """Act on each stack until one fails; give its exit code, or the greatest of them."""
    greatest = 0
    for each in stacks:
        stack.prepare(each)
        code = act(each)
        if code not in (0, stack.CHANGES):
            return code
        greatest = max(greatest, code)
    return greatest


def _plan(options: argparse.Namespace, extra: list[str]) -> int:
    return _in_turn(_stacks(options), lambda each: stack.plan(each, options.model, extra))


def _apply(options: argparse.Namespace, extra: list[str]) -> int:
    stack.require_answer(options.auto_approve)
    stacks = _stacks(options)
    code = _in_turn(
        stacks, lambda each: stack.apply(each, options.model, extra, options.auto_approve)
    )
    if code == 0:
        goal = "preflight" if options.stack == "foundation" else "verify"
        sys.stderr.write(f"next: {make_command(goal, stacks[0].target.name)}\n")
    return code


def _destroy(options: argparse.Namespace, extra: list[str]) -> int:
    from terraform.cli import job_logs, teardown

    stacks = _stacks(options)[::-1]
    code, left = teardown.destroy(stacks, extra, options.auto_approve, options.delete_data)
    if code != 0:
        return code
    # Who names targets has not destroyed a whole stack.
    if stacks[-1].name == "foundation" and not extra:
        left.has_data |= job_logs.let_go(stacks[-1].target, options.delete_data)
    teardown.tell_next(stacks, left)
    return 0


def _output(options: argparse.Namespace, extra: list[str]) -> int:
    stacks = _stacks(options)
    if options.json:
        for each in stacks:
            stack.prepare(each)
        content = {each.name: _useful(each) for each in stacks}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return 0
    return _in_turn(stacks, lambda each: _print_outputs(each, extra))


def _useful(each: Stack) -> dict[str, Any]:
    found = stack.outputs(each)
    return {n: outputs.here(v) for n, v in found.items()} if each.target.fence else found


def _print_outputs(each: Stack, extra: list[str]) -> int:
    entries = stack.told_outputs(each)
    if entries and each.target.fence and not extra:
        sys.stdout.writelines(f"{line}\n" for line in outputs.lines(entries))
        return 0
    if extra or entries:
        return each.run("output", *extra)
    name = each.target.name
    hint = f"`{make_command('apply', name, STACK='foundation')}`"
    if each.name == "serving":
        hint = f"`{make_command('deploy', name)}`"
    sys.stderr.write(f"{each.name} ({name}) is not there; {hint} makes it\n")
    return 0


def _unlock(options: argparse.Namespace, _: list[str]) -> int:
    (only,) = _stacks(options)
    stack.prepare(only, saves=False)
    return stack.unlock(only, options.lock, options.auto_approve)


def _run(options: argparse.Namespace, extra: list[str]) -> int:
    (only,) = _stacks(options)
    stack.prepare(only, saves=False)
    only.become(*extra)


def _bootstrap(options: argparse.Namespace, _: list[str]) -> int:
    target = load(options.env)
    if options.delete:
        bootstrap.delete(target, options.auto_approve)
    else:
        bootstrap.create(target)
    return 0


def _image(options: argparse.Namespace, _: list[str]) -> int:
    from terraform.cli import image

    target = load(options.env)
    uri = image.build(target, options.python_image)
    if uri:
        sys.stdout.write(uri + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"next: `{make_command('preflight', target.name)}` says what is missing\n")
    return 0


def _lock(options: argparse.Namespace, _: list[str]) -> int:
    target = load(options.env)
    if options.check:
        version = provider_lock.require(target)
    else:
        version = provider_lock.write(target, options.platform or provider_lock.PLATFORMS)
    sys.stdout.write(f"{provider_lock.path(target)}: {version}\n")
    return 0


def _check(_: argparse.Namespace, __: list[str]) -> int:
    from terraform.cli import check

    check.check()
    return 0


def _docs(options: argparse.Namespace, _: list[str]) -> int:
    from terraform.cli import docs

    if not options.check:
        docs.write()
    elif out_of_date := list(docs.stale()):
        names = ", ".join(map(str, out_of_date))
        raise KennelError(f"out of date: {names}; `make docs` brings them up to date")
    return 0


if __name__ == "__main__":
    run_command(main)

"""Every command that the programs print for people is one that works."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from terraform.cli import verify
from trainer.target import Target

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "terraform/cli").glob("*.py"), *(ROOT / "trainer").glob("*.py")])
STACKS = sorted((ROOT / "terraform/stacks").glob("*/*.tf"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {
    name
    for line in re.findall(r"^([a-z][a-z -]*):(?!=)", MAKEFILE, re.MULTILINE)
    for name in line.split()
}
VARIABLES = set(re.findall(r"\$\(([A-Z_]+)\)", MAKEFILE)) | set(
    re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE)
)
# Those whose recipe names the environment.
OF_ENVIRONMENTS = {
    name
    for names, recipe in re.findall(r"^([a-z][a-z -]*):(?!=).*((?:\n\t.*)+)", MAKEFILE, re.M)
    for name in names.split()
    if re.search(r"aws_flags|stack_flags|--env", recipe)
}
COMMAND = re.compile(r"`make ([^`]*)`")


def texts(source: Path) -> Iterator[str]:
    """All string literals of a program, but for its docstrings; `x` for what is filled in."""
    nodes = list(ast.walk(ast.parse(source.read_text())))
    seen: set[ast.AST] = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            seen.update(node.values)
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values
            )
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in seen:
            yield node.value


def made(source: Path) -> Iterator[str]:
    """What a program lets `make_command` write; `x` for what is filled in."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "make_command":
            given = {each.arg: value(each.value) for each in node.keywords if each.arg}
            given = {"ENV": "x", **given}
            words = (f"{name}={text}" for name, text in given.items() if name.isupper() and text)
            yield " ".join([value(node.args[0]), *words])


def value(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "x"


def hints() -> dict[str, str]:
    """Every command by where it is printed: in backquotes, or by a stack as the next one."""
    found = {
        command: source.name
        for source in SOURCES
        for commands in (made(source), (c for text in texts(source) for c in COMMAND.findall(text)))
        for command in commands
    }
    for source in STACKS:
        for command in re.findall(r'"make ([^"]*)"', source.read_text()):
            found[re.sub(r"\$\{[^}]*\}", "x", command)] = source.parent.name
    return found


HINTS = hints()


def test_there_are_hints_to_look_at() -> None:
    assert len(HINTS) > 20
    assert {"deploy ENV=x", "unlock ENV=x STACK=x LOCK=x", "preflight ENV=x"} <= HINTS.keys()


@pytest.mark.parametrize("hint", sorted(HINTS))
def test_it_is_a_command_of_the_makefile(hint: str) -> None:
    target, *given = hint.split()
    assert target in TARGETS | {"x"}, HINTS[hint]
    # The name of a variable may be told by a file.
    variables = dict(each.split("=", 1) for each in given if each.partition("=")[0] != "x")
    assert variables.keys() <= VARIABLES, HINTS[hint]
    # Nobody can give `MODEL=...` as it is printed.
    assert not [value for value in variables.values() if not value or set(value) & set("<>.")]
    # Without it, it would be another environment's.
    assert target not in OF_ENVIRONMENTS or "ENV" in variables, HINTS[hint]


def test_none_needs_python_s_own_packages() -> None:
    told = [
        f"{source.name}: {text}"
        for source in SOURCES
        if source.parent.name == "cli"
        for text in texts(source)
        if re.search(r"`python -m ", text)
    ]
    assert told == []


def test_make_knows_them_all() -> None:
    targets = sorted({hint.split()[0] for hint in HINTS} - {"x"})
    needed = ("JOB=x", "STACK=serving", "FILE=x")
    planned = subprocess.run(
        ["make", "--dry-run", "--assume-old=requirements.lock", *targets, *needed],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert planned.returncode == 0, planned.stderr


def test_what_is_built_first_is_not_in_a_command_s_json() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "deploy", "rollback", "JSON=1"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    (built,) = (line for line in planned.stdout.splitlines() if "lambda_src.build" in line)
    assert built.endswith(" > /dev/null")


def test_no_way_back_is_named_where_there_is_none() -> None:
    found = verify.Report("a" * 64, (verify.Check("model", False, "", ""),))
    target = Target("dev", "kennel", "us-east-1")
    assert verify.way_back(found, {}, target) == "there is no former model to go back to"
    back = verify.way_back(found, {"previous_model": {"digest": "b"}}, target)
    assert back.endswith("goes back")

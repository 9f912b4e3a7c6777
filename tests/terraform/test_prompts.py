"""What a question says when it is not answered with yes, and when nobody reads the answers."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from terraform.cli import stack
from terraform.cli.page import Page
from terraform.cli.stack import Stack
from tests.localaws.conftest import SECONDS, until
from trainer.target import Target

ROOT = Path(__file__).parents[2]
ASK = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from terraform.cli import stack; from trainer.errors import run_command;"
    "run_command(lambda: stack.ask('Destroy it?', 'dev', 'serving (dev)'))"
)


def asked(typed: bytes) -> tuple[int, str]:
    """Exit code and all that a terminal shows, for what somebody types."""
    terminal, other = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
        preexec_fn=_take_terminal,
    ) as process:
        os.close(other)
        shown = b""
        while b"goes ahead: " not in shown:
            shown += os.read(terminal, 1024)
        # Ctrl-C just before a process begins to read is seen only once it has read something.
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        os.write(terminal, typed)
        code = process.wait(timeout=SECONDS)
        while chunk := _read(terminal):
            shown += chunk
    os.close(terminal)
    return code, shown.decode().replace("\r\n", "\n")


def _take_terminal() -> None:
    # The session's own, so that Ctrl-C reaches it.
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1024)
    except OSError:  # as Linux says that nobody writes any more
        return b""


def test_the_word_goes_ahead() -> None:
    code, shown = asked(b"dev\n")
    assert code == 0
    assert shown.startswith("\nDestroy it? Only 'dev' goes ahead: ")


@pytest.mark.parametrize("typed", [b"no\n", b"\n", b"yes\n", b"\x04"])
def test_any_other_answer_changes_nothing_and_says_so(typed: bytes) -> None:
    code, shown = asked(typed)
    assert code == 1
    last = shown.splitlines()[-1]
    assert last == "error: not confirmed, nothing was changed: serving (dev) stays as it is"


def test_ctrl_c_is_one_line() -> None:
    code, shown = asked(b"\x03")
    assert code == 128 + signal.SIGINT
    said = "error: stopped by Ctrl-C, nothing was changed: serving (dev) stays as it is\n"
    assert shown.endswith(said)
    assert "Traceback" not in shown


WARNING = [
    *("╷", "│ Warning: Applied changes may be incomplete", "│ ", "│ The plan was created with the"),
    *("│     terraform plan", "│ to use it as part of an error message.", "╵"),
]


@pytest.mark.parametrize(
    "warning", [WARNING, [line.removeprefix("│ ") for line in WARNING if len(line) > 1]]
)
def test_of_all_warnings_only_that_of_targets_is_left_out(warning: list[str]) -> None:
    other = ["╷", "│ Warning: Deprecated", "│ ", "╵", "", "Destroy complete!"]
    told = [f"{line}\n" for line in ("one: Destroying...", *warning, *other, "╷")]
    assert list(stack._untargeted(told)) == [f"{line}\n" for line in (told[0][:-1], *other, "╷")]


PLAN = [
    *("", "  # aws_s3_bucket.one will be created", *["      + line"] * 9),
    *("  # aws_s3_bucket.two must be replaced", *["      + line"] * 9),
    *("", "Plan: 2 to add, 0 to change, 1 to destroy."),
]
NAMES = ["aws_s3_bucket.one will be created", "aws_s3_bucket.two must be replaced"]
COUNTS = "Plan: 2 to add, 0 to change, 1 to destroy."


@pytest.mark.parametrize(
    ("rows", "copies", "shown"),
    [
        (40, 1, PLAN),
        (10, 1, [*NAMES, COUNTS]),
        (1, 1, [COUNTS]),
        # No terminal: nobody knows how many lines there are.
        (None, 1, PLAN),
        (None, 20, [*NAMES * 20, COUNTS]),
    ],
)
def test_a_question_follows_no_more_than_the_terminal_shows(
    rows: int | None, copies: int, shown: list[str], tmp_path: Path
) -> None:
    """The whole plan is in a file, without colours."""
    text = "".join(f"\x1b[1m{line}\x1b[0m\n" for line in PLAN * copies)
    terminal, other = pty.openpty() if rows else os.pipe()
    if rows:
        termios.tcsetwinsize(other, (rows, 80))
    with os.fdopen(other, "w") as told:
        one = Stack("serving", cast(Target, SimpleNamespace(name="dev")), tmp_path, told)
        one.plan_text.parent.mkdir(parents=True)
        one.plan_text.write_text(text)
        stack._show_before_question(one)
    found = b""
    while chunk := _read(terminal):
        found += chunk
    os.close(terminal)
    lines = re.sub(r"\x1b\[\d*m", "", found.decode()).splitlines()
    if shown != PLAN:
        assert lines.pop() == f"the whole plan: {one.plan_text}"
    assert lines == shown
    assert one.plan_text.read_text().splitlines() == PLAN * copies


READ = {
    # All at once, more than a pipe holds, and at the end of the process only.
    "json": "sys.stdout.write('{}' * 100_000)",
    "a little": "sys.stdout.write('{}')",
    "a table": "[Page().print('x' * 79) for _ in range(2000)]",
}


@pytest.mark.parametrize("what", READ)
def test_a_reader_that_leaves_is_no_error(what: str) -> None:
    program = (
        "import sys, time; from terraform.cli.page import Page;"
        "from trainer.errors import run_command; sys.stdin.read();"
        f"run_command(lambda: {READ[what]})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        said = process.stderr.read()
        code = process.wait(timeout=SECONDS)
    assert said == ""
    # What has written all that it had to say has done its work.
    assert code == (128 + signal.SIGPIPE if what == "json" else 0)


def test_a_log_does_not_wrap() -> None:
    long = "wide " * 60
    program = (
        "from rich.table import Table; from terraform.cli.page import Page\n"
        f"table = Table('check', 'what'); table.add_row('one', {long!r}); Page().print(table)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"COLUMNS": "80"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert long.strip() in ran.stdout


ROWS = [
    ("quota", "fail", "8 wanted, 4 there, on_the-machine"),
    ("a longer name", "pass", "one line\nto do: `make apply STACK=foundation ENV=local` " * 3),
    ("address", "pass", f"s3://{'long' * 30}/model.tar.gz is there, :warning: [red]"),
]
SHOW = f"from terraform.cli.page import Page; Page().rows('it: [b]', {ROWS!r}, {{'fail': 'red'}})"


@pytest.mark.parametrize("columns", [80, 40])
def test_a_narrow_terminal_breaks_no_word(columns: int) -> None:
    terminal, other = pty.openpty()
    environ = os.environ | {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen([sys.executable, "-c", SHOW], cwd=ROOT, env=environ, stdout=other) as run:
        os.close(other)
        shown = b""
        while chunk := _read(terminal):
            shown += chunk
    os.close(terminal)
    assert run.returncode == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).splitlines()
    assert lines[0] == "it: [b]"
    for *cells, text in ROWS:
        for cell in cells:
            assert any(cell in line for line in lines)
        assert set(text.split()) <= {word for line in lines for word in line.split()}
    assert all(len(line.rstrip()) <= columns or "s3://" in line for line in lines)


def test_what_to_do_is_on_the_line_of_a_log_and_below_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Page().told("2 wanted", "ask") == "2 wanted  ask"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert Page().told("2 wanted", "ask") == "2 wanted\nto do: ask"
    assert Page().told("2 wanted", "") == "2 wanted"


def test_a_log_has_a_line_for_each_line_of_a_row() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, env=os.environ | {"COLUMNS": "40"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line.rstrip() for line in ran.stdout.splitlines()] == [
        "it: [b]",
        "",
        f"quota          fail  {ROWS[0][2]}",
        *(
            f"{head:21}{line}".rstrip()
            for head, line in zip(
                ["a longer name  pass", "", "", ""], ROWS[1][2].splitlines(), strict=True
            )
        ),
        f"address        pass  {ROWS[2][2]}",
    ]

"""What only the user can mend ends a command with one line; a fault of the code shows where."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = "from trainer.errors import run_command\ndef main():\n    {}\nrun_command(main)"


def run(body: str, output: str = "/dev/null") -> subprocess.CompletedProcess[str]:
    with Path(output).open("w") as file:
        return subprocess.run(
            [sys.executable, "-c", RUN.format(body)], stdout=file, stderr=subprocess.PIPE, text=True
        )


@pytest.mark.parametrize(
    ("body", "output", "said"),
    [
        pytest.param("print('x')", "/dev/full", "No space left on device", id="full disk"),
        pytest.param(
            "raise PermissionError(13, 'Permission denied', '/a b/ü')",
            "/dev/null",
            "/a b/ü: Permission denied",
            id="rights",
        ),
        pytest.param(
            "raise IsADirectoryError(21, 'Is a directory', '/a/report.json')",
            "/dev/null",
            "/a/report.json: Is a directory",
            id="a folder in a file's place",
        ),
    ],
)
def test_rights_and_room_are_one_line(body: str, output: str, said: str) -> None:
    finished = run(body, output)
    assert (finished.returncode, finished.stderr) == (1, f"error: {said}\n")


def test_without_a_standard_output_the_work_is_done(tmp_path: Path) -> None:
    code = RUN.format(f"print('x'); open({str(tmp_path / 'made')!r}, 'w').write('whole')")
    command = [sys.executable, "-c", code]
    finished = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert (tmp_path / "made").read_text() == "whole"


def test_a_fault_of_the_code_shows_where() -> None:
    finished = run("open('/nowhere/at/all')")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr

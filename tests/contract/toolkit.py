"""A training job as SageMaker's PyTorch container runs it: by the real training toolkit."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.contract.parts import ENVIRONMENTS, exit_code, require_port, running, variables
from trainer import source
from trainer.config import TrainConfig

# A constant of the toolkit (sagemaker_training/torch_distributed.py).
TORCHRUN_PORT = 7777
# Small pictures and two epochs. Without dropout, whose numbers are each process's own, one host and
# two compute the same but for rounding; with AdamW at a usual learning rate that would soon tell.
CONFIG = TrainConfig(
    backbone="efficientnet_lite0",
    unfreeze="all",
    image_size=32,
    crop_pct=1.0,
    epochs=2,
    dropout=0.0,
    hflip=0.0,
    min_scale=0.8,
    backbone_learning_rate=1e-4,
)


def run_job(folder: Path, data: Path, hosts: Sequence[str], package: bool) -> list[Path]:
    """Train on some hosts, each an address of this machine.

    Args:
        folder: Where the hosts' folders are made.
        data: The data set.
        hosts: Their addresses, sorted.
        package: Whether the job is to leave a servable model.

    Returns:
        What is /opt/ml on each host.
    """
    code = folder / "sourcedir.tar.gz"
    code.write_bytes(source.archive())
    # The tuner writes values as Python does, and wants torchrun spelled out.
    given = CONFIG.to_json() | {
        "package": package,
        "sagemaker_program": source.script("train"),
        "sagemaker_submit_directory": code,
    }
    if len(hosts) > 1:
        require_port(TORCHRUN_PORT, "sagemaker-training's torchrun")
        given["sagemaker_torch_distributed_enabled"] = "true"
    hyperparameters = {name: str(value) for name, value in given.items()}
    with ExitStack() as stack:
        started = []
        for host in hosts:
            base = _laid_out(folder / host, data, host, hosts, hyperparameters)
            environment = variables(
                "sagemaker",
                folder,
                AWS_REGION="us-east-1",
                GLOO_SOCKET_IFNAME="lo",
                KENNEL_CACHE=base / "cache",
                KENNEL_GIT_COMMIT=source.git_commit(),
                OMP_NUM_THREADS=max(1, (os.cpu_count() or 1) // len(hosts)),
                PIP_QUIET=1,
                SAGEMAKER_BASE_DIR=base,
                # The image's own variable.
                SAGEMAKER_TRAINING_MODULE="sagemaker_pytorch_container.training:main",
                TRAINING_JOB_NAME="kennel-contract",
            )
            log = base / "log"
            # Not by its first line, which has the path of the Python that it was made with.
            command = ["python", str(ENVIRONMENTS / "sagemaker/bin/train")]
            process = stack.enter_context(running(command, log, environment, base))
            started.append((base, process))
        for base, process in started:
            assert exit_code(process) == 0, base
    return [base for base, _ in started]


def _laid_out(
    base: Path, data: Path, host: str, hosts: Sequence[str], hyperparameters: dict[str, str]
) -> Path:
    """Make what SageMaker puts in /opt/ml."""
    for name in ("input/config", "input/data", "model", "output"):
        (base / name).mkdir(parents=True)
    (base / "input/data/training").symlink_to(data)
    group = {
        "instance_group_name": "homogeneousCluster",
        "instance_type": "ml.m5.large",
        "hosts": list(hosts),
    }
    files: dict[str, object] = {
        "hyperparameters": hyperparameters,
        "inputdataconfig": {
            "training": {
                "TrainingInputMode": "File",
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": "None",
            }
        },
        "resourceconfig": {
            "current_host": host,
            "current_instance_type": "ml.m5.large",
            "current_group_name": "homogeneousCluster",
            "hosts": list(hosts),
            "instance_groups": [group],
            "network_interface_name": "lo",
        },
    }
    for name, content in files.items():
        (base / "input/config" / f"{name}.json").write_text(json.dumps(content))
    return base

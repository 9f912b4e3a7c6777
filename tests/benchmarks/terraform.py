"""Times both stacks on localaws: made, planned, given a second model, destroyed.

`python -m tests.benchmarks.terraform` writes `build/bench/terraform.json`. Most of it is the AWS
provider's own waiting: 56 s for a bucket's lifecycle rules, 25 s for a queue, 5 s for a budget in
each plan.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from terraform.cli import binary
from tests.archives import make_archive

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "build/bench/terraform.json"


def main() -> None:
    """Run all of it once."""
    argparse.ArgumentParser(description="Time both stacks on localaws.").parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        first = make_archive(Path(folder, "first"))
        second = make_archive(Path(folder, "second"), classes=("Rose", "Grass", "Sky"))
        common = ["ENV=local", "YES=1", f"OUT={folder}/out", f"LOCALAWS_PORT={port}"]
        seconds: dict[str, float] = {}

        def make(name: str, *arguments: str) -> None:
            started = time.monotonic()
            subprocess.run(["make", *arguments, *common], cwd=ROOT, check=True, capture_output=True)
            seconds[name] = round(time.monotonic() - started, 1)
            print(f"{seconds[name]:6.1f} s  {name}", flush=True)

        make("local-up", "local-up")
        try:
            make("bootstrap", "bootstrap")
            make("apply foundation", "apply", "STACK=foundation")
            make("apply serving", "apply", "STACK=serving", f"MODEL={first}")
            make("plan foundation", "plan", "STACK=foundation")
            make("plan serving", "plan", "STACK=serving")
            make("apply second model", "apply", "STACK=serving", f"MODEL={second}")
            make("destroy", "destroy")
        finally:
            make("local-reset", "local-reset")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(
        [binary.find(), "version", "-json"], capture_output=True, text=True, check=True
    )
    measured = {
        "seconds": seconds,
        "whole_cycle_seconds": round(sum(seconds.values()), 1),
        "cores": os.cpu_count(),
        "terraform": json.loads(version.stdout)["terraform_version"],
        "python": platform.python_version(),
    }
    RESULT.write_text(json.dumps(measured, indent=2) + "\n")
    print(f"{measured['whole_cycle_seconds']:6.1f} s in all; {RESULT}")


if __name__ == "__main__":
    main()

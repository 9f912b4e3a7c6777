"""Times head search, fine-tuning and the start of training, against what people write themselves.

`python -m tests.benchmarks.training` writes `build/bench/training.json`, in about 25 minutes on 2
cores. Of a peer's head search, which takes up to an hour, it times one epoch and reckons the rest,
since each does the same work; `--whole efficientnet_lite0` lets that network's peers search to the
end, which takes an hour and a half more, and compares the accuracies found. ResNet-50's weights
are random numbers from a seed: no package brings others, and speed does not depend on them.
"""

import argparse
import csv
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torchvision import models

from tests.benchmarks.harness import PEERS, Entry, absolute, compare, in_turn, record, timed
from trainer.dataset import class_folders, scan

NETWORKS = {"resnet50": "ResNet-50", "efficientnet_lite0": "EfficientNet-Lite0"}
SEARCH_TARGETS = {"course": ">= 50", "torchvision_style": ">= 25"}
TUNING_TARGETS = {"course": ">= 2.5", "torchvision_style": ">= 1.6"}
PEER_NAMES = {"course": "course script", "torchvision_style": "torchvision style"}
TRIALS, EPOCHS = 8, 5
BATCH_SIZE = 32

FIRST_STEP = """
import os
from trainer import loop, train
loop.training_losses = lambda *_: os._exit(0)
train.run_command(train.main)
"""
"""`trainer.train` until the first batch is there to be computed."""


@dataclass(frozen=True)
class Bench:
    """What is compared on.

    Attributes:
        network: Key of `NETWORKS`.
        photos: Data folder.
        scratch: Folder for all that is written.
    """

    network: str
    photos: Path
    scratch: Path

    @property
    def cache(self) -> Path:
        """Our decoded pixels and features."""
        return self.scratch / "cache"

    @property
    def weights(self) -> list[str]:
        """Flags that say where the network's weights are, if no package brings them."""
        if self.network == "efficientnet_lite0":
            return []
        path = self.scratch / f"{self.network}.pth"
        if not path.exists():
            torch.manual_seed(0)
            torch.save(models.get_model(self.network, weights=None).state_dict(), path)
        return ["--weights", str(path)]

    def ours(self, module: Sequence[str], data: Path, *flags: str) -> list[str]:
        """Give the command line of one of our programs."""
        folders = [f"--{name}-dir={self.scratch / name}" for name in ("model", "checkpoint")]
        folders += [f"--output-dir={self.scratch / 'output'}", f"--cache-dir={self.cache}"]
        command = [sys.executable, *module, "--data", str(data), "--backbone", self.network]
        return [*command, *folders, *self.weights, *flags]

    def peer(self, name: str, data: Path, *flags: str) -> list[str]:
        """Give the command line of a peer."""
        command = [str(PEERS / "bin/python"), "-m", f"tests.benchmarks.peers.{name}"]
        return [*command, "--data", str(data), "--network", self.network, *self.weights, *flags]


@dataclass(frozen=True)
class Searched:
    """A head search.

    Attributes:
        seconds: From the start of the process to its end.
        accuracy: The best that any trial ended with on `valid`; None if not all of it was run.
    """

    seconds: float
    accuracy: float | None


def search(bench: Bench) -> Searched:
    """Let ours search, with nothing decoded or computed before."""
    for folder in (bench.cache, bench.scratch / "output"):
        shutil.rmtree(folder, ignore_errors=True)
    flags = ["--trials", str(TRIALS), "--epochs", str(EPOCHS)]
    run = timed(bench.ours(["-m", "trainer.tune"], bench.photos, *flags))
    with (bench.scratch / "output/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    unlike = [row for row in rows if (row["state"], row["epochs_run"]) != ("complete", str(EPOCHS))]
    if len(rows) != TRIALS or unlike:
        raise RuntimeError(f"not {TRIALS} trials of {EPOCHS} epochs, as the peers do: {rows}")
    return Searched(run.seconds, max(float(row["valid_accuracy"]) for row in rows))


def search_of_peer(bench: Bench, peer: str, whole: bool) -> Searched:
    """Let a peer search, or reckon from one epoch how long it would."""
    flags = ["--trials", str(TRIALS), "--epochs", str(EPOCHS)]
    if not whole:
        flags = ["--trials", "1", "--epochs", "1", "--batch-size", str(BATCH_SIZE)]
    run = timed(bench.peer(peer, bench.photos, *flags))
    epochs = [json.loads(line) for line in run.output.splitlines()]
    if whole:
        ends = epochs[EPOCHS - 1 :: EPOCHS]
        return Searched(run.seconds, max(row["valid_accuracy"] for row in ends))
    epoch = epochs[0]["train_seconds"] + epochs[0]["valid_seconds"]
    return Searched(run.seconds + (TRIALS * EPOCHS - 1) * epoch, None)


def compare_searches(bench: Bench, runs: int, whole: bool) -> list[Entry]:
    """Compare the time of a head search, and what it found if the peers ran to their end."""
    contenders: dict[str, Callable[[], Searched]] = {"ours": partial(search, bench)}
    for peer in PEER_NAMES:
        contenders[peer] = partial(search_of_peer, bench, peer, whole)
    results = in_turn(contenders, 1 if whole else runs)
    title = f"head search, {TRIALS} trials x {EPOCHS} epochs, {NETWORKS[bench.network]}"
    note = "" if whole else f"peer: one epoch timed, the other {TRIALS * EPOCHS - 1} reckoned"
    entries = []
    for peer, name in PEER_NAMES.items():
        entries.append(
            compare(
                title,
                "s",
                [result.seconds for result in results["ours"]],
                [result.seconds for result in results[peer]],
                name,
                SEARCH_TARGETS[peer],
                better="less",
                note=note,
            )
        )
        behind = [
            100 * (theirs.accuracy - ours.accuracy)
            for ours, theirs in zip(results["ours"], results[peer], strict=True)
            if theirs.accuracy is not None and ours.accuracy is not None
        ]
        if behind:
            entries.append(
                absolute(
                    f"{title}: best valid accuracy below the {name}'s", "points", behind, "<= 0.5"
                )
            )
    return entries


def fine_tuning(bench: Bench, data: Path) -> float:
    """Give our images a second in the second of two epochs of fine-tuning."""
    shutil.rmtree(bench.scratch / "checkpoint", ignore_errors=True)  # it would be over already
    flags = ["--unfreeze", "all", "--batch-size", str(BATCH_SIZE), "--epochs", "2"]
    run = timed(bench.ours(["-m", "trainer.train"], data, *flags))
    return float(re.findall(r"images_per_second=([\d.]+)", run.output)[-1])


def fine_tuning_of_peer(bench: Bench, peer: str, data: Path) -> float:
    """Give a peer's images a second in the second of two epochs of fine-tuning."""
    flags = ["--train", "all", "--batch-size", str(BATCH_SIZE), "--epochs", "2"]
    last = json.loads(timed(bench.peer(peer, data, *flags)).output.splitlines()[-1])
    return float(last["images"] / last["train_seconds"])


def compare_fine_tuning(bench: Bench, runs: int, a_class: int) -> list[Entry]:
    """Compare the speed of fine-tuning on some photos of each class."""
    data = some_of(bench.photos, bench.scratch / "some", a_class)
    contenders: dict[str, Callable[[], float]] = {"ours": partial(fine_tuning, bench, data)}
    for peer in PEER_NAMES:
        contenders[peer] = partial(fine_tuning_of_peer, bench, peer, data)
    speeds = in_turn(contenders, runs)
    return [
        compare(
            f"full fine-tuning, {NETWORKS[bench.network]}",
            "images/s",
            speeds["ours"],
            speeds[peer],
            name,
            TUNING_TARGETS[peer],
            better="more",
            note=f"batches of {BATCH_SIZE}, 224 px, second epoch; ours keeps the "
            "batch-normalization statistics, as it does by default",
        )
        for peer, name in PEER_NAMES.items()
    ]


def some_of(photos: Path, folder: Path, a_class: int) -> Path:
    """Make a data folder of `a_class` training photos of each class, and one for validation."""
    if folder.exists():
        return folder
    files = scan(photos, ("train", "valid")).files
    for split, count in (("train", a_class), ("valid", 1)):
        for name in class_folders(photos / "train"):
            of_class = [file for file in files[split] if file.split("/")[1] == name]
            for file in of_class[:count]:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).symlink_to((photos / file).absolute())
    return folder


def start(bench: Bench, runs: int, unfreeze: str) -> Entry:
    """Time the way to the first step when all was decoded and computed before."""
    shutil.rmtree(bench.scratch / "checkpoint", ignore_errors=True)
    command = bench.ours(["-c", FIRST_STEP], bench.photos, "--unfreeze", unfreeze)
    timed(command)
    what = "head training" if unfreeze == "none" else "full fine-tuning"
    return absolute(
        f"{what}, second run on the same data, {NETWORKS[bench.network]}: "
        "from process start to the first step",
        "s",
        [timed(command).seconds for _ in range(runs)],
        "< 2",
    )


def main() -> None:
    """Run all of it once."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.training", description=main.__doc__)
    parser.add_argument("--photos", type=Path, default=Path("../shared/dogs"), help="data folder")
    parser.add_argument("--runs", type=int, default=3, help="of each contender (default: 3)")
    parser.add_argument(
        "--whole", choices=NETWORKS, nargs="+", default=[], help="let its peers search to the end"
    )
    parser.add_argument("--quick", action="store_true", help="prove the code, not the figures")
    options = parser.parse_args()
    if not (options.photos / "train").is_dir():
        sys.exit(f"error: {options.photos} is no data folder; name one with --photos")
    runs = 1 if options.quick else options.runs
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            scratch = Path(folder, network)
            scratch.mkdir()
            photos = options.photos.resolve()
            if options.quick:
                photos = some_of(photos, scratch / "few", 2)
            bench = Bench(network, photos, scratch)
            entries += compare_searches(bench, runs, network in options.whole)
            entries += [start(bench, runs, unfreeze) for unfreeze in ("none", "all")]
            entries += compare_fine_tuning(bench, runs, 2 if options.quick else 13)
    command = " ".join(["python -m tests.benchmarks.training", *sys.argv[1:]])
    record("training", command, entries, quick=options.quick)


if __name__ == "__main__":
    main()

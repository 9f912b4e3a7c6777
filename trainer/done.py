"""What a target of `make` has made, and what comes next: `python -m trainer.done train --run DIR`.

The next command carries what this one was given, so that it works as it is printed.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer import index
from trainer.errors import KennelError, run_command
from trainer.fence import NO_ANSWER, is_loopback, localaws_page
from trainer.files import read_json
from trainer.make_command import make_command
from trainer.names import counted, shown

NEXT = {
    "env": "data",
    "data": "tune",
    "tune": "train",
    "train": "evaluate",
    "package": "evaluate",
    "evaluate": "serve",
    "lambda": "deploy",
    "local-up": "bootstrap ENV=local",
    "local-up with a state": "status ENV=local",
    "upload": "tune ENGINE=job",
}
PARTS = {
    "tune": ("tune",),
    "train": ("train",),
    "package": ("package",),
    "evaluate": ("trained", "served"),
}
"""What the targets about a run make, each part by a command of its own."""
_ANEW = {
    "tune": "searches anew, more TRIALS=... go on from these",
    "train": "trains anew, other EPOCHS=... or CONFIG=... train another one",
}


def lines(
    step: str, output: Path, run: Path, data: Path, told: Collection[str] = ()
) -> Iterator[str]:
    """Name what a step has made: a title and a path each.

    Args:
        step: The target.
        output: Where everything goes.
        run: The run's folder.
        data: The data set's folder.
        told: Parts of which nothing is to be said, since their own commands have said it.
    """
    if step == "env":
        yield f"environment: {sys.prefix}"
    if step == "data":
        yield f"report: {data / 'dataset_report.json'}"
    for part in PARTS.get(step, ()):
        if part not in told:
            yield from _part(part, run, output)


def _part(part: str, run: Path, output: Path) -> Iterator[str]:
    if part == "tune":
        yield from searched(run / "tune")
    elif part == "train":
        for title, path in (
            ("model", run / "model"),
            ("learning curves", run / "training/learning_curves.svg"),
        ):
            if path.exists():
                yield f"{title}: {path}"
    elif part == "package":
        yield from packed(run / "model.tar.gz", _whole(run / "package.json"))
    elif part == "trained":
        yield from evaluated("as trained", run / "evaluation")
    elif found := index.find_run(run, output):
        form = f"as served ({found.precision})" if found.precision else "as served"
        yield from evaluated(form, run / "served")


def _whole(path: Path) -> Mapping[str, Any]:
    """Read what a step has left; empty if it has left none.

    Raises:
        KennelError: It is damaged.
    """
    content = read_json(path)
    if not content:
        _require_none(path)
    return content


def _require_none(path: Path) -> None:
    """Refuse a file of which nothing could be read: make, which goes by its time, believes it."""
    if os.path.lexists(path):
        raise KennelError(f"{shown(path)} is damaged: remove it, and give the command again")


def searched(folder: Path) -> Iterator[str]:
    """Say what a search has left in a folder.

    Raises:
        KennelError: The results are damaged.
    """
    result = _whole(folder / "search.json")
    if {"trials", "valid_loss"} <= result.keys():
        yield (
            f"lowest validation loss: {result['valid_loss']:.4g}, "
            f"of {result['trials']} trial{'s' * (result['trials'] > 1)}"
        )
    for title, name in (("hyperparameters", "best.json"), ("search", "search.html")):
        if (folder / name).exists():
            yield f"{title}: {folder / name}"


def report_on(archive: Path) -> Path:
    """Where the report on an archive lies: `package.json`, or `NAME.package.json` beside others."""
    name = archive.name.removesuffix(".tar.gz")
    return archive.with_name("package.json" if name == "model" else f"{name}.package.json")


def packed(archive: Path, report: Mapping[str, Any]) -> Iterator[str]:
    """Say what an archive is, by the report beside it."""
    keys = ("name", "precision", "bytes", "top1_valid_served")
    name, precision, size, top1 = map(report.get, keys)
    figures = ""
    if top1 is not None and size is not None:
        figures = (
            f" ({name}, {precision}, {size / 1e6:.1f} MB, top-1 {100 * top1:.1f} % of valid photos)"
        )
    if archive.exists():
        yield f"archive: {archive}{figures}"
    path = report_on(archive)
    if path.exists():
        yield f"report: {path}"


def evaluated(form: str, folder: Path) -> Iterator[str]:
    """Say how good a model is, by its evaluation in a folder.

    Raises:
        KennelError: The evaluation is damaged.
    """
    if figures := index.accuracy(folder):
        yield (
            f"{form}: top-1 {100 * figures.top1:.1f} %, {100 * figures.low:.1f} to "
            f"{100 * figures.high:.1f} %, of {counted(figures.images, f'{figures.split} photo')}: "
            f"{folder / 'evaluation.html'}"
        )
    else:
        _require_none(folder / "evaluation.json")


def request(data: Path, port: str) -> str:
    """Give a command that asks the server about a photo of the data set."""
    kinds = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
    photos = (file for file in data.glob("test/*/*") if file.suffix.lower() in kinds)
    photo = next(photos, Path("photo.jpg"))
    return (
        f"curl --data-binary {shlex.quote(f'@{photo}')} "
        f"-H 'Content-Type: image/{kinds[photo.suffix.lower()]}' "
        f"http://127.0.0.1:{port}/invocations"
    )


def next_command(step: str) -> str:
    """Give the command of `make` that comes after a step, with what this one was given."""
    goal, *words = NEXT[step].split()
    fixed = dict(word.split("=") for word in words)
    return make_command(goal, fixed.pop("ENV", ""), about_run=True, **fixed)


def up_to_date(step: str) -> str:
    """Say that there was nothing to do, and how to do it all the same."""
    if step not in _ANEW:
        return "up to date"
    again = make_command(step, about_run=True, FRESH="1")
    return f"up to date: `{again}` {_ANEW[step]}"


def _holds_something(output: Path) -> bool:
    """Whether localaws has come up with what an earlier one was left with."""
    endpoint = read_json(output / "localaws/server.json").get("endpoint", "")
    if not is_loopback(endpoint):
        return False
    try:
        return bool(localaws_page(endpoint, "inventory"))
    except (OSError, *NO_ANSWER):
        return False


def main() -> None:
    """Bring the index up to date, and print what there is and what comes next."""
    parser = argparse.ArgumentParser(prog="python -m trainer.done", description=__doc__)
    parser.add_argument("step", choices=[*NEXT, "serve"])
    for flag, text in (
        ("output", "where everything goes"),
        ("run", "the run's folder"),
        ("data", "the data set's folder"),
    ):
        parser.add_argument(f"--{flag}", type=Path, required=True, metavar="DIR", help=text)
    parser.add_argument("--port", default="8080", help="of the server")
    parser.add_argument("--made", metavar="PARTS", help="what was made just now, if that is known")
    options = parser.parse_args()
    step, made = options.step, (options.made or "").split()
    if step == "serve":
        asked = request(options.data, options.port)
        print(f"ask it from another terminal: {asked}", flush=True)
        return
    if options.made is not None and not set(PARTS.get(step, ())) & set(made):
        print(up_to_date(step))
    # On a terminal, what makes a part has said it in the same words.
    told = set(made) - {"train"} if sys.stdout.isatty() else ()
    for line in lines(step, options.output, options.run, options.data, told):
        print(shown(line))
    if step in PARTS:
        try:
            print(f"all pages: {shown(index.write(options.output))}")
        except KennelError as error:  # what was asked for is there all the same
            sys.stderr.write(f"{error}\n")
    if step == "local-up" and _holds_something(options.output):
        step = "local-up with a state"
    print(f"next: {next_command(step)}")


if __name__ == "__main__":
    run_command(main)

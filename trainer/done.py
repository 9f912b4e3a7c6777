"""What a target of `make` has made, and what comes next: `python -m trainer.done train --run DIR`.

The next command carries what this one was given, so that it works as it is printed.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer import index
from trainer.errors import KennelError, run_command
from trainer.make_command import make_command
from trainer.names import shown

NEXT = {
    "env": "data",
    "data": "tune",
    "tune": "train",
    "train": "evaluate",
    "package": "evaluate",
    "evaluate": "serve",
    "lambda": "deploy",
    "local-up": "bootstrap ENV=local",
    "upload": "tune ENGINE=job",
}
_FILES = {
    "tune": {"hyperparameters": "tune/best.json", "search": "tune/search.html"},
    "train": {"model": "model", "learning curves": "training/learning_curves.svg"},
    "package": {"archive": "model.tar.gz", "report": "package.json"},
}


def lines(step: str, output: Path, run: Path, data: Path) -> Iterator[str]:
    """Name what a step has made: a title and a path each."""
    if step == "env":
        yield f"environment: {sys.prefix}"
    if step == "data":
        yield f"report: {data / 'dataset_report.json'}"
    for title, place in _FILES.get(step, {}).items():
        if (run / place).exists():
            yield f"{title}: {run / place}"
    if step == "evaluate" and (found := index.find_run(run, output)):
        served = f"as served ({found.precision})" if found.precision else "as served"
        for form, folder, figures in (
            ("as trained", "evaluation", found.trained),
            (served, "served", found.served),
        ):
            if figures:
                yield (
                    f"{form}: top-1 {100 * figures.top1:.1f} %, {100 * figures.low:.1f} to "
                    f"{100 * figures.high:.1f} %, of {figures.images:,} {figures.split} photos: "
                    f"{run / folder / 'evaluation.html'}"
                )


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
    options = parser.parse_args()
    if options.step == "serve":
        asked = request(options.data, options.port)
        print(f"ask it from another terminal: {asked}", flush=True)
        return
    for line in lines(options.step, options.output, options.run, options.data):
        print(shown(line))
    if options.step in _FILES or options.step == "evaluate":
        try:
            print(f"all pages: {shown(index.write(options.output))}")
        except KennelError as error:  # what was asked for is there all the same
            sys.stderr.write(f"{error}\n")
    print(f"next: {next_command(options.step)}")


if __name__ == "__main__":
    run_command(main)

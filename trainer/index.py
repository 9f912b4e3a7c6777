"""One page that leads to all others: `python -m trainer.index --output build`."""

import argparse
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from trainer.errors import KennelError, run_command
from trainer.files import read_json, write_text_atomic
from trainer.names import shown
from trainer.pages import WAY_BACK, render_page

NAME = "index.html"

_PAGES = {
    "search": "tune/search.html",
    "search in a job": "tune-job/search.html",
    "search by SageMaker": "tune-sagemaker/search.html",
    "learning curves": "training/learning_curves.svg",
    "evaluation as trained": "evaluation/evaluation.html",
    "evaluation as served": "served/evaluation.html",
    "package report": "package.json",
}
_ALL_RUNS = {
    "demonstration": "demo/report.html",
    "benchmarks": "bench/index.html",
}


@dataclass(frozen=True)
class Link:
    """A page, and its address from the index."""

    text: str
    address: str


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on a split and its 95 % interval, 0 to 1."""

    split: str
    images: int
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """What there is of a data set, a backbone and what of it was trained.

    Attributes:
        name: Its folder's name, for people.
        links: Its pages.
        trained: How good it is as trained, if that was measured.
        served: And as served.
        precision: What it is served in: "int8", "fp32", or "" if it was not packed.
        commit: Of the code that packed it, or "".
        changed: When its newest page was written.
    """

    name: str
    links: tuple[Link, ...]
    trained: Accuracy | None
    served: Accuracy | None
    precision: str
    commit: str
    changed: datetime


def find_run(folder: Path, output: Path) -> Run | None:
    """Read what a run has left; None for a folder that is none.

    Args:
        folder: The run's.
        output: The index's, from which addresses lead.
    """
    pages = {text: folder / place for text, place in _PAGES.items()}
    found = {text: path for text, path in pages.items() if path.is_file()}
    if not found:
        return None
    links = [_link(text, path, output) for text, path in found.items()]
    # A run's folder is DATASET-BACKBONE-UNFREEZE, and of these only the first can have a hyphen.
    report = output / "data" / folder.name.rsplit("-", 2)[0] / "dataset_report.json"
    if report.is_file():
        links.insert(0, _link("data set report", report, output))
    package = read_json(folder / "package.json")
    return Run(
        name=folder.name,
        links=tuple(links),
        trained=accuracy(folder / "evaluation"),
        served=accuracy(folder / "served"),
        precision=str(package.get("precision", "")),
        commit=str(package.get("git_commit", "")),
        changed=datetime.fromtimestamp(max(p.stat().st_mtime for p in found.values()), UTC),
    )


def accuracy(folder: Path) -> Accuracy | None:
    """Read an evaluation's main figure; None if there is none, or none that is whole."""
    content = read_json(folder / "evaluation.json")
    try:
        low, high = map(float, content["top1_interval"])
        split, images = str(content["split"]), int(content["images"])
        return Accuracy(split, images, float(content["top1"]), low, high)
    except (KeyError, TypeError, ValueError):
        return None


def with_way_back(page: str, folder: Path, output: Path | None = None) -> str:
    """Give a page a link to the one that `write` makes, if it belongs to a run of the same folder.

    Elsewhere, as in a job whose page is read where it is fetched to, the link would lead nowhere.

    Args:
        page: As `render_page` gives it.
        folder: Where it is to be written.
        output: Where the other one is kept; None: where `make` says, if it runs this.
    """
    if output is None and (given := os.environ.get("KENNEL_OUT")):
        output = Path(given)
    if output is None or folder.resolve().parent.parent != output.resolve():
        return page
    link = f'<p class="small"><a href="../../{NAME}">all pages</a></p>'
    return page.replace(WAY_BACK, link, 1)


def write(output: Path) -> Path:
    """Write the page over all runs in a folder, the newest first.

    Returns:
        Its path.

    Raises:
        KennelError: It cannot be written.
    """
    path = output / NAME
    try:
        folders = [entry for entry in output.iterdir() if entry.is_dir()]
        runs = [run for folder in folders if (run := find_run(folder, output))]
        others = [
            _link(text, output / place, output)
            for text, place in _ALL_RUNS.items()
            if (output / place).is_file()
        ]
        runs.sort(key=lambda run: (run.changed, run.name), reverse=True)
        write_text_atomic(path, render_page("index.html.j2", runs=runs, others=others))
    except OSError as error:
        raise KennelError(f"cannot write {path}: {error.strerror}") from error
    return path


def _link(text: str, path: Path, output: Path) -> Link:
    return Link(text, quote(os.fsencode(path.relative_to(output))))


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m trainer.index", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="as of `make`")
    print(shown(write(parser.parse_args().output)))


if __name__ == "__main__":
    run_command(main)

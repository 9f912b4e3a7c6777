"""The page of all benchmarks, and their table as Markdown.

`python -m tests.benchmarks.page` reads what the benchmarks have written to `build/bench/*.json` and
writes `build/bench/index.html`; `--markdown` prints the table for `docs/performance.md` besides.
"""

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from tests.benchmarks.harness import RESULTS, Entry, Figure
from trainer.files import write_text_atomic

TEMPLATES = Path(__file__).parent / "templates"
MARKERS = "osD^vP"
OURS = "Kennel"

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Benchmark:
    """What one benchmark wrote.

    Attributes:
        name: The benchmark.
        command: What makes it again.
        entries: Its lines of the table.
        machine: Where it ran, and with which versions.
        quick: Whether it was a short run, which proves the benchmark's code and nothing else.
        pictures: Title and SVG of its curves.
    """

    name: str
    command: str
    entries: tuple[Entry, ...]
    machine: Mapping[str, Any]
    quick: bool
    pictures: Mapping[str, str]


def read(folder: Path) -> list[Benchmark]:
    """Read all results that have entries; others are tables of their own."""
    contents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return [
        Benchmark(
            name,
            content["command"],
            tuple(map(_entry, content["entries"])),
            content["machine"],
            content.get("quick", False),
            pictures(content),
        )
        for name, content in contents.items()
        if "entries" in content
    ]


def _entry(content: Mapping[str, Any]) -> Entry:
    peer = content["peer"] and Figure(**content["peer"])
    return Entry(**{**content, "ours": Figure(**content["ours"]), "peer": peer})


@dataclass(frozen=True)
class Bar:
    """A figure as a bar: its values, and the same as parts of the widest."""

    label: str
    figure: Figure
    median: float
    least: float
    most: float


def bars(entry: Entry) -> list[Bar]:
    """Draw ours, and the peer's or else the limit, to one scale."""
    limit = Figure.of([float(entry.target.split()[1])])
    beside = (entry.peer_name, entry.peer) if entry.peer else ("wanted", limit)
    figures = {OURS: entry.ours, beside[0]: beside[1]}
    widest = max(figure.most for figure in figures.values()) or 1.0
    return [
        Bar(label, figure, figure.median / widest, figure.least / widest, figure.most / widest)
        for label, figure in figures.items()
    ]


def pictures(content: Mapping[str, Any]) -> dict[str, str]:
    """Draw the curves that a benchmark wrote: title to SVG.

    Args:
        content: May have `curves`, model -> server -> `closed` (clients) and `open` (rate), each
            rows with per_second and p99_ms; `sizes`, rows of photos, seconds, peak_mib; `server`,
            pairs of second and MiB.
    """
    drawn = {
        f"Under load: {model}": load(each) for model, each in content.get("curves", {}).items()
    }
    if "sizes" in content:
        drawn["Training by the number of photos"] = growth(content["sizes"])
    if "server" in content:
        drawn["Memory of the server under load"] = memory(content["server"])
    return drawn


def load(servers: Mapping[str, Mapping[str, Rows]]) -> str:
    """Draw throughput and p99 against clients and against the arrival rate; ours comes first."""
    picture = Picture(figsize=(10, 6.6), layout="constrained")
    (clients, clients_p99), (rates, rates_p99) = picture.subplots(2, 2)
    for marker, (name, modes) in zip(MARKERS, sorted(servers.items(), key=_place), strict=False):
        for throughput, p99, mode, across in (
            (clients, clients_p99, "closed", "clients"),
            (rates, rates_p99, "open", "rate"),
        ):
            line(throughput, modes.get(mode, []), across, "per_second", marker, name)
            line(p99, modes.get(mode, []), across, "p99_ms", marker, name)
    asked = {row["clients"] for modes in servers.values() for row in modes.get("closed", [])}
    for axes in (clients, clients_p99):
        axes.set(xlabel="clients, closed loop", xscale="log")
        axes.xaxis.set_major_locator(FixedLocator(sorted(asked)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    for axes in (rates, rates_p99):
        axes.set(xlabel="requests/s, Poisson")
    for axes in (clients, rates):
        axes.set(ylabel="answers/s", ylim=(0, None))
    for axes in (clients_p99, rates_p99):
        axes.set(ylabel="p99, ms", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    clients.legend(frameon=False)
    return svg(picture)


def _place(server: tuple[str, Any]) -> tuple[bool, str]:
    return server[0] != OURS, server[0]


def growth(sizes: Rows) -> str:
    """Draw time and memory against the number of photos."""
    picture = Picture(figsize=(10, 3.4), layout="constrained")
    for axes, value, label in zip(
        picture.subplots(1, 2), ("seconds", "peak_mib"), ("seconds", "peak, MiB"), strict=True
    ):
        line(axes, sizes, "photos", value, "o", OURS)
        axes.set(xlabel="photos", ylabel=label, xlim=(0, None))
        axes.set(ylim=(0, 1.15 * max(row[value] for row in sizes)))
    return svg(picture)


def memory(server: Sequence[tuple[float, float]]) -> str:
    """Draw memory over time."""
    picture = Picture(figsize=(10, 2.8), layout="constrained")
    axes = picture.subplots()
    axes.plot([second / 60 for second, _ in server], [mib for _, mib in server])
    axes.set(xlabel="minutes", ylabel="resident, MiB")
    axes.set(ylim=(0, 1.15 * max(mib for _, mib in server)))
    return svg(picture)


def line(axes: Axes, rows: Rows, across: str, up: str, marker: str, label: str) -> None:
    """Draw a line of rows."""
    points = sorted((row[across], row[up]) for row in rows)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    axes.plot(xs, ys, marker=marker, markersize=4, label=label)


def svg(picture: Picture) -> str:
    """Give a picture as an element of a page; the same picture gives the same text."""
    for axes in picture.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "kennel", "svg.fonttype": "none"}):
        picture.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def number(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(figure: Figure) -> str:
    """Write a figure with its least and most."""
    if figure.runs == 1:
        return number(figure.median)
    return f"{number(figure.median)} ({number(figure.least)} to {number(figure.most)})"


def markdown(benchmarks: Sequence[Benchmark]) -> str:
    """Write the table of all entries."""
    lines = ["| what | Kennel | peer | ratio | target | |", "|---|---|---|---|---|---|"]
    for entry in (entry for benchmark in benchmarks for entry in benchmark.entries):
        peer = f"{spread(entry.peer)}, {entry.peer_name}" if entry.peer else ""
        ratio = number(entry.ratio) if entry.peer else ""
        cells = [f"{entry.what}, {entry.unit}", spread(entry.ours), peer, ratio, entry.target]
        lines.append(f"| {' | '.join(cells)} | {'holds' if entry.holds else '**missed**'} |")
    return "\n".join(lines) + "\n"


def render(benchmarks: Sequence[Benchmark]) -> str:
    """Write the page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "spread": spread}
    entries = [entry for benchmark in benchmarks for entry in benchmark.entries]
    return environment.get_template("page.html.j2").render(
        benchmarks=benchmarks,
        bars=bars,
        holds=sum(entry.holds for entry in entries),
        entries=len(entries),
    )


def main() -> None:
    """Write the page from the results that are there."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.page", description=main.__doc__)
    parser.add_argument("--markdown", action="store_true", help="print the table too")
    options = parser.parse_args()
    benchmarks = read(RESULTS)
    if not benchmarks:
        sys.exit(f"error: {RESULTS} has no results; run make bench")
    page = RESULTS / "index.html"
    write_text_atomic(page, render(benchmarks))
    print(markdown(benchmarks) if options.markdown else page)


if __name__ == "__main__":
    main()

"""The page of a search: every trial, whatever became of it, and no more than the trials say."""

import math
import os
import random
import re
from html.parser import HTMLParser

import pytest

from trainer.config import TrainConfig
from trainer.importance import importances
from trainer.search_page import Axis, Trial, covering, loss_axis, record, render
from trainer.search_space import Choice, Range, search_space


def values(seed: int, unfreeze: str = "none") -> dict[str, float | int | str]:
    chance, found = random.Random(seed), {}
    for name, space in search_space(unfreeze).items():
        if isinstance(space, Choice):
            found[name] = chance.choice(space.values)
        elif space.integer:
            found[name] = chance.randint(int(space.low), int(space.high))
        else:
            found[name] = space.low * (space.high / max(space.low, 1e-9)) ** chance.random()
            found[name] = min(max(found[name], space.low), space.high)
    return found


def trials(states: str, unfreeze: str = "none") -> list[Trial]:
    """A trial for each letter: complete, pruned or failed."""
    names = {"c": "complete", "p": "pruned", "f": "failed"}
    return [
        Trial(
            number,
            names[state],
            values(number, unfreeze),
            None if state == "f" else 0.5 - number / 100,
            None if state == "f" else 0.9,
            None if state == "f" else 12,
            1.5,
        )
        for number, state in enumerate(states)
    ]


def page_of(found: list[Trial], title: str = "network", unfreeze: str = "none") -> str:
    space = search_space(unfreeze)
    best = min((t for t in found if t.state == "complete"), key=lambda t: t.loss)
    config = TrainConfig(**best.values, image_size=64, weights="<i>.pth")
    return render(title, "data", space, found, best, config)


class Page(HTMLParser):
    """Rows of the trials, classes of the lines, tags and addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.lines: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._inside = False
        self.feed(html)
        self.text = re.sub(r"[ \n]+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not {"src", "href"} & given.keys()
        self.tags.append(tag)
        self.text += " " if tag in ("td", "th") else ""
        if tag == "tr":
            self._inside = "data-trial" in given
            if self._inside:
                self.rows.append([])
        if tag == "td" and self._inside:
            self.rows[-1].append("")
        if tag == "polyline" and "data-trial" in given:
            self.lines.append(str(given["class"]))

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_every_trial_is_in_the_table_and_in_the_parallel_coordinates():
    page = Page(page_of(trials("cpfcpf")))
    states = ["complete", "pruned", "failed", "complete, best", "pruned", "failed"]
    assert [row[1] for row in page.rows] == states
    assert sorted(page.lines) == ["complete", "complete best", *2 * ["failed"], *2 * ["pruned"]]
    # trial, state, loss, accuracy, epochs, seconds, and what was searched
    assert page.rows[3][2:6] == ["0.4700", "90.0\N{NO-BREAK SPACE}%", "12", "1.5"]
    assert page.rows[2][2:6] == ["", "", "", "1.5"]
    assert all(len(row) == 6 + len(search_space("none")) for row in page.rows)
    assert "2 complete, 2 pruned, 2 failed" in page.text
    assert "Not searched, and other than the defaults: weights <i>.pth, image size 64." in page.text


def test_best_values_stand_beside_the_defaults():
    found = trials("cc")
    text = Page(page_of(found)).text
    assert f"epochs10 to 40 {found[1].values['epochs']} {TrainConfig().epochs} " in text


@pytest.mark.parametrize(("count", "unfreeze"), [(1, "none"), (8, "none"), (100, "all")])
def test_the_page_stays_small_and_says_when_it_says_little(count: int, unfreeze: str):
    html = page_of(trials("c" * count, unfreeze), unfreeze=unfreeze)
    assert len(html) < 150_000
    assert not re.search(r"url\(|@import|https?:", html)
    text = Page(html).text
    assert ("Of 8 complete trials: says little." in text) == (count == 8)
    assert ("Of 1 complete trial, nothing can be said" in text) == (count == 1)


def test_what_users_name_is_text_and_no_markup():
    hostile = "<script>alert(1)</script>"
    found = [Trial(0, "complete", values(0), 0.5, name=hostile)]
    page = Page(page_of(found, title=hostile))
    assert page.tags.count("script") == 1  # the page's own
    assert page.text.count(hostile) > 2  # in the title, over the page and in the table


def test_a_name_that_is_not_utf_8_makes_a_page_that_is():
    html = page_of(trials("cc"), title=os.fsdecode(b"caf\xe9"))
    assert "caf\N{REPLACEMENT CHARACTER}" in html
    html.encode()


def test_a_loss_that_is_no_number_is_not_drawn():
    found = [*trials("cc"), Trial(2, "failed", values(2), math.nan)]
    assert not re.search(r'(points|x|y|d|cy)="[^"]*nan', page_of(found))


def test_values_of_an_earlier_version_widen_the_axis():
    found = [Trial(0, "complete", {"rate": 1e-6, "size": 48}, 0.5)]
    assert covering("rate", Range(1e-4, 1e-1, log=True), found) == Range(1e-6, 1e-1, log=True)
    assert covering("size", Choice((16, 32)), found) == Choice((16, 32, 48))
    assert covering("other", Choice((16, 32)), found) == Choice((16, 32))


def test_places_follow_the_scale():
    assert Axis("rate", Range(1e-4, 1e-2, log=True)).place(1e-3) == pytest.approx(0.5)
    assert Axis("share", Range(0.0, 0.5)).place(0.1) == pytest.approx(0.2)
    assert Axis("size", Choice((16, 32, 64))).place(32) == 0.5
    assert Axis("one", Range(2.0, 2.0)).place(2.0) == 0.5
    losses = [Trial(n, "complete", {}, loss) for n, loss in enumerate((0.01, 1.0))]
    assert loss_axis(losses).place(0.1) == pytest.approx(0.5)


def test_pruned_trials_make_no_record():
    losses = [("complete", 1.0), ("pruned", 0.0), ("complete", 2.0), ("complete", 0.5)]
    found = [Trial(n, state, {}, loss) for n, (state, loss) in enumerate(losses)]
    assert record(found, loss_axis(found)) == [(0.0, 0.5), (1.0, 0.5), (1.0, 0.25), (1.0, 0.25)]


def test_the_one_that_decides_is_found_and_few_trials_leave_it_open():
    space = {"decides": Range(0.0, 1.0), "idle": Range(0.0, 1.0), "kind": Choice(("a", "b"))}
    chance = random.Random(0)
    ran = []
    for _ in range(60):
        tried = {"decides": chance.random(), "idle": chance.random(), "kind": chance.choice("ab")}
        ran.append((tried, (tried["decides"] - 0.3) ** 2))
    many, few = importances(space, ran), importances(space, ran[:8])
    assert many[0].name == "decides"
    assert many[0].low > max(other.median for other in many[1:])
    for found in (many, few):
        assert all(0 <= one.low <= one.median <= one.high <= 1 for one in found)
    assert few[0].low < few[1].high
    assert importances(space, ran) == many


@pytest.mark.parametrize("losses", [[0.1, 0.2, 0.3], [0.5] * 20])
def test_nothing_is_said_of_few_or_equal_trials(losses: list[float]):
    space = search_space("none")
    assert importances(space, [(values(n), loss) for n, loss in enumerate(losses)]) == []

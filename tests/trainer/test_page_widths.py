"""Whether the tables of a page fit a narrow and a usual window: in a browser, where one is."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.trainer.test_search_page import page_of, trials

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--allow-file-access-from-files", "--virtual-time-budget=2000", "--window-size=1400,900"),
)
# A frame is as narrow as it is told to be; a window is not.
FRAMES = """<!doctype html><pre></pre><script>
const told = [];
for (const width of [400, 1200]) {
  const frame = document.createElement("iframe");
  frame.style.width = `${width}px`;
  frame.src = "page.html";
  frame.onload = () => {
    const boxes = [...frame.contentDocument.querySelectorAll(".scroll:has(> table)")];
    told.push([width, boxes.map(box => box.scrollWidth - box.clientWidth)]);
    document.querySelector("pre").textContent = JSON.stringify(told);
  };
  document.body.append(frame);
}
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium here")
def test_the_tables_of_a_search_need_no_scrolling(tmp_path: Path) -> None:
    assert BROWSER is not None
    (tmp_path / "page.html").write_text(page_of(trials("cpfc", "all"), unfreeze="all"))
    (tmp_path / "frames.html").write_text(FRAMES)
    shown = subprocess.run(
        [
            *(BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            (tmp_path / "frames.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    told = re.search(r"<pre>(.*?)</pre>", shown)
    assert told, shown
    overhang = dict(json.loads(told[1]))
    assert overhang[400][0] == 0  # that of the best hyperparameters
    assert overhang[1200] == [0, 0]

"""The page in a real browser: both modes, narrow screens, nothing fetched. Needs Chromium."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scoring.report import report_html
from tests.scoring.test_report import FULL, scores, subject

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

# a page that measures another one, which it holds in a frame of some width
MEASURE = """<iframe id="frame" style="width:{width}px;height:800px;border:0"
  srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>frame.onload = () => {{
  const inner = frame.contentDocument, body = getComputedStyle(inner.body);
  found.textContent = [inner.documentElement.scrollWidth, inner.documentElement.clientWidth,
    body.backgroundColor, body.color, inner.images.length,
    [...inner.images].every(image => image.naturalWidth > 0)].join(";");
}}</script>"""


def measured(folder: Path, page: str, width: int, *, is_dark: bool = False) -> list[str]:
    """Widths of content and screen, colours of paper and ink, number of images, all decoded."""
    file = folder / "measure.html"
    file.write_text(MEASURE.format(width=width, page=html.escape(page)), encoding="utf-8")
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000"),
            *(f"--blink-settings=preferredColorScheme={0 if is_dark else 1}", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout)
    assert found, done.stdout[-1000:]
    return found[1].split(";")


def test_no_screen_is_too_narrow(tmp_path: Path) -> None:
    name = "runs/00012-" + "a-very-long-name-without-a-space" * 4
    wide = [scores(seeds="0-1999"), scores(seeds="2000-3999")]
    page = report_html([*FULL, subject(name, rows=wide, stats=FULL[0].stats)], title=name)
    for width in (320, 390, 1280):
        content, screen, _, _, num_images, is_decoded = measured(tmp_path, page, width)
        assert int(content) <= int(screen), width
        assert (num_images, is_decoded) == ("69", "true")


def test_the_page_follows_light_and_dark(tmp_path: Path) -> None:
    page = report_html(FULL, title="t")
    light = measured(tmp_path, page, 800)[2:4]
    dark = measured(tmp_path, page, 800, is_dark=True)[2:4]
    assert light == ["rgb(253, 253, 251)", "rgb(28, 30, 33)"]
    assert dark == ["rgb(23, 25, 28)", "rgb(229, 227, 222)"]

"""The page in a browser: what buttons and filters do, that nothing is loaded, that all text can be read.

It is skipped where no Chromium is found; ``CHROMIUM`` may name one.
"""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess

import pytest

from tests import evaluations
from visionkit.evaluation.report.page import page
from visionkit.evaluation.report.source import find_source

BROWSER = next(
    filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt install chromium, or set CHROMIUM")

LOOK = """
const told = {};
const shown = () => Array.from(document.querySelectorAll("figure")).filter((f) => f.offsetParent !== null)
  .map((f) => f.dataset.cells + " " + f.dataset.kinds);
const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
const light = (c) => { const [r, g, b] = c.map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const parsed = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m.slice(0, 3); };
const ground = (e) => { for (; e; e = e.parentElement) { const c = parsed(getComputedStyle(e).backgroundColor); if (c) return c; }
  return [255, 255, 255]; };
const contrasts = () => {
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest("script, option, [hidden]") || e.namespaceURI.includes("svg")) continue;
    const [a, b] = [light(parsed(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.tagName + " " + e.className + " " + walker.currentNode.data.slice(0, 40));
  }
  return low;
};
told.start = shown();
const cell = document.querySelector("button[data-cell]");
cell.click();
told.cell = [cell.dataset.cell, cell.getAttribute("aria-pressed"), document.activeElement.id, shown()];
told.said = document.getElementById("said").textContent;
told.pressed = contrasts();
cell.click();
told.again = shown();
const kinds = document.querySelector('select[data-by="kinds"]');
choose(kinds, kinds.options[1].value);
told.kind = [kinds.value, shown()];
document.getElementById("all").click();
told.all = shown();
choose(document.getElementById("order"), "sure");
told.sure = Array.from(document.querySelectorAll("figure")).map((f) => Number(f.dataset.sure));
told.low = contrasts();
told.dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.body.style.width = "390px";
told.wide = document.body.scrollWidth;
document.body.style.width = "";
told.loaded = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
told.broken = Array.from(document.images).filter((i) => !(i.complete && i.naturalWidth)).length;
told.handled = Array.from(document.querySelectorAll("button, select, summary, a")).filter((e) => e.tabIndex < 0).length;
document.addEventListener("securitypolicyviolation", (e) => { told.refused = e.violatedDirective;
  document.body.dataset.told = JSON.stringify(told); });
const image = new Image();
image.src = "https://example.invalid/a.png";
document.body.dataset.told = JSON.stringify(told);
"""


def looked_at(text, tmp_path, *options, width=1280):
    """What the page says of itself once LOOK has clicked through it. The browser itself reaches nobody."""
    digest = base64.b64encode(hashlib.sha256(LOOK.encode()).digest()).decode()
    text = text.replace("; script-src ", f"; script-src 'sha256-{digest}' ", 1)
    file = tmp_path / "looked.html"
    file.write_text(text.replace("</body>", f"<script>{LOOK}</script></body>"))
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [
        "--disable-background-networking",
        "--no-first-run",
        f"--window-size={width},900",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    command += ["--virtual-time-budget=2000", *options, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-told="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_cell_and_a_filter(task, tmp_path):
    evaluations.make(
        task, tmp_path / "out", tmp_path / "data", names=["cat", "<script>alert(1)</script>", "bird" * 400]
    )
    text, _ = page(find_source(tmp_path / "out"))
    told = looked_at(text, tmp_path, width=390)
    cell, pressed, focus, shown = told["cell"]
    assert (pressed, focus) == ("true", "pictures-head")
    assert shown == [s for s in told["start"] if cell in s.split(" ")]
    assert 0 < len(shown) < len(told["start"])
    assert told["said"].startswith(f"{len(shown)} of {len(told['start'])} shown: ")
    assert told["again"] == told["all"] == told["start"]
    kind, shown = told["kind"]
    assert shown == [s for s in told["start"] if kind in s.split(" ")]
    assert 0 < len(shown) < len(told["start"])
    assert told["sure"] == sorted(told["sure"])
    assert (told["low"], told["pressed"], told["broken"], told["handled"]) == ([], [], 0, 0)
    assert told["wide"] == 390  # nothing makes the page wider than a telephone
    assert (told["loaded"], told["refused"]) == ([], "img-src")


def test_dark(tmp_path):
    evaluations.make("segmentation", tmp_path / "out", tmp_path / "data")
    text, _ = page(find_source(tmp_path / "out"), truth=lambda k: None)
    told = looked_at(text, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert told["dark"]
    assert (told["low"], told["pressed"], told["broken"]) == ([], [], 0)

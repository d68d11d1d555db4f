"""The page in a real browser, where there is one: narrow screens, print, and the policy."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.report.render import render
from tests.pipelines.bagged_report import bagged, of_bags
from tests.pipelines.planted_report import example, listed
from tests.pipelines.test_report_render import hostile

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def browse(folder: Path, *options: str) -> str:
    """Run the browser without a window, a network or traces in the user's home."""
    assert BROWSER is not None
    flags = (
        "headless no-sandbox disable-gpu disable-quic no-first-run disable-component-update "
        "disable-background-networking disable-sync allow-file-access-from-files "
        "virtual-time-budget=4000 enable-logging=stderr"
    )
    command = [BROWSER, *(f"--{flag}" for flag in flags.split())]
    command += [f"--user-data-dir={folder / 'profile'}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


MEASURE = """<script>
document.querySelectorAll("details").forEach(d => d.open = true);
const page = document.documentElement;
document.title = "wide " + page.scrollWidth + " of " + page.clientWidth;
</script></body>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 768])
@pytest.mark.parametrize(
    "name", ["usual", "long names", "lists", "long lists", "bags", "long bags"]
)
def test_page__never_scrolls_sideways(tmp_path: Path, width: int, name: str) -> None:
    long = "Longunbreakablename" * 20
    make = {
        "usual": example,
        "long names": lambda: hostile(long),
        "lists": listed,
        "long lists": lambda: listed((long, long + "2", "ok"), text=long),
        "bags": lambda: bagged(of_bags()),
        "long bags": lambda: bagged(of_bags((long, long + "2"), text=long)),
    }
    html = render(make[name]())
    # The policy forbids scripts, so the copy that is measured goes without it.
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    (tmp_path / "page.html").write_text(open_page.replace("</body>", MEASURE))
    frame = tmp_path / "frame.html"
    # A frame, since a window has a least width of its own.
    frame.write_text(
        f'<iframe src="page.html" width="{width}" height="800" style="border:0" '
        'onload="document.title = this.contentDocument.title"></iframe>'
    )
    found = re.search(r"wide (\d+) of (\d+)", browse(tmp_path, "--dump-dom", frame.as_uri()))
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= width


@pytest.mark.slow
def test_page__breaks_no_rule_of_its_own_policy(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(listed()))
    assert "Content Security Policy" not in browse(tmp_path, "--dump-dom", page.as_uri())
    page.write_text(render(example(n=400)))
    assert "Content Security Policy" not in browse(tmp_path, "--dump-dom", page.as_uri())
    control = page.read_text().replace("<main>", '<main style="color: red">')
    page.write_text(control)
    assert "Content Security Policy" in browse(tmp_path, "--dump-dom", page.as_uri())


@pytest.mark.slow
def test_print__unfolds_what_is_folded(tmp_path: Path) -> None:
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("no pdftotext on this machine")
    page, pdf = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text(render(example()))
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())
    text = subprocess.run([reader, str(pdf), "-"], capture_output=True, text=True, check=True)
    assert "relabel_confidence" in text.stdout
    assert "Skip to the summary" not in text.stdout

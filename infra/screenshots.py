"""The pictures of docs/images, taken of this installation's newest report: `make screenshots`.

It needs a promoted bundle and a drift report (`make run` leaves both); it serves the dashboard on loopback meanwhile.
"""

import argparse
import json
import time
import urllib.request
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from infra.browser import INSTALL, absent, browser, save_webp
from monitoring import report, textfile, ui
from sidrec import files, home
from sidrec.cli.main import main as sidrec
from sidrec.errors import UsageError

IMAGES = Path(__file__).parents[1] / "docs" / "images"
_WAIT_S = 90
# Plots fade in after their numbers stand.
_SETTLE_S = 2.0
# Pixels: a picture in the docs is no poster, and what a window needs around its page.
_HIGHEST, _FRAME = 2400, 140


def main() -> None:
    """Parse the call, take the pictures and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--port", type=int, default=8081)
    call = parser.parse_args()
    for name, size in take(call.out, call.port).items():
        print(f"{call.out / name}: {size / 1000:.0f} kB")


def take(out: Path, port: int) -> dict[str, int]:
    """Return the size in bytes of each picture.

    Raises:
        UsageError: there is no browser, or no report to show.
    """
    if missing := absent():
        raise UsageError(f"no {' and no '.join(missing)} here", next_step=INSTALL)
    folder = textfile.newest_report()
    if folder is None:
        raise UsageError("no drift report to show", next_step="make run, or sidrec drift report")
    run_id = files.read_json(folder / report.VERDICT)["run_id"]
    if sidrec(["bundle", "page"]) != 0:
        raise UsageError("no release page to show", next_step="sidrec promote --first --reason '…'")
    pages = [path for path in (home.monitoring_dir() / "releases").glob("b-*.html") if "-codebook" not in path.name]
    newest = max(pages, key=lambda path: path.stat().st_mtime)
    sizes = {}
    with ui.serve(report.workspace_dir(), port), browser(1280, 1100) as driver:
        address = f"http://{ui.HOST}:{port}"
        with urllib.request.urlopen(f"http://{ui.HOST}:{port}/api/projects") as answer:
            project = next(one["id"] for one in json.load(answer) if one["name"] == "sidrec")
        for name, url, text in (
            ("dashboard.webp", f"{address}/projects/{project}", "purchases"),
            ("drift-run.webp", f"{address}/projects/{project}/reports/{run_id}", "Items bought: PSI"),
            ("release-page.webp", newest.as_uri(), "How its traffic fares"),
        ):
            _open(driver, url, text)
            if url.startswith("file:"):
                _show_whole(driver)
            sizes[name] = save_webp(driver, out / name)
    return sizes


def _open(driver: WebDriver, url: str, text: str) -> None:
    driver.get(url)
    WebDriverWait(driver, _WAIT_S).until(lambda _: text in driver.find_element(By.TAG_NAME, "body").text)
    time.sleep(_SETTLE_S)


def _show_whole(driver: WebDriver) -> None:
    """Make the window as high as a static page, which does not scroll inside itself."""
    height = driver.execute_script("return document.documentElement.scrollHeight")
    driver.set_window_size(1280, min(int(height), _HIGHEST) + _FRAME)
    time.sleep(_SETTLE_S)


if __name__ == "__main__":
    main()

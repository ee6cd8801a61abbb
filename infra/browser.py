"""A headless Chromium for tests and screenshots: Debian's own, with Debian's driver, and no network but loopback."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

NAMES = ("chromium", "chromedriver")
INSTALL = "apt-get install chromium chromium-driver"
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    # Whatever is not this machine resolves to nothing.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def absent() -> list[str]:
    """Return which of the two programs are not installed."""
    return [name for name in NAMES if shutil.which(name) is None]


@contextmanager
def browser(width: int = 1280, height: int = 900) -> Iterator[WebDriver]:
    """Yield a browser with a window of this size in pixels; it ends with the body."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for option in (*_OPTIONS, f"--window-size={width},{height}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


def save_webp(driver: WebDriver, path: Path, *, limit_bytes: int = 140_000) -> int:
    """Write what the window shows as WebP, no larger than the limit, and return its size in bytes."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    for quality in (85, 70, 55, 40, 25):
        content = io.BytesIO()
        image.save(content, "WEBP", quality=quality, method=6)
        if content.tell() <= limit_bytes:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    return content.tell()

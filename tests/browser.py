"""A browser without a window."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def browse(browser: str, folder: Path, width: int, dark: bool, *args: str) -> str:
    """What the browser prints; its profile is kept in `folder`."""
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},4000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", *args,
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

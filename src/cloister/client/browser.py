"""Opening a URL in the person's browser, where there is a display. The URL is checked first: it goes to a program as an argument."""

import os
import shutil
import subprocess
from collections.abc import Mapping

OPENERS = ("xdg-open", "wslview", "open")


def find_opener(environment: Mapping[str, str]) -> str | None:
    """The program that opens URLs for the person, if they sit at a display."""
    has_display = bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY") or environment.get("WSL_DISTRO_NAME"))
    candidates = [environment["BROWSER"]] if environment.get("BROWSER") else list(OPENERS)
    return (
        next((path for name in candidates if (path := shutil.which(name))), None)
        if has_display or environment.get("BROWSER")
        else None
    )


def open_browser(url: str) -> bool:
    """False if there is nothing to open it with."""
    opener = find_opener(os.environ)
    if opener is None or not url.startswith("https://") or not url.isascii() or not url.isprintable():
        return False
    try:
        subprocess.Popen(
            [opener, url], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        return False
    return True

"""What a person does in a browser: from the URL in the terminal over Keycloak's own pages to the end."""

import time

from playwright.sync_api import Page, Request

MAX_PAGES = 8
SUBMIT = "form [type=submit]:not([name=cancel]), form button:not([type]):not([name=cancel])"


class OtherCode(Exception):
    """The page does not show the code of the terminal: a person closes it."""


def walk(page: Page, url: str, code: str, user: str, password: str) -> float:
    """Compare the code, say yes, sign in, agree. Returns when the browser went back to the exchange, in Unix seconds; 0.0: it did not."""
    came_back = 0.0

    def look(request: Request) -> None:
        nonlocal came_back
        if "/sign-in/callback/" in request.url or "/sign-in/acs/" in request.url:
            came_back = time.time()

    page.on("request", look)
    page.goto(url)
    has_tried = False
    for _ in range(MAX_PAGES):
        if page.locator(".code").count() and page.locator(".code").inner_text() != code:
            raise OtherCode(page.url)
        asked = page.locator("input[type=password]")
        if not page.locator(SUBMIT).count() or (asked.count() and has_tried):
            break
        if asked.count():
            has_tried = True
            if page.locator("#username").is_visible():
                page.fill("#username", user)
            asked.first.fill(password)
        with page.expect_navigation():
            page.locator(SUBMIT).first.click()
    return came_back

"""The viewer of the API's description in a real browser: offline, and under the content security policy."""

from support.browser import chromium
from support.gateway import Gateway
from support.limits import PATIENCE


def test_it_shows_every_route_and_asks_nobody_else(tmp_path):
    with Gateway(tmp_path) as gateway, chromium() as browser:
        page = browser.new_page()
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{gateway.api}/docs")
        page.wait_for_selector(".opblock", timeout=PATIENCE * 1000)
        assert page.locator(".opblock").count() > 50
        assert complaints == []
        assert [url for url in asked if not url.startswith((gateway.url, "data:"))] == []

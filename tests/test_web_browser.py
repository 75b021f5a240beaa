"""The page in a real browser. Skipped where Gradio, Playwright or a Chromium is missing."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)

from planner import estimate
from planner.web import app


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app(), log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)


def test_type_a_model_move_the_rank_and_take_the_pdf(address: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    asked: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}?tokens=300M")
        head = page.locator("#lp-headline")
        expect(head).to_contain_text("88,121,344")
        model = page.get_by_label("Model", exact=False).first
        model.fill("Qwen/Qwen3-8B")
        model.press("Enter")
        expect(head).to_contain_text("Qwen/Qwen3-8B")
        page.locator("input[type=range]").first.focus()
        page.keyboard.press("ArrowRight")
        expect(head).to_contain_text(f"{estimate('Qwen/Qwen3-8B', rank=33).adapter.params:,}")
        page.wait_for_url("**rank=33**")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_role("tab", name="Downloads").click()
        target = page.locator('a[href^="download/plan.pdf"]')
        answer = page.request.get(address + target.get_attribute("href"))
        assert answer.status == 200 and answer.body().startswith(b"%PDF-")
        browser.close()
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)

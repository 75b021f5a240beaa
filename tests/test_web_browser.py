"""The page in a real browser. Skipped where Gradio, Playwright or a Chromium is missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pypdf
import pytest
from click.testing import CliRunner

pytest.importorskip("gradio", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)

from planner.cli.main import cli  # noqa: E402
from planner.web import app  # noqa: E402
from planner.web.sections import SECTIONS  # noqa: E402

pytestmark = pytest.mark.browser


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


def printed(*arguments: str) -> dict[str, Any]:
    """What the command prints as JSON."""
    found = CliRunner().invoke(cli, ["estimate", *arguments, "--json"])
    assert found.exit_code == 0, found.output
    plan: dict[str, Any] = json.loads(found.stdout)
    return plan


@pytest.mark.parametrize("width", [1280, 390])
def test_type_a_model_move_the_rank_and_take_the_pdf(address: str, width: int) -> None:
    from playwright.sync_api import expect, sync_playwright

    asked: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}?tokens=300M")
        head = page.locator("#lp-headline")
        first = printed("--model", "meta-llama/Llama-3.1-8B", "--tokens", "300M")
        expect(head).to_contain_text(f"{first['adapter']['params']:,}")
        model = page.get_by_label("Model", exact=False).first
        model.fill("Qwen/Qwen3-8B")
        model.press("Enter")
        expect(head).to_contain_text("Qwen/Qwen3-8B")
        page.locator("input[type=range]").first.focus()
        page.keyboard.press("ArrowRight")
        plan = printed("--model", "Qwen/Qwen3-8B", "--rank", "33", "--tokens", "300M")
        expect(head).to_contain_text(f"{plan['adapter']['params']:,}")
        page.wait_for_url("**rank=33**")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_role("button", name="Downloads and link").click()
        with page.expect_download() as waiting:
            page.locator('a[href^="download/plan.pdf"]').click()
        text = "".join(each.extract_text() for each in pypdf.PdfReader(waiting.value.path()).pages)
        assert f"{plan['adapter']['params']:,}" in text
        shots = os.environ.get("PAGE_SHOTS")
        if shots:
            page.screenshot(path=f"{shots}/{width}.png", full_page=True)
            page.get_by_role("button", name="Light or dark").click()
            page.screenshot(path=f"{shots}/{width}-dark.png", full_page=True)
        browser.close()
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)


def test_every_tab_is_in_sight_on_a_laptop(address: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address, timeout=60_000)
        for title in (*(title for title, _, _ in SECTIONS), "Best plans"):
            tab = page.get_by_role("tab", name=title, exact=True)
            expect(tab).to_be_visible(timeout=60_000)
            tab.click()
            expect(tab).to_have_attribute("aria-selected", "true", timeout=60_000)
        browser.close()

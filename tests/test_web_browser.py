"""The page in a real browser. Skipped where Gradio, Playwright or a Chromium is missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdf
import pytest
from click.testing import CliRunner

pytest.importorskip("gradio", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)

from planner import dataset, export, units  # noqa: E402
from planner.cli.main import cli  # noqa: E402
from planner.report.numbers import dollars  # noqa: E402
from planner.web import app  # noqa: E402
from planner.web.sections import SECTIONS  # noqa: E402
from tools.small_models import data_files  # noqa: E402

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


LINKS: dict[str, list[str]] = {
    "tokens=300M&gpu=h100&batch=8&checkpointing=1": [
        "--tokens", "300M", "--gpu", "h100", "--batch", "8", "--checkpointing",
    ],
    "model=Qwen/Qwen3-30B-A3B&rank=64&experts=shared-outer&dataset=alpaca&gpu=h200&gpus=8&sharding=fsdp&batch=16": [
        "--model", "Qwen/Qwen3-30B-A3B", "--rank", "64", "--experts", "shared-outer", "--dataset", "alpaca",
        "--gpu", "h200", "--gpus", "8", "--sharding", "fsdp", "--batch", "16",
    ],
    "model=Qwen/Qwen3-8B&rank=1&episodes=320k&success_rate=0.3&layers=attention,mlp&gpu=rtx4090&quantize=nf4": [
        "--model", "Qwen/Qwen3-8B", "--rank", "1", "--episodes", "320k", "--success-rate", "0.3", "--layers",
        "attention,mlp", "--gpu", "rtx4090", "--quantize", "nf4",
    ],
}  # fmt: skip


def within(found: dict[str, Any], show: Any) -> str:
    return f"{show(found['low'])} to {show(found['high'])}"


def expected(plan: dict[str, Any]) -> dict[str, list[str]]:
    """What each tab must say, by the command's JSON."""
    adapter, flops, cap, rate = (plan[name] for name in ("adapter", "flops", "capacity", "learning_rate"))
    methods = [found for found in plan["memory"].values() if found]
    memory = [units.byte_size(found[key]) for found in methods for key in ("per_gpu_bytes", "low", "high")]
    memory += [units.byte_size(size) for found in methods for size in found["parts"].values()]
    memory += [f"{found['fewest']['gpus']:,}" for found in methods if found["fewest"]]
    time, cost, masked = plan["time"], plan["cost"], flops["masked"]
    spent = [units.duration(time["step"]["seconds"]), within(time["step"], units.duration)]
    spent += [f"{time['step']['tokens_per_s']:,.0f}", units.percent(time["step"]["mfu"])]
    if time["seconds"] is not None:
        spent += [units.duration(time["seconds"]), within(time, units.duration)]
    if cost and cost["usd"] is not None:
        spent += [dollars(cost["usd"]), within(cost, dollars), dollars(cost["price"]["usd_per_gpu_hour"])]
    return {
        "Parameters": [f"{n:,}" for n in (*adapter["layer_sets"].values(), *adapter["params_by_role"].values()) if n],
        "Capacity": [units.bits(cap["bits"]), units.bits(plan["information"]["bits"]),
                     units.percent(cap["utilisation"]), f"{cap['required_rank']:,}"],
        "Memory": memory,
        "Learning rate": [units.rate(rate["value"]), within(rate, units.rate), units.rate(rate["full_finetune"])],
        "FLOPs": [units.flops(flops["full_per_token"]), units.flops(flops["lora_per_token"]),
                  units.percent(flops["ratio"]), units.flops(masked["lora_per_token"]),
                  *(units.flops(total) for total in (flops["totals"] or {}).values())],
        "Time, cost": spent,
    }  # fmt: skip


def test_every_number_shown_is_the_commands(address: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        for link, arguments in LINKS.items():
            plan = printed(
                *(["--model", "meta-llama/Llama-3.1-8B"] if "--model" not in arguments else []), *arguments
            )
            page.goto(f"{address}?{link}")
            head = page.locator("#lp-headline")
            expect(head).to_contain_text(f"{plan['adapter']['params']:,}", timeout=60_000)
            method = "qlora" if "--quantize" in arguments else "lora"
            size = units.byte_size(plan["memory"][method]["per_gpu_bytes"])
            for shown in (
                size,
                units.rate(plan["learning_rate"]["value"]),
                units.percent(plan["flops"]["ratio"]),
            ):
                expect(head).to_contain_text(shown)
            for title, wanted in expected(plan).items():
                page.get_by_role("tab", name=title, exact=True).click()
                panel = page.locator('[role="tabpanel"]:visible').first
                expect(panel).to_contain_text(wanted[0], timeout=60_000)
                text = panel.inner_text()
                assert not [shown for shown in wanted if shown not in text], (link, title, wanted, text)
        browser.close()


def test_files_taken_are_the_commands_and_a_data_file_is_read(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    data_files(tmp_path)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        page.set_default_timeout(60_000)
        page.goto(f"{address}?layers=attention,mlp&batch=8")
        expect(page.locator("#lp-headline")).to_contain_text("83,886,080", timeout=60_000)
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Read a data file").click()
        chooser.value.set_files(tmp_path / "messages.jsonl")
        page.wait_for_url("**data=**", timeout=60_000)
        report = dataset(tmp_path / "messages.jsonl")
        expect(page.locator("#lp-headline")).to_contain_text(
            units.bits(report.information.bits), timeout=60_000
        )
        page.get_by_role("button", name="Downloads and link").click()
        for target in ("axolotl", "unsloth"):
            place = page.locator(f'a[href^="download/export/{target}?"]').get_attribute("href")
            got = page.request.get(address + place).text()
            same = export(
                target, "meta-llama/Llama-3.1-8B", layers="attention,mlp", batch=8, data=report
            ).text
            path = str(tmp_path / "messages.jsonl")  # quoted in YAML, where a bare name is not
            assert got == same.replace(f'"{path}"', "messages.jsonl").replace(path, "messages.jsonl")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()


def test_the_keyboard_alone(address: str) -> None:
    """With Tab, letters, Enter and arrows: another model, another rank, another tab; the focus is seen."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(address)
        head = page.locator("#lp-headline")
        expect(head).to_contain_text("88,121,344", timeout=60_000)

        def tab_to(wanted: str) -> None:
            for _ in range(80):
                page.keyboard.press("Tab")
                if page.evaluate(f"document.activeElement.matches({wanted!r})"):
                    return
            raise AssertionError(f"the keyboard does not reach {wanted}")

        tab_to("input[role=listbox], input[aria-label='Model']")
        page.keyboard.press("Control+a")
        page.keyboard.type("Qwen/Qwen3-8B")
        page.keyboard.press("Enter")
        expect(head).to_contain_text("Qwen/Qwen3-8B", timeout=60_000)
        tab_to("input[type=range]")
        page.keyboard.press("ArrowRight")
        plan = printed("--model", "Qwen/Qwen3-8B", "--rank", "33")
        expect(head).to_contain_text(f"{plan['adapter']['params']:,}", timeout=60_000)
        tab_to("[role=tab][aria-selected=false]")
        page.keyboard.press("Enter")
        expect(page.locator("[role=tab][aria-selected=true]")).to_have_text("Capacity")
        outline = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement);"
            " return s.outlineStyle !== 'none' || s.boxShadow !== 'none' || s.borderBottomWidth !== '0px'; })()"
        )
        assert outline, "what has the focus cannot be seen"
        browser.close()

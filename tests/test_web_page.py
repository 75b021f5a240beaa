"""The page as it is served: headers, routes, hosts. Skipped where Gradio, the extra `web`, is not installed."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra web is not installed")
from starlette.testclient import TestClient

from planner.web import app
from planner.web.uploads import MOST_BYTES


@pytest.fixture(scope="module")
def client() -> Any:
    return TestClient(app())


def test_the_page_names_no_other_host(client: Any) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "lora-plan" in page.text
    hosts = set(re.findall(r"(?:src|href|content)=\"https?://([^/\"]+)", page.text))
    assert hosts <= {"testserver"}, hosts
    assert '"analytics_enabled":false' in page.text.replace(" ", "")
    assert "connect-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=/etc/passwd", "gradio_api/proxy=https://example.org", "gradio_api/deep_link", "download/../x"],
)  # fmt: skip
def test_routes_that_are_not_needed_are_not_there(client: Any, path: str) -> None:
    assert client.get(f"/{path}").status_code in (400, 404)


def test_bodies_are_small_and_say_how_large_they_are(client: Any) -> None:
    assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 200
    assert client.post("/gradio_api/upload", content=b"x" * (MOST_BYTES + 20_000)).status_code == 413
    assert client.post("/gradio_api/upload", content=iter([b"x"])).status_code == 411
    assert client.post("/gradio_api/queue/join", content=iter([b"{}"])).status_code == 411
    assert client.post("/gradio_api/queue/join", content=b"x" * 1_000_001).status_code == 413


def test_downloads_and_refusals(client: Any) -> None:
    found = client.get("/download/plan.json?rank=8")
    assert found.json()["adapter"]["rank"] == 8 and "attachment" in found.headers["content-disposition"]
    assert client.get("/download/export/peft?rank=8").json()["r"] == 8
    refused = client.get("/download/plan.json?model=/etc/passwd")
    assert refused.status_code == 400 and refused.text.count("\n") == 1

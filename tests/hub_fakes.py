"""A hub that answers what a test wants; nothing here reaches a network or a cache of the machine."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from planner.architecture import hub

# httpx, or what huggingface_hub now calls it
HTTP = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.split(".")[0])
LLAMA = {"model_type": "llama", "hidden_size": 8}
UNKNOWN = "someone/unheard-of-model"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep a test from the hub and from a cache of the machine."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def cached(tmp_path: Path, repo_id: str, config: dict[str, Any]) -> Path:
    """A hub cache with one config, where the tests' HF_HUB_CACHE points."""
    folder = tmp_path / "hub" / f"models--{repo_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots" / "abc123").mkdir(parents=True)
    write(folder / "refs" / "main", "abc123")
    return write(folder / "snapshots" / "abc123" / "config.json", json.dumps(config))


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def raising(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", raising)


def response(status: int) -> Any:
    return HTTP.Response(status, request=HTTP.Request("HEAD", "https://example.org"))

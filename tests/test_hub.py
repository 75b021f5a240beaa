"""Configs from the hub, its cache, and each way in which it can fail."""

from __future__ import annotations

import builtins
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from planner.architecture import hub
from planner.architecture.resolve import resolve
from planner.errors import (
    ConfigError,
    HubError,
    MissingDependencyError,
    UnknownModelError,
)

from .hub_fakes import HTTP, LLAMA, UNKNOWN, cached, fail, response, write
from .hub_fakes import no_hub as no_hub

pytestmark = pytest.mark.usefixtures("no_hub")


def test_a_fetched_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "config.json", json.dumps(LLAMA))
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def download(*args: Any, **kwargs: Any) -> str:
        asked.append((args, kwargs))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = resolve(UNKNOWN)
    assert (found.origin, found.model_id, found.config) == ("hub", UNKNOWN, LLAMA)
    assert UNKNOWN in found.sources[0].url
    assert [call[0] for call in asked] == [(UNKNOWN, "config.json")]
    assert asked[0][1]["etag_timeout"] <= 10


def test_a_cached_config_is_read_without_the_hub(tmp_path: Path) -> None:
    cached(tmp_path, UNKNOWN, LLAMA)
    assert resolve(UNKNOWN).origin == "hub"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: errors.GatedRepoError("no", response=response(403)),
            "gated.*licence.*HF_TOKEN.*hf auth login",
        ),
        (lambda: errors.RepositoryNotFoundError("no", response=response(404)), "has no model .*private"),
        (
            lambda: errors.RemoteEntryNotFoundError("no", response=response(404)),
            "no config.json.*path to its config",
        ),
        (lambda: errors.EntryNotFoundError("no"), "no config.json"),
        (
            lambda: errors.LocalEntryNotFoundError("no"),
            "neither in the catalogue nor in the hub cache.*path to its",
        ),
        (lambda: errors.OfflineModeIsEnabled("no"), "cannot be reached.*path to its config"),
        (lambda: errors.HfHubHTTPError("no", response=response(401)), "refused access.*HF_TOKEN"),
        (lambda: errors.HfHubHTTPError("no", response=response(503)), "answered 503.*again later"),
        (lambda: errors.HfHubHTTPError("no", response=response(429)), "answered 429"),
        (
            lambda: HTTP.ConnectError("Name or service not known"),
            "cannot be reached .Name or service not known",
        ),
        (lambda: HTTP.ReadTimeout("timed out"), "cannot be reached"),
        (lambda: HTTP.ProxyError("bad proxy"), "cannot be reached"),
        (lambda: ConnectionError("reset"), "cannot be reached"),
        (lambda: OSError(28, "No space left on device"), "cannot be reached .*No space left"),
    ],
)
def test_the_hubs_failures(
    make: Callable[[], Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, make())
    with pytest.raises(HubError, match=message) as caught:
        resolve(UNKNOWN)
    assert "\n" not in str(caught.value) and UNKNOWN in str(caught.value)


def test_a_missing_repository_gets_near_names(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, errors.RepositoryNotFoundError("no", response=response(404)))
    with pytest.raises(HubError, match=r"Did you mean meta-llama/Llama-3\.1-8B-Instruct"):
        resolve("meta-llama/Llama-3.1-8b-instrct")


def test_an_invalid_id_is_an_unknown_model(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, errors.HFValidationError("no"))
    with pytest.raises(UnknownModelError, match="cannot be the id"):
        resolve("some..one/mod--el")


def test_an_unreachable_hub_is_asked_for_its_cache_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def download(*args: Any, local_files_only: bool, **kwargs: Any) -> str:
        asked.append(local_files_only)
        raise errors.LocalEntryNotFoundError("no")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    with pytest.raises(HubError, match="the hub cannot be reached"):
        resolve(UNKNOWN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        resolve(UNKNOWN)
    assert asked == [True, True]


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEADLINE_S", 0.05)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: time.sleep(0.5))
    with pytest.raises(HubError, match="cannot be reached .no answer"):
        resolve(UNKNOWN)


def test_a_bad_config_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "config.json", "{}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: str(path))
    with pytest.raises(ConfigError, match="no model_type"):
        resolve(UNKNOWN)


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(MissingDependencyError, match="pip install huggingface_hub"):
        resolve(UNKNOWN)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_library_has_it(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub._cache_folder() == folder


def test_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hub._reachable(f"http://127.0.0.1:{port}")
    assert not hub._reachable(f"http://127.0.0.1:{port}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert hub._reachable(f"http://127.0.0.1:{port}")  # the proxy decides

"""Fetching config.json of a repository from the model hub; the only place that talks to a network.

huggingface_hub does the work, so its cache and HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE hold. Every failure
becomes a HubError of one sentence, and no call takes longer than `DEADLINE_S`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import HubError, MissingDependencyError, UnknownModelError

PROBE_S = 4.0
DEADLINE_S = 25.0
INSTEAD = "Give a path to its config.json, or a catalogue name."


def _cache_folder() -> str:
    """The hub cache as huggingface_hub finds it, without importing it."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return os.path.expandvars(os.path.expanduser(cache or os.path.join(home, "hub")))


def cached_config(repo_id: str) -> str | None:
    """The config.json of a repository if the hub cache holds one; no import, no network."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id, flags=re.ASCII):
        return None
    folder = os.path.join(_cache_folder(), f"models--{repo_id.replace('/', '--')}")
    try:
        with open(os.path.join(folder, "refs", "main"), encoding="utf-8") as file:
            commit = file.read(100).strip()
    except (OSError, ValueError):
        return None
    path = os.path.join(folder, "snapshots", commit, "config.json")
    return path if re.fullmatch(r"[0-9a-f]+", commit) and os.path.isfile(path) else None


def hub_config(repo_id: str, suggestion: str = "") -> str:
    """The path of the repository's config.json in the cache, fetched if need be."""
    try:
        from huggingface_hub import constants
    except ImportError:
        raise MissingDependencyError(
            f"{repo_id} is not in the catalogue, and fetching it needs huggingface_hub:"
            f" pip install huggingface_hub.{suggestion}"
        ) from None
    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        return _within_deadline(lambda: _download(repo_id, offline or not _reachable(constants.ENDPOINT)))
    except Exception as error:  # its HTTP library, and so the exceptions, differ from release to release
        raise _explained(error, repo_id, suggestion, offline) from error


def _download(repo_id: str, local_only: bool) -> str:
    import huggingface_hub

    found: Any = huggingface_hub.hf_hub_download(
        repo_id, "config.json", etag_timeout=8, local_files_only=local_only
    )
    return str(found)


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers at all; huggingface_hub would retry for minutes where nothing does."""
    address = urllib.parse.urlsplit(endpoint)
    if not address.hostname or address.scheme in urllib.request.getproxies():
        return True
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname, port), timeout=PROBE_S).close()
        return True
    except (OSError, ValueError):
        return False


def _within_deadline(call: Callable[[], str]) -> str:
    """The call's result, or TimeoutError after DEADLINE_S; its thread does not keep the program alive."""
    results: list[str] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # handed to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="hub-config")
    thread.start()
    thread.join(DEADLINE_S)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {DEADLINE_S:.0f} s")
    return results[0]


def _explained(error: Exception, repo_id: str, suggestion: str, offline: bool) -> Exception:
    """The error to show. Subclasses come first: a gated repository is also one that is not found."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return HubError(
            f"{repo_id} is gated: accept its licence on its page on the hub, then set HF_TOKEN or run"
            f" `hf auth login`. {INSTEAD}{suggestion}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        known = f"{repo_id} is neither in the catalogue nor in the hub cache"
        return HubError(f"{known}, and {why}. {INSTEAD}{suggestion}")
    if isinstance(error, errors.HFValidationError):
        return UnknownModelError(f"{repo_id!r} cannot be the id of a model on the hub. {INSTEAD}{suggestion}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"the hub has no model {repo_id}, or it is private: check the spelling, or set HF_TOKEN to a"
            f" token that may read it.{suggestion}"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return HubError(f"the repository {repo_id} has no config.json. {INSTEAD}{suggestion}")
    if status in (401, 403):
        return HubError(f"the hub refused access to {repo_id}: check that HF_TOKEN is valid and may read it.")
    if status is not None:
        return HubError(f"the hub answered {status} for {repo_id}: try again later. {INSTEAD}")
    reason = str(error).strip().split("\n")[0][:120] or type(error).__name__
    known = f"{repo_id} is not in the catalogue, and the hub cannot be reached ({reason})"
    return HubError(f"{known}. {INSTEAD}{suggestion}")


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's library from the network for a while, whatever the environment says."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before

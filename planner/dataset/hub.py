"""Tokenizers and data sets of the model hub: the cache first, then the network, and one sentence where neither
has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..architecture import hub as model_hub
from ..errors import HubError, InputError, MissingDependencyError

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)  # fmt: skip


def _snapshot(repo_id: str, local_only: bool) -> Path:
    import huggingface_hub

    folder: Any = huggingface_hub.snapshot_download(
        repo_id, allow_patterns=list(TOKENIZER_FILES), local_files_only=local_only, etag_timeout=8
    )
    return Path(str(folder))


def _cached(repo_id: str) -> Path | None:
    try:
        folder = _snapshot(repo_id, True)
    except Exception:  # not there, or not a name; the call that may use the network says which
        return None
    return folder if (folder / "tokenizer.json").is_file() else None


def tokenizer_folder(repo_id: str, local_only: bool = False) -> Path:
    """The folder of the hub cache that holds a repository's tokenizer, fetched if need be. Raises HubError."""
    from huggingface_hub import constants

    if (found := _cached(repo_id)) is not None:
        return found
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    if local_only or constants.HF_HUB_OFFLINE or not model_hub._reachable(constants.ENDPOINT):
        raise HubError(
            f"the tokenizer of {repo_id} is neither a file here nor in the hub cache, and {why}. Give --tokenizer a "
            "folder that holds tokenizer.json."
        )
    try:
        folder = _snapshot(repo_id, False)
    except Exception as error:  # its HTTP library, and so the exceptions, differ from release to release
        reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
        raise HubError(f"the tokenizer of {repo_id} cannot be fetched: {reason}.") from error
    if not (folder / "tokenizer.json").is_file():
        raise HubError(
            f"{repo_id} has no tokenizer.json. Save its tokenizer once with transformers and give --tokenizer that "
            "folder."
        )
    return folder


def rows(name: str, split: str | None, config: str | None) -> Iterator[Any]:
    """The rows of a hub data set, streamed by the `datasets` library. Raises HubError, MissingDependencyError."""
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            f"{name} is no file or folder here; reading it from the hub needs an extra: "
            "pip install 'lora-plan[data]'."
        ) from None
    from huggingface_hub import constants

    offline = (
        constants.HF_HUB_OFFLINE
    )  # then what `datasets` has kept is all there is, and it is not streamed
    if not offline and not model_hub._reachable(constants.ENDPOINT):
        raise HubError(
            f"{name} is no file or folder here, and the hub cannot be reached. HF_HUB_OFFLINE=1 reads it from the "
            "cache of `datasets`, where that has it."
        )
    try:
        found = datasets.load_dataset(name, config, split=split, streaming=not offline)
        if isinstance(found, dict):
            names = list(found)
            split = "train" if "train" in names else names[0]
            found = found[split]
        iterator = iter(found)
        first = next(iterator, None)
    except Exception as error:  # of many libraries and releases
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise HubError(f"the data set {name} cannot be read from the hub: {reason}") from error
    if first is None:
        raise InputError("data", name, "a data set with rows", f"Its split {split} has none.")
    yield first
    yield from iterator

"""Tokenizers and data sets of the model hub: the cache first, then the network, and one sentence where neither
has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ..architecture import hub as model_hub
from ..errors import HubError, InputError, MissingDependencyError
from ..schema import Notice

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own bars and warnings: what goes wrong is said in one sentence."""
    from huggingface_hub import utils

    bars, log = cast(Any, utils), cast(Any, utils.logging)
    silent, level = bars.are_progress_bars_disabled(), log.get_verbosity()
    if not silent:
        bars.disable_progress_bars()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if not silent:
            bars.enable_progress_bars()


def _snapshot(repo_id: str, local_only: bool) -> Path:
    import huggingface_hub

    with _quiet():
        folder: Any = huggingface_hub.snapshot_download(
            repo_id, allow_patterns=list(TOKENIZER_FILES), local_files_only=local_only, etag_timeout=8
        )
    return Path(str(folder))


def _why(error: Exception) -> str:
    """What went wrong with a repository, and what to do: access and names first, else the library's first words."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds or "is a gated dataset" in str(error):
        return "it is gated: ask for access on its page, and log in with `hf auth login` or HF_TOKEN"
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return "the hub has none of that name, or it is private: HF_TOKEN gives access"
    lines = [line.strip() for line in str(error).strip().split("\n") if line.strip()]
    if lines and lines[0].startswith("Config name is missing"):
        return f"{' '.join(lines[:2])}; --config names it"[:400]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


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
        raise HubError(f"the tokenizer of {repo_id} cannot be fetched: {_why(error)}.") from error
    if not (folder / "tokenizer.json").is_file():
        raise HubError(
            f"{repo_id} has no tokenizer.json. Save its tokenizer once with transformers and give --tokenizer that "
            "folder."
        )
    return folder


def rows(
    name: str, split: str | None, config: str | None, notices: list[Notice] | None = None
) -> Iterator[Any]:
    """The rows of a hub data set, streamed by the `datasets` library; what is left out goes to `notices`. Raises
    HubError, MissingDependencyError."""
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
        with _quiet():
            found = datasets.load_dataset(name, config, split=split, streaming=not offline)
            if isinstance(found, dict):
                names = list(found)
                split = "train" if "train" in names else names[0]
                found = found[split]
                if len(names) > 1 and notices is not None:
                    left = ", ".join(other for other in names if other != split)
                    notices.append(Notice("splits-left-out", f"Read: {split}. Left out: {left}."))
            iterator = iter(found)
            first = next(iterator, None)
    except Exception as error:  # of many libraries and releases
        raise HubError(f"the data set {name} cannot be read from the hub: {_why(error)}.") from error
    if first is None:
        raise InputError("data", name, "a data set with rows", f"Its split {split} has none.")
    yield first
    yield from iterator

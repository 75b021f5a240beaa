"""A name, a path or a mapping -> a model's config: catalogue, local file or folder, hub cache, hub.

Offline first: the catalogue knows some 1,000 names and recognises re-uploads and quantised copies of them.
From the hub only `config.json` is ever fetched, and no code of a repository is run.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, Literal

from .. import facts
from ..dataclass import dataclass
from ..errors import ConfigError, InputError, UnknownModelError, nearest
from ..schema import Notice, Source

Origin = Literal["catalogue", "local", "hub", "config"]
MAX_CONFIG_BYTES = 10_000_000
MAX_NAME = 300
# Who uploads other people's models again. Their name for a model is not shown where another stands for it.
REUPLOADERS = frozenset(
    "unsloth nousresearch mlx-community redhatai neuralmagic thebloke lmstudio-community hugging-quants "
    "bartowski casperhansen quantfactory maziyarpanahi techxgenus solidrust modelcloud ista-daslab "
    "nm-testing".split()
)
# What a copy appends to the name of the model that it was made from.
_COPY_SUFFIX = (
    r"-(?:unsloth-bnb-4bit|bnb-[48]bit|bnb|unsloth|[2-8]bit|[2-8]-bit|int[48]|gptq|awq|marlin|"
    r"g(?:32|64|128)|(?:32|64|128)g|"
    r"fp8|fp4|nvfp4|nvfp4a16|mxfp4|mxfp8|bf16|fp16|f16|fp32|dynamic|block|static|kv|gguf|ggml|"
    r"i?q[1-8](?:-(?:0|1|k|xxs|xs|s|m|l|nl))*|qat|w[48]a(?:16|8|4)|quantized|mlx|dwq|"
    r"exl[23]|hqq|aqlm|nf4|eetq|hf|imatrix|ov|onnx|safetensors|sharded|original|\d-\d+bpw)$"
)


_FOLDER = "its folder, where a config.json lies beside it, or the model's name"
# Endings of files of weights, and what is given instead.
_WEIGHTS = {
    ".gguf": "the model that it was made from, which is what trainers load: its name or its config.json",
    **dict.fromkeys((".safetensors", ".bin", ".pt", ".pth", ".ckpt"), _FOLDER),
}


@dataclass(frozen=True)
class ResolvedConfig:
    """A model's config and where it came from.

    `model_id` is what was asked for, spelled as the catalogue spells it (for a file, its path).
    `published_params` is a total that someone else published, with what it counts in `published_note`.
    """

    model_id: str
    origin: Origin
    config: Mapping[str, Any]
    sources: tuple[Source, ...]
    notices: tuple[Notice, ...] = ()
    published_params: int | None = None
    published_note: str = ""
    catalogue_id: str | None = None

    def __str__(self) -> str:
        return self.model_id


def resolve(model: str | os.PathLike[str] | Mapping[str, Any] | ResolvedConfig) -> ResolvedConfig:
    """The config of `model`: a mapping, a path, a name of the catalogue or of a copy, or a hub id."""
    if isinstance(model, ResolvedConfig):
        return model
    if isinstance(model, Mapping):
        return _from_mapping(model)
    if isinstance(model, os.PathLike):
        return _from_path(os.fsdecode(model))
    if not isinstance(model, str):
        raise InputError("model", model, "a model's name, a path to its config.json, or a config")
    _check_name(model)
    name = model.strip()
    if _looks_like_path(name) or _is_local(name):
        return _from_path(name)
    if (found := _by_name(name, cached=True)) is not None:
        return found
    if os.path.isdir(name):
        return _from_path(name)
    return _from_hub(name)


def resolve_name(name: str, *, hub: bool = False) -> ResolvedConfig:
    """The config of a model of the catalogue, or of a copy of one; with `hub` of a hub id too. For names that
    strangers give: no path is ever read."""
    _check_name(name)
    name = name.strip()
    if (found := _by_name(name, cached=hub)) is not None:
        return found
    if not hub:
        raise UnknownModelError(f"the catalogue has no model called {name!r}.{suggestion(name)}")
    return _from_hub(name)


def _by_name(name: str, cached: bool) -> ResolvedConfig | None:
    """What the name stands for without a network; the hub's cache is looked into where `cached`."""
    if (found := _from_catalogue(name)) is not None:
        return found
    if cached and "/" in name:
        from .hub import cached_config

        if (path := cached_config(name)) is not None:
            return _from_hub_file(name, path)
    return _from_copy(name)


def _from_hub(name: str) -> ResolvedConfig:
    from .hub import hub_config

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name, flags=re.ASCII):
        raise UnknownModelError(_unknown(name))
    return _from_hub_file(name, hub_config(name, suggestion(name)))


# Names


def _check_name(name: str) -> None:
    if not name.strip():
        raise InputError("model", name, "a model's name, a path to its config.json, or a config")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise InputError("model", name, "a name without control characters")
    if len(name) > MAX_NAME and not (_looks_like_path(name) or name.startswith(os.sep)):
        raise InputError("model", name, f"a name of at most {MAX_NAME} characters")


def canonical(name: str) -> str:
    """A name without case and with one kind of separator, so that Llama-3_3 and llama-3.3 agree."""
    return re.sub(r"[\s._-]+", "-", name.lower()).strip("-")


def _bare(name: str) -> str:
    return name.rsplit("/", 1)[-1]


@cache
def _by_full_name() -> dict[str, str]:
    """Lower-case ids and aliases -> their proper spelling."""
    names = (*facts.model_aliases(), *facts.model_ids())
    return {name.lower(): name for name in names}


@cache
def _by_bare_name() -> dict[str, tuple[str, ...]]:
    """Canonical bare names -> the ids and aliases that bear them, models of the catalogue first."""
    found: dict[str, list[str]] = {}
    for name in (*facts.model_ids(), *facts.model_aliases()):
        # Some uploaders put the owner before the name: Qwen_Qwen3-8B-GGUF.
        for key in {canonical(_bare(name)), canonical(name.replace("/", "-"))}:
            found.setdefault(key, []).append(name)
    return {key: tuple(sorted(names, key=_is_reupload)) for key, names in found.items()}


def _is_reupload(name: str) -> bool:
    return name.split("/", 1)[0].lower() in REUPLOADERS


def _target(name: str) -> str:
    return facts.model_aliases().get(name, name)


def suggestion(name: str) -> str:
    """A sentence with the nearest catalogue names, or nothing where none is near."""
    choices = list(_by_full_name().values())
    near = nearest(name, choices) if "/" in name else []
    if not near:
        bare = _by_bare_name()
        near = [_shown(bare[key][0]) for key in nearest(canonical(_bare(name)), bare)]
    near = list(dict.fromkeys(near))
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _unknown(name: str) -> str:
    remedy = "give a catalogue name, org/name of a model on the hub, or a path to a config.json."
    return f"no model is called {name!r}; {remedy}{suggestion(name)}"


# Catalogue


@lru_cache(maxsize=64)
def _config_text(model_id: str) -> str:
    return facts.read_data("models", facts.config_name(model_id))


def _entry(name: str, target: str, notices: tuple[Notice, ...] = ()) -> ResolvedConfig:
    fact = facts.model(target)
    note = "; ".join(part for part in (fact.published_from, fact.status, fact.note) if part)
    return ResolvedConfig(
        model_id=name,
        origin="catalogue",
        config=json.loads(_config_text(target)),
        sources=(fact.source,),
        notices=notices,
        published_params=fact.published_params,
        published_note=note if fact.published_params is not None else "",
        catalogue_id=target,
    )


def _from_catalogue(name: str) -> ResolvedConfig | None:
    """The entry of an id or alias in any case, or of a bare name that means one architecture."""
    if facts.is_model(name):
        return _entry(name, name)
    if (proper := _by_full_name().get(name.lower())) is not None:
        return _entry(proper, _target(proper))
    if "/" in name:
        return None
    names = _bearers(canonical(name))
    return _entry(*_single(name, names)) if names else None


def _bearers(key: str) -> tuple[str, ...]:
    """The ids and aliases of a canonical bare name or of its variants, those of the model's owner first."""
    known = _by_bare_name()
    variants = (key, f"{key}-hf", f"{key}-bf16", f"meta-{key}", key.removeprefix("meta-"))
    names = next((known[variant] for variant in variants if variant in known), ())
    kinds = {_architecture(name) for name in names}
    if len(kinds) != 1:
        return names
    every = (name for variant in variants for name in known.get(variant, ()))
    return tuple(sorted((name for name in every if _architecture(name) in kinds), key=_is_reupload))


def _architecture(name: str) -> str:
    architecture: str = facts.model_index()["models"][_target(name)]["architecture"]
    return architecture


def _single(asked: str, names: tuple[str, ...]) -> tuple[str, str]:
    """The name to show and its target; an error where the names stand for different architectures."""
    if len({_architecture(name) for name in names}) > 1:
        raise InputError("model", asked, f"one of {', '.join(names)}", "They differ in architecture.")
    return _shown(names[0]), _target(names[0])


def _shown(name: str) -> str:
    return _target(name) if _is_reupload(name) else name


# Copies


def stripped_names(bare: str) -> Iterable[str]:
    """The canonical bare name, then with one suffix of a copy after another taken off."""
    name = canonical(bare)
    while name:
        yield name
        shorter = re.sub(_COPY_SUFFIX, "", name)
        if shorter == name:
            return
        name = shorter


def _from_copy(name: str) -> ResolvedConfig | None:
    """The entry of the model that `name` is a re-upload or a quantised copy of."""
    for candidate in stripped_names(_bare(name)):
        names = _bearers(candidate)
        if "/" in name and len({_architecture(each) for each in names}) > 1:
            return None  # the hub knows which one this is
        if names:
            _, target = _single(name, names)
            message = f"{name} is taken to have the architecture of {target}; its own config was not read."
            return _entry(name, target, (Notice("assumed-architecture", message),))
    return None


# Mappings and files


def _checked(config: object, where: str) -> dict[str, Any]:
    """The config as a dictionary, if it is an object that says its model type."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where} holds {type(config).__name__}, expected a JSON object with a model_type.")
    kind = config.get("model_type")
    if isinstance(kind, str) and kind.strip():
        return dict(config)
    if kind is not None:
        raise ConfigError(f"{where}: model_type is {kind!r}, expected text such as 'llama'.")
    if "base_model_name_or_path" in config:
        base = config["base_model_name_or_path"]
        raise ConfigError(f"{where} is an adapter's config, not a model's; give its base model, {base!r}.")
    classes = config.get("architectures")
    named = f" (only architectures {classes!r:.60})" if classes else ""
    raise ConfigError(f"{where} has no model_type{named}; add it as transformers spells it.")


def _from_mapping(config: Mapping[str, Any]) -> ResolvedConfig:
    checked = _checked(config, "the config")
    name = checked.get("_name_or_path")
    model_id = name if isinstance(name, str) and name.strip() else "config"
    source = Source("config given by the caller", "given", model_id, "undated", "config")
    return ResolvedConfig(model_id, "config", checked, (source,))


def _looks_like_path(name: str) -> bool:
    windows = re.match(r"[A-Za-z]:\\", name) is not None
    return windows or name.startswith((".", "~", os.sep)) or name.lower().endswith(".json")


def _is_local(name: str) -> bool:
    """Whether the name is a file or a folder with a config; any other folder does not hide a model's name."""
    try:
        mode = os.stat(name).st_mode
        return not stat.S_ISDIR(mode) or os.path.lexists(os.path.join(name, "config.json"))
    except (OSError, ValueError):
        return False


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; give a config.json or a folder with one.") from None
    except PermissionError:
        raise ConfigError(f"{path} cannot be read: permission denied.") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _from_path(name: str) -> ResolvedConfig:
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InputError("model", name, "a path without control characters")
    path = os.path.expanduser(name)
    if stat.S_ISDIR(_stat(path).st_mode):
        folder, path = path, os.path.join(path, "config.json")
        if not os.path.lexists(path):
            adapter = os.path.exists(os.path.join(folder, "adapter_config.json"))
            rest = f"; it holds an adapter, which is given as --adapter {folder}." if adapter else "."
            raise ConfigError(f"the folder {folder} has no config.json{rest}")
    config, (folder, file) = read_config(path), os.path.split(path)
    model_id = name if file != "config.json" else folder or "."
    source = Source(f"config file {file}", _uri(os.path.abspath(path)), path, _day(path), "config")
    return ResolvedConfig(model_id, "local", config, (source,))


def _uri(path: str) -> str:
    """The address of a file; the library of paths, a thirtieth of a cold start, is imported for odd names only."""
    if os.sep == "/" and re.fullmatch(r"[A-Za-z0-9_.~/-]+", path):
        return f"file://{path}"
    from pathlib import Path

    return Path(path).as_uri()


def _day(path: str) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(os.stat(path).st_mtime))


def _from_hub_file(name: str, path: str) -> ResolvedConfig:
    commit = os.path.basename(os.path.dirname(path))
    url = f"https://huggingface.co/{name}/blob/main/config.json"
    source = Source(f"config.json of {name}", url, f"commit {commit}", _day(path), "config")
    return ResolvedConfig(name, "hub", read_config(path), (source,))


def read_config(path: str) -> dict[str, Any]:
    """The config in a file; size and type are checked before reading, ConfigError says what is wrong."""
    status = _stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a regular file; give a config.json or a folder with one.")
    ending = os.path.splitext(path)[1].lower()
    if ending in _WEIGHTS:
        raise ConfigError(f"{path} holds weights, which no config is read from; give {_WEIGHTS[ending]}.")
    if status.st_size > MAX_CONFIG_BYTES:
        size = f"{status.st_size / 1e6:,.0f} MB"
        raise ConfigError(f"{path} has {size}, so it is not a config; give the config.json beside it.")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except PermissionError:
        raise ConfigError(f"{path} cannot be read: permission denied.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    return _checked(_parse(data, path), path)


def _parse(data: bytes, path: str) -> object:
    if not data.strip():
        raise ConfigError(f"{path} is empty, expected a JSON object with a model_type.")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text, so it is not a config.json.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{path} is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be a config.") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}.") from None

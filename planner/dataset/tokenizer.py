"""A model's own tokenizer, from a folder, a tokenizer.json or the hub, without transformers.

tokenizer.json is used as it stands, without its truncation and padding; tokenizer_config.json adds special tokens and
the chat template, as transformers 5 does for a tokenizer of no class of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ..errors import InputError
from .template import ChatTemplate

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
SPECIAL_MAP = "special_tokens_map.json"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """A tokenizer with its special tokens and templates by name ("default" for the usual one)."""

    name: str
    backend: Tokenizer
    special_tokens: Mapping[str, str]
    templates: Mapping[str, str]

    def template(self, tools: bool = False) -> ChatTemplate | None:
        """The chat template, or None where the tokenizer has none."""
        source = self.templates.get("tool_use") if tools else None
        source = source or self.templates.get("default")
        return ChatTemplate(source, self.special_tokens) if source is not None else None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("tokenizer", str(path), "a JSON file", f"{error}.") from error
    if not isinstance(data, dict):
        raise InputError("tokenizer", str(path), "a JSON object")
    return data


def _text(value: Any) -> str | None:
    """A token of a config: text, or a table with its content."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _backend(path: Path) -> Tokenizer:
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError("tokenizer", str(path), "a file of the tokenizers library", f"{error}.") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _named_tokens(config: Mapping[str, Any], folder: Path | None) -> dict[str, str]:
    values = dict(config)
    if folder is not None and "added_tokens_decoder" not in config and (folder / SPECIAL_MAP).is_file():
        values.update(_read(folder / SPECIAL_MAP))
    if isinstance(extra := values.get("extra_special_tokens"), Mapping):
        values.update(extra)
    names = [name for name in values if name in NAMED or name.endswith("_token")]
    return {name: text for name in names if (text := _text(values[name])) is not None}


def _added(token: Any) -> AddedToken:
    if isinstance(token, Mapping):
        flags = {key: bool(token[key]) for key in ("single_word", "lstrip", "rstrip") if key in token}
        special = bool(token.get("special", False))
        normalized = bool(token.get("normalized", not special))
        return AddedToken(str(token["content"]), special=special, normalized=normalized, **flags)
    return AddedToken(str(token), special=True)


def _missing(
    config: Mapping[str, Any], named: Mapping[str, str], known: Iterable[AddedToken]
) -> list[AddedToken]:
    """Tokens of the config that tokenizer.json does not have, in the order in which transformers adds them."""
    shown = {repr(token) for token in known}
    content = {token.content for token in known}
    listed = config.get("added_tokens_decoder")
    listed = listed if isinstance(listed, Mapping) else {}
    found = [_added(listed[key]) for key in sorted(listed, key=int)]
    found = [token for token in found if repr(token) not in shown]
    content |= {token.content for token in found}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    for token in (*named.values(), *(extra if isinstance(extra, (list, tuple)) else ())):
        new = _added(token)
        if new.content not in content:
            found.append(new)
            content.add(new.content)
    return found


def _templates(config: Mapping[str, Any], folder: Path | None) -> dict[str, str]:
    """Templates by name: files before the config's own."""
    files: dict[str, str] = {}
    if folder is not None:
        for path in [folder / TEMPLATE, *sorted((folder / MORE_TEMPLATES).glob("*.jinja"))]:
            if path.is_file():
                files["default" if path.name == TEMPLATE else path.stem] = path.read_text(encoding="utf-8")
    if files:
        return files
    inline = config.get("chat_template")
    if isinstance(inline, str):
        return {"default": inline}
    if isinstance(inline, Mapping):
        return {str(name): text for name, text in inline.items() if isinstance(text, str)}
    if isinstance(inline, list):
        return {str(entry["name"]): str(entry["template"]) for entry in inline if isinstance(entry, Mapping)}
    return {}


def from_files(path: Path, name: str, chat_template: str | None = None) -> TextTokenizer:
    """The tokenizer of a folder or a tokenizer.json. `chat_template` is a template that replaces its own."""
    folder = path if path.is_dir() else path.parent
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        remedy = ""
        if any((folder / other).is_file() for other in ("tokenizer.model", "spiece.model", "vocab.json")):
            remedy = "Save it once with transformers, whose save_pretrained writes tokenizer.json."
        raise InputError("tokenizer", str(path), f"a {TOKENIZER} or a folder with one", remedy)
    alone = path.is_file() and path.name != TOKENIZER
    config = _read(folder / CONFIG) if not alone and (folder / CONFIG).is_file() else {}
    home = None if alone else folder
    backend = _backend(file)
    named = _named_tokens(config, home)
    new = _missing(config, named, backend.get_added_tokens_decoder().values())
    if new:
        backend.add_tokens(new)
    templates = {"default": chat_template} if chat_template is not None else _templates(config, home)
    return TextTokenizer(name, backend, named, templates)


def load(source: str | os.PathLike[str], chat_template: str | None = None) -> TextTokenizer:
    """The tokenizer of a path or, where nothing lies there, of a hub id. Raises InputError or HubError."""
    path = Path(os.path.expanduser(os.fspath(source)))
    if path.exists():
        return from_files(path, str(source), chat_template)
    from .hub import tokenizer_folder

    return from_files(tokenizer_folder(str(source)), str(source), chat_template)

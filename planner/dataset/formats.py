"""From a row to what is trained on: which of the usual formats it has, and its conversations or texts.

A row becomes an `Example` of one or two `Item`s (two for a preference pair); one that fits no format raises RowError,
whose message says what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..errors import InputError, hint

Kind = Literal["sft", "preference", "rl"]
Message = Mapping[str, Any]

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bard": "assistant", "bing": "assistant", "model": "assistant", "function_call": "assistant", "bot": "assistant",
    "system": "system", "tool": "tool", "observation": "tool", "function_response": "tool", "developer": "developer",
}  # fmt: skip
PROMPTS = ("prompt", "question", "problem", "query", "input")
COMPLETIONS = ("completion", "response", "output", "solution", "answer")
ANSWERS = ("answer", "final_answer", "ground_truth", "reference_answer", "solution", "reward_model", "label")
TEXTS = ("text", "content")
PASS_RATES = ("pass_rate", "success_rate", "solve_rate")
CHATS = ("messages", "conversations", "conversation")
# What a format can read.
COLUMNS = frozenset((
    *CHATS, *PROMPTS, *COMPLETIONS, *ANSWERS, *TEXTS, *PASS_RATES, "chosen", "rejected", "instruction", "context",
    "history", "system", "system_prompt", "tools", "chat_template_kwargs", "completions",
))  # fmt: skip
# What each format needs, for those who look for theirs.
NEEDS = (
    "messages or sharegpt (messages, conversations), prompt-completion (prompt and completion, question and answer), "
    "alpaca (instruction and output), text (text), preference (chosen and rejected), kto (prompt, completion and a "
    "label of true or false), rl (prompt or problem)"
)


class RowError(ValueError):
    """A row that cannot be trained on; the message says why."""


class UnknownFormatError(RowError):
    """A row whose columns fit no format."""


class Item(NamedTuple):
    """One sequence: a conversation whose first `prompt_messages` are the prompt (None: not said), or a plain prompt
    and completion, whose texts follow each other."""

    messages: Sequence[Message] | None = None
    prompt_messages: int | None = None
    prompt: str = ""
    completion: str = ""


class Example(NamedTuple):
    """A row as it is trained on. `trained` is false for prompts whose answers a model has yet to write."""

    format: str
    kind: Kind
    items: tuple[Item, ...]
    tools: Any = None
    more: Mapping[str, Any] | None = None
    trained: bool = True
    pass_rate: float | None = None
    label: bool | None = None


def _string(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise RowError(f"{name} is {_shown(value)}, expected text")
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", bool: "true or false"}.get(
        type(value), f"a {type(value).__name__}"
    )


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _tools(row: Mapping[str, Any]) -> Any:
    """The tools of a row: a list, or one in a JSON string."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise RowError("tools is text that is no JSON") from error
    if tools is not None and not isinstance(tools, (list, str)):
        raise RowError(f"tools is {_shown(tools)}, expected a list")
    return tools or None


def _more(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    more = row.get("chat_template_kwargs")
    return more if isinstance(more, dict) else None


def _check_content(content: Any, place: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise RowError(f"{place}.content is {_shown(content)}, expected text or a list of parts")
    for part in content:
        if not isinstance(part, dict) or ("type" not in part and "text" not in part):
            raise RowError(f"{place}.content has a part that is {_shown(part)} without a type")


def _message(raw: Any, place: str) -> Message:
    """A message as {role, content, ...}; ShareGPT's from and value are renamed."""
    if not isinstance(raw, dict):
        raise RowError(f"{place} is {_shown(raw)}, expected a message")
    if "role" in raw:
        message = raw
    elif "from" in raw:
        if "value" not in raw and "content" not in raw:
            raise RowError(f"{place} has no value")
        speaker = raw["from"]
        role = ROLES.get(speaker.lower(), speaker) if isinstance(speaker, str) else speaker
        rest = {key: value for key, value in raw.items() if key not in ("from", "value")}
        message = {"role": role, "content": raw.get("value", raw.get("content")), **rest}
    else:
        raise RowError(f"{place} has no role")
    if not isinstance(message["role"], str) or not message["role"]:
        raise RowError(f"{place}.role is {_shown(message['role'])}, expected a name")
    _check_content(message.get("content"), place)
    if message.get("content") is None and not any(
        message.get(key) for key in ("tool_calls", "reasoning_content", "thinking", "function_call")
    ):
        raise RowError(f"{place} has no content")
    return message


def _messages(row: Mapping[str, Any], name: str) -> list[Message]:
    raw = row[name]
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            raise RowError(f"{name} is text that is no JSON") from error
    if not isinstance(raw, (list, tuple)):
        raise RowError(f"{name} is {_shown(raw)}, expected a list of messages")
    if not raw:
        raise RowError(f"{name} is empty")
    return [_message(item, f"{name}[{i}]") for i, item in enumerate(raw)]


def _with_system(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    system = row.get("system") or row.get("system_prompt")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return messages


def _is_chat(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], dict)


def _chat(row: Mapping[str, Any]) -> Example:
    name = _first(row, CHATS)
    if name is None:
        raise RowError(f"has no {' or '.join(CHATS[:2])}")
    messages = _with_system(row, _messages(row, name))
    shared = _is_chat(row[name]) and "from" in row[name][0]
    form = "sharegpt" if shared else "messages"
    return Example(form, "sft", (Item(messages),), _tools(row), _more(row))


def _named(row: Mapping[str, Any], names: Sequence[str], what: str) -> str:
    name = _first(row, names)
    if name is None:
        present = next((n for n in names if n in row), None)
        raise RowError(f"{present} is null" if present else f"has no {what}")
    return name


def _joined(row: Mapping[str, Any], prompt: str, completion: str) -> Item:
    """A prompt and what follows it, both as text or both as messages."""
    if _is_chat(row[prompt]) or _is_chat(row[completion]):
        if isinstance(row[completion], str):
            after: list[Message] = [{"role": "assistant", "content": row[completion]}]
        else:
            after = _messages(row, completion)
        if isinstance(row[prompt], str):
            before: list[Message] = [{"role": "user", "content": row[prompt]}]
        else:
            before = _messages(row, prompt)
        return Item([*before, *after], len(before))
    return Item(prompt=_string(row, prompt), completion=_string(row, completion))


def _prompt_completion(row: Mapping[str, Any]) -> Example:
    prompt = _named(row, PROMPTS, "prompt")
    completion = _named(row, COMPLETIONS, "completion")
    return Example("prompt-completion", "sft", (_joined(row, prompt, completion),), _tools(row), _more(row))


def _alpaca(row: Mapping[str, Any]) -> Example:
    if row.get("instruction") is None:
        raise RowError("has no instruction")
    completion = _named(row, ("output", "response", "completion"), "output")
    question = _string(row, "instruction")
    context = _first(row, ("input", "context"))
    if context and _string(row, context).strip():
        question = f"{question}\n\n{row[context]}"
    messages: list[Message] = []
    history = row.get("history")
    for turn in history if isinstance(history, list) else ():
        if not (isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(t, str) for t in turn)):
            raise RowError("history has a turn that is no pair of texts")
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    messages.append({"role": "user", "content": question})
    messages = _with_system(row, messages)
    messages.append({"role": "assistant", "content": _string(row, completion)})
    return Example("alpaca", "sft", (Item(messages, len(messages) - 1),))


def _text(row: Mapping[str, Any]) -> Example:
    return Example("text", "sft", (Item(completion=_string(row, _named(row, TEXTS, "text"))),))


def _preference(row: Mapping[str, Any]) -> Example:
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise RowError(f"has no {name}")
    if isinstance(row["chosen"], dict) and isinstance(row["rejected"], dict):  # one message each
        row = {**row, "chosen": [row["chosen"]], "rejected": [row["rejected"]]}
        said = _first(row, ("prompt", *CHATS))
        row = {**row, "prompt": row[said]} if said else row
    prompt = _first(row, ("prompt", "question", "instruction", "input"))
    if prompt is not None:
        if _is_chat(row["chosen"]) and _starts_alike(row, prompt):
            prompt = None  # chosen and rejected repeat the prompt
        else:
            items = tuple(_joined(row, prompt, name) for name in ("chosen", "rejected"))
            return Example("preference", "preference", items, _tools(row), _more(row))
    if not _is_chat(row["chosen"]):
        items = tuple(Item(completion=_string(row, name)) for name in ("chosen", "rejected"))
        return Example("preference", "preference", items)
    chats = [_messages(row, name) for name in ("chosen", "rejected")]
    common = 0
    for one, two in zip(*chats, strict=False):
        if one != two:
            break
        common += 1
    common = min(common, *(len(chat) - 1 for chat in chats))
    items = tuple(Item(chat, common) for chat in chats)
    return Example("preference", "preference", items, _tools(row), _more(row))


def _starts_alike(row: Mapping[str, Any], prompt: str) -> bool:
    """Whether `chosen` begins with the prompt's own message, as in sets that keep both."""
    first = row["chosen"][0]
    content = first.get("content", first.get("value"))
    if isinstance(row[prompt], str):
        return bool(content == row[prompt] and len(row["chosen"]) > 1)
    return _is_chat(row[prompt]) and bool(first == row[prompt][0])


def _kto(row: Mapping[str, Any]) -> Example:
    """An answer that is liked or not; the label says 1 bit at most."""
    label = row.get("label")
    if not isinstance(label, bool):
        raise RowError(
            "has no label" if label is None else f"label is {_shown(label)}, expected true or false"
        )
    example = _chat(row) if _first(row, CHATS) is not None else _prompt_completion(row)
    return example._replace(format="kto", kind="preference", label=label)


def _rl(row: Mapping[str, Any]) -> Example:
    name = _named(row, (*PROMPTS, "messages", "instruction"), "prompt")
    if _is_chat(row[name]):
        messages = _with_system(row, _messages(row, name))
        item = Item(messages, len(messages))
    else:
        item = Item(prompt=_string(row, name))
    rate_name = _first(row, PASS_RATES)
    rate = row[rate_name] if rate_name else None
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1
    ):
        raise RowError(f"{rate_name} is {rate!r}, expected a number from 0 to 1")
    return Example("rl", "rl", (item,), _tools(row), _more(row), trained=False, pass_rate=rate)


READERS: Mapping[str, Callable[[Mapping[str, Any]], Example]] = {
    "messages": _chat,
    "sharegpt": _chat,
    "prompt-completion": _prompt_completion,
    "alpaca": _alpaca,
    "text": _text,
    "preference": _preference,
    "kto": _kto,
    "rl": _rl,
}
FORMATS = ("auto", *READERS)


def recognise(row: Mapping[str, Any]) -> str:
    """The format of a row, from its columns. Raises RowError where none fits.

    A prompt or problem beside an answer is taken for reinforcement learning, a question beside an answer for
    supervised training.
    """
    if "chosen" in row and "rejected" in row:
        return "preference"
    if isinstance(row.get("label"), bool) and ("completion" in row or _first(row, CHATS) is not None):
        return "kto"
    if _first(row, CHATS) is not None:
        return "messages"
    if row.get("instruction") is not None and any(
        name in row for name in ("output", "response", "completion")
    ):
        return "alpaca"
    prompt = _first(row, PROMPTS)
    if prompt is not None:
        if any(name in row for name in COMPLETIONS[:3]) or (prompt == "question" and "answer" in row):
            return "prompt-completion"
        if (prompt in ("prompt", "problem") and "completions" not in row) or any(
            name in row for name in (*ANSWERS, *PASS_RATES)
        ):
            return "rl"
    if any(name in row for name in TEXTS):
        return "text"
    if not row:
        raise RowError("is empty")
    names = ", ".join(map(str, row))
    shown = names if len(names) <= 100 else f"{names[:97]}..."
    raise UnknownFormatError(f"no known format: its columns are {shown}{_inside(row)}")


def _inside(row: Mapping[str, Any]) -> str:
    """Where a known column lies inside another, how to name it."""
    for name, value in row.items():
        if isinstance(value, dict) and (found := _first(value, (*CHATS, *PROMPTS, *TEXTS))) is not None:
            return f"; {name} holds one, as --columns {found}={name}.{found}"
    return ""


def read_row(row: Any, form: str = "auto") -> Example:
    """The example of a row. Raises RowError."""
    if not isinstance(row, dict):
        raise RowError(f"is {_shown(row)}, expected an object")
    return READERS[recognise(row) if form == "auto" else form](row)


def check_format(form: str) -> str:
    """A format's name, or InputError with the nearest ones."""
    if form not in FORMATS:
        raise InputError("format", form, f"one of {', '.join(FORMATS)}", hint(form, FORMATS).strip())
    return form


def flattened(messages: Sequence[Message]) -> list[Message]:
    """Messages whose parts are joined to text by line breaks; images and sounds are left out."""
    found = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            texts = [str(part["text"]) for part in content if isinstance(part.get("text"), str)]
            message = {**message, "content": "\n".join(texts)}
        found.append(message)
    return found

"""From an example to text: what the tokenizer will see, and where in it the loss falls.

Loss is counted on what the assistant writes (assistant), on all that follows the prompt (completion), or everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jinja2 import TemplateError

from .formats import Example, Item, Message, RowError, flattened
from .template import ChatTemplate, Spans, as_rendered

LOSS_ON = ("auto", "assistant", "completion", "all")
SAID_BESIDE = frozenset(("reasoning_content", "thinking", "reasoning", "tool_calls"))
SAID = ("reasoning_content", "thinking", "reasoning", "content", "tool_calls")  # as it is read
STAND_IN = "\u25c6\u25c7stand-in\u25c7\u25c6"


class Turn(NamedTuple):
    """A stretch that carries loss, in texts: it begins where `before` (the text so far, ready for the assistant) and
    the whole text part, and ends where `after` (the text up to its end) and the whole text part; None: at the end."""

    before: str
    after: str | None


class Rendered(NamedTuple):
    """A text, and what of it carries loss: all, `spans` of letters that its template marked, or `turns`.

    `content` is what the row itself says, without system prompts and template; `loss_text` what of it is learned.
    """

    text: str
    special: bool
    everywhere: bool = False
    spans: Spans | None = None
    turns: tuple[Turn, ...] = ()
    content: str = ""
    loss_text: str = ""


@dataclass
class Renderer:
    """Renders examples with one tokenizer's templates. `used` counts the ways that were needed, for notices."""

    template: ChatTemplate | None
    tool_template: ChatTemplate | None
    loss_on: str = "auto"
    eos: str | None = None
    wrap: bool = False
    used: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """Count a way."""
        self.used[what] = self.used.get(what, 0) + 1

    def sequences(self, example: Example) -> list[Rendered]:
        """The texts of an example. Raises RowError where a template refuses it."""
        return [self._item(example, item) for item in example.items]

    def _item(self, example: Example, item: Item) -> Rendered:
        if item.messages is None and self.wrap and self.template is not None and item.prompt:
            item = _wrapped(item)
        if item.messages is None:
            return self._plain(example, item)
        template = self.tool_template if example.tools and self.tool_template else self.template
        if template is None:
            self.note("no-template")
            return self._bare(example, item)
        try:
            return self._chat(example, item, template)
        except RowError:
            raise
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            if any(isinstance(message.get("content"), list) for message in item.messages):
                self.note("flattened")
                return self._item(example, item._replace(messages=flattened(item.messages)))
            raise RowError(f"the chat template refuses it: {_first_line(error)}") from error
        except RecursionError as error:
            raise RowError("the chat template refuses it: nested too deeply") from error

    def _plain(self, example: Example, item: Item) -> Rendered:
        """Prompt and completion one after the other; special tokens are the tokenizer's own."""
        end = self.eos or ""
        completion = item.completion
        if example.trained and end and not completion.endswith(end):
            completion += end
        text = item.prompt + completion
        if not text.strip():
            raise RowError("is empty")
        content, learned = item.prompt + item.completion, item.completion
        if not example.trained:
            return Rendered(text, True, content=content)
        if self.loss_on == "all" or not item.prompt:
            return Rendered(text, True, everywhere=True, content=content, loss_text=content)
        return Rendered(text, True, turns=(Turn(item.prompt, None),), content=content, loss_text=learned)

    def _bare(self, example: Example, item: Item) -> Rendered:
        """A conversation as its contents, each a line, for want of a template."""
        messages = item.messages or ()
        way = self._way(item)
        first = _first_of_completion(messages, item)
        text, turns, learned = "", [], []
        for i, message in enumerate(messages):
            after = f"{text}{_said(message)}\n"
            if message["role"] == "assistant" if way == "assistant" else i >= first:
                turns.append(Turn(text, after))
                learned.append(_said(message))
            text = after
        if not text.strip():
            raise RowError("is empty")
        if way == "all":
            return Rendered(text, True, everywhere=True, content=text, loss_text=text)
        if not example.trained:
            return Rendered(text, True, content=text)
        return Rendered(text, True, turns=tuple(turns), content=text, loss_text="\n".join(learned))

    def _chat(self, example: Example, item: Item, template: ChatTemplate) -> Rendered:
        messages = item.messages or ()
        tools, more = example.tools, example.more
        content = "\n".join(_said(m) for m in messages if m["role"] not in ("system", "developer"))
        if not example.trained:
            prompt = messages[-1]["role"] != "assistant"
            return Rendered(
                template.render(messages, tools=tools, prompt=prompt, more=more), False, content=content
            )
        way = self._way(item)
        if way == "all":
            text = template.render(messages, tools=tools, more=more)
            return Rendered(text, False, everywhere=True, content=content, loss_text=content)
        learned = "\n".join(_said(m) for m in _trained_on(messages, item, way))
        if way == "assistant" and template.marks_generation:
            self.note("generation")
            text, spans = template.render_marked(messages, tools=tools, more=more)
            return Rendered(text, False, spans=spans, content=content, loss_text=learned)
        self.note("prefixes")
        text = template.render(messages, tools=tools, more=more)
        ready = [as_rendered(message) for message in messages]
        turns = _Turns(template, ready, text, tools, more, self).found(item, way)
        return Rendered(text, False, turns=turns, content=content, loss_text=learned)

    def _way(self, item: Item) -> str:
        if self.loss_on != "auto":
            return self.loss_on
        return "assistant" if item.prompt_messages is None else "completion"


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:160]


def _wrapped(item: Item) -> Item:
    messages = [{"role": "user", "content": item.prompt}]
    if item.completion:
        messages.append({"role": "assistant", "content": item.completion})
    return Item(messages, 1)


def _said(message: Message) -> str:
    """The text of a message, its reasoning and calls included."""
    only = message.get("content")
    if type(only) is str and SAID_BESIDE.isdisjoint(message):
        return only
    parts = []
    for key in SAID:
        value = message.get(key)
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, list):
            parts += [
                str(part["text"]) if isinstance(part, dict) and "text" in part else str(part)
                for part in value
            ]
    return "\n".join(parts)


def _trained_on(messages: Sequence[Message], item: Item, way: str) -> Sequence[Message]:
    if way == "assistant":
        return [message for message in messages if message["role"] == "assistant"]
    return messages[_first_of_completion(messages, item) :]


def _first_of_completion(messages: Sequence[Message], item: Item) -> int:
    """Where the completion begins: behind the prompt, or with the last that the assistant says."""
    if item.prompt_messages is not None:
        return item.prompt_messages
    last = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return last[-1] if last else len(messages)


@dataclass
class _Turns:
    """Finds the turns of a conversation by rendering its beginnings."""

    template: ChatTemplate
    messages: Sequence[Message]
    text: str
    tools: Any
    more: Mapping[str, Any] | None
    renderer: Renderer

    def found(self, item: Item, way: str) -> tuple[Turn, ...]:
        """The turns of the assistant, or the completion as one."""
        count = len(self.messages)
        if way == "completion":
            first = _first_of_completion(self.messages, item)
            return () if first >= count else (Turn(self._before(first), None),)
        turns = []
        for i, message in enumerate(self.messages):
            if message["role"] == "assistant":
                turns.append(self._turn(i, last=i == count - 1))
        return tuple(turns)

    def _render(self, messages: Sequence[Message], prompt: bool = False) -> str:
        return self.template.render(messages, tools=self.tools, prompt=prompt, more=self.more, ready=True)

    def _before(self, first: int) -> str:
        """The text in front of message `first`, ready for the assistant."""
        if first == 0:
            return ""
        try:
            before = self._render(self.messages[:first], prompt=True)
        except (TemplateError, TypeError, ValueError, LookupError):
            self.renderer.note("stand-in")
            return self.text[: self._changed(first)[0]]
        return before

    def _turn(self, i: int, last: bool) -> Turn:
        before = self._before(i)
        if last:
            return Turn(before, None)
        after = self._render(self.messages[: i + 1])
        if self.text.startswith(after):
            return Turn(before, after)
        # The template writes earlier turns otherwise than the last (it drops their reasoning): the turn is what
        # changes with its content, and what closes it.
        self.renderer.note("stand-in")
        begin, end = self._changed(i)
        alone = [*self.messages[:i], {"role": "assistant", "content": STAND_IN}]
        closing = self._render(alone).rpartition(STAND_IN)[2]
        end += common(self.text[end:], closing)
        return Turn(before if self.text.startswith(before) else self.text[:begin], self.text[:end])

    def _changed(self, i: int) -> tuple[int, int]:
        """Which letters of the text change with the content of message `i`."""
        message = self.messages[i]
        kept = {key: value for key, value in message.items() if key not in SAID}
        others = [{**kept, "content": STAND_IN}]
        if message.get("tool_calls"):  # what answers a call may be refused without it
            others.append({**kept, "content": STAND_IN, "tool_calls": _other_calls(message["tool_calls"])})
        for other in others:
            try:
                changed = self._render([*self.messages[:i], other, *self.messages[i + 1 :]])
                break
            except (TemplateError, TypeError, ValueError, LookupError):
                if other is others[-1]:
                    raise
        begin = common(self.text, changed)
        return begin, len(self.text) - common(self.text[begin:][::-1], changed[begin:][::-1])


def _other_calls(calls: Any) -> Any:
    """The same calls with other arguments."""
    found = []
    for call in calls if isinstance(calls, list) else ():
        inner = call.get("function") if isinstance(call, dict) else None
        if isinstance(inner, dict):
            found.append({**call, "function": {**inner, "arguments": {STAND_IN: STAND_IN}}})
        elif isinstance(call, dict):
            found.append({**call, "arguments": {STAND_IN: STAND_IN}})
    return found or calls


def common(one: str, two: str) -> int:
    """How many letters two texts begin alike."""
    if one.startswith(two):
        return len(two)
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

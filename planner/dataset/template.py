"""Chat templates, rendered as transformers 5 renders them: Jinja in a sandbox that a template cannot write from.

A template comes with a model, so it is someone else's code: it sees plain data only, and may loop and build text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ..errors import InputError

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
REASONING = frozenset(REASONING_NAMES)
DICT_NAMES = frozenset(dir(dict))

Messages = Sequence[Mapping[str, Any]]
Spans = list[tuple[int, int]]


class _Tracker(Extension):
    """`{% generation %}` blocks: where in the rendered text each begins and ends, while a render is tracked."""

    tags = {"generation"}  # noqa: RUF012 -- Jinja's own name and type

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.written = 0
        self.spans: Spans | None = None
        environment.extend(tracker=self)

    def parse(self, parser: Parser) -> nodes.Node:
        """Keep the body, and have `_generated` called with it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_generated"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _generated(self, context: Any, caller: Any) -> str:
        text = str(caller())
        if self.spans is not None:
            self.spans.append((self.written, self.written + len(text)))
        return text

    @contextmanager
    def track(self) -> Iterator[Spans]:
        """Collect the blocks of one render."""
        self.written, self.spans = 0, []
        try:
            yield self.spans
        finally:
            self.spans = None


class _Dict:
    """`dict` as templates may use it: a call, and fromkeys."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace whose names do not begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **kwargs)
        for name in values:
            _Namespace._check(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a template may not store {name!r}")


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def environment() -> Any:
    """The Jinja environment that chat templates are written for."""
    made = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Tracker, loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals.update(raise_exception=_raise, strftime_now=_now, dict=_Dict(), namespace=_Namespace)
    return made


def as_rendered(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message without empty keys, its reasoning under each name that templates read."""
    if None not in message.values() and REASONING.isdisjoint(message):
        return message
    kept = {key: value for key, value in message.items() if value is not None}
    if REASONING.isdisjoint(kept):
        return kept
    reasoning = next(kept[key] for key in REASONING_NAMES if key in kept)
    return {"thinking": reasoning, **kept, "reasoning_content": reasoning}


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which a name behind a dot finds a dictionary's key without an exception on the way."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: of a dictionary its key, but where it has a method of that name."""
        if type(obj) is dict and attribute in obj and attribute not in DICT_NAMES:
            return obj[attribute]
        return super().getattr(obj, attribute)


@dataclass(frozen=True)
class ChatTemplate:
    """One template with the special tokens that it may name (bos_token, eos_token ...)."""

    source: str
    special_tokens: Mapping[str, str]

    @cached_property
    def _compiled(self) -> Any:
        try:
            return environment().from_string(self.source)
        except TemplateError as error:
            raise InputError("chat template", self.source, "a Jinja template", f"{error}.") from error

    def check(self) -> None:
        """Raise InputError where it is no template."""
        self._compiled  # noqa: B018 -- made on first use

    @cached_property
    def marks_generation(self) -> bool:
        """Whether it says with `{% generation %}` what the assistant writes."""
        return GENERATION.search(self.source) is not None

    @cached_property
    def _given(self) -> dict[str, Any]:
        """What every conversation is rendered with."""
        return {**self._compiled.globals, **self.special_tokens, "documents": None}

    def _context(
        self,
        messages: Messages,
        tools: Any,
        prompt: bool,
        more: Mapping[str, Any] | None,
        ready: bool = False,
    ) -> Any:
        """What a render sees. Made here, as Jinja's own goes through a chain of its globals each time."""
        values = {
            **self._given,
            **(more or {}),
            "messages": messages if ready else [as_rendered(message) for message in messages],
            "tools": tools,
            "add_generation_prompt": prompt,
        }
        template = self._compiled
        return Context(template.environment, values, template.name, template.blocks)

    def render(
        self,
        messages: Messages,
        *,
        tools: Any = None,
        prompt: bool = False,
        more: Mapping[str, Any] | None = None,
        ready: bool = False,
    ) -> str:
        """The conversation as text; with `prompt`, ready for the assistant to go on. `ready` messages have been
        through `as_rendered`. Raises jinja2.TemplateError and whatever a template trips over in odd data."""
        context = self._context(messages, tools, prompt, more, ready)
        return "".join(self._compiled.root_render_func(context))

    def render_marked(
        self, messages: Messages, *, tools: Any = None, more: Mapping[str, Any] | None = None
    ) -> tuple[str, Spans]:
        """The text, and the positions that its `{% generation %}` blocks hold."""
        template = self._compiled
        tracker: _Tracker = template.environment.tracker
        parts = []
        with tracker.track() as spans:
            for part in template.root_render_func(self._context(messages, tools, False, more)):
                parts.append(part)
                tracker.written += len(part)
            return "".join(parts), spans

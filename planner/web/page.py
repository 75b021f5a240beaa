"""The page: fields on the left, figures on the right, one event for all of them. The only module that lays out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..adapter import ALL_LINEAR, LAYER_SETS, PRESETS
from ..choices import CHOICES
from ..trainers import names as trainer_names
from . import figures, plan_views, views
from .answer import Answer, Search, answer, dataset_names, gpu_names, guarded, model_names, plans
from .sections import SECTIONS
from .state import NAMES, USUAL, Choices, choices, from_query
from .uploads import ENDINGS, report_of, take

NOWHERE = "no GPU"
EXPERTS = ["scaled", "per-expert", "shared-outer", "peft", "none"]
HEAD = '<div class="lp-head"><h1>lora-plan</h1><p>What a LoRA fine-tune takes and holds, before you run it.</p></div>'
# Writes the choices into the address without a new entry in the history, and shows the address.
TO_ADDRESS = """(query) => {
  const theme = new URLSearchParams(location.search).get('__theme');
  const whole = query + (theme ? '&__theme=' + encodeURIComponent(theme) : '');
  history.replaceState(null, '', location.pathname + '?' + whole);
  return location.origin + location.pathname + '?' + query;
}"""
TURN = "() => { document.body.classList.toggle('dark'); }"


def plot(figure: dict[str, Any] | None) -> Any:
    """A figure for gr.Plot, hidden where there is none."""
    from gradio.components.plot import PlotData

    if figure is None:
        return gr.update(value=None, visible=False)
    return gr.update(value=PlotData(type="plotly", plot=json.dumps(figure)), visible=True)


def _model_fields(found: dict[str, Any]) -> None:
    found["model"] = gr.Dropdown(
        model_names(), value=USUAL.model, label="Model", allow_custom_value=True, filterable=True,
        info="type to search the catalogue",
    )  # fmt: skip
    with gr.Accordion("or paste its config.json", open=False):
        found["config"] = gr.Textbox(
            label="config.json", lines=5, max_lines=12, placeholder='{"model_type": "llama", ...}',
            info="stands in for the model while there is text here",
        )  # fmt: skip


def _adapter_fields(found: dict[str, Any]) -> None:
    found["rank"] = gr.Slider(1, 512, value=USUAL.rank, step=1, label="Rank")
    with gr.Row():
        names = [*PRESETS, ALL_LINEAR, *LAYER_SETS, "attention,mlp"]
        found["layers"] = gr.Dropdown(
            list(dict.fromkeys(names)),
            value=USUAL.layers,
            label="Layers",
            allow_custom_value=True,
            min_width=130,
        )
        found["alpha"] = gr.Number(value=USUAL.alpha, label="Alpha", min_width=90)
    found["experts"] = gr.Dropdown(EXPERTS, value=USUAL.experts, label="Experts, where a model has them")


def _data_fields(found: dict[str, Any]) -> dict[str, Any]:
    """The fields of the data; what a file is read with comes back by itself."""
    with gr.Row():
        file = gr.UploadButton(
            "Read a data file", file_types=list(ENDINGS), size="sm", min_width=150, elem_id="lp-file"
        )
        drop = gr.Button("Forget it", size="sm", min_width=90, visible=False)
    said = gr.HTML(padding=False, visible=False)
    found["data"] = gr.Textbox(visible="hidden", elem_id="lp-data")
    found["dataset"] = gr.Dropdown(
        [("none of these", ""), *((name, name) for name in dataset_names())], value="", label="Dataset"
    )
    with gr.Row():
        found["tokens"] = gr.Textbox(label="or loss tokens", placeholder="300M", min_width=110, max_length=30)
        found["episodes"] = gr.Textbox(
            label="or RL episodes", placeholder="320k", min_width=110, max_length=30
        )
    with gr.Row():
        found["epochs"] = gr.Number(value=1, precision=0, minimum=1, label="Epochs", min_width=90)
        found["success_rate"] = gr.Number(label="Success rate, RL", value=None, min_width=110)
    return {"file": file, "drop": drop, "said": said}


def _machine_fields(found: dict[str, Any]) -> None:
    found["gpu"] = gr.Dropdown(
        [(NOWHERE, ""), *((name, name) for name in gpu_names())], value="", label="GPU", filterable=True,
        allow_custom_value=True,
    )  # fmt: skip
    with gr.Row():
        found["gpus"] = gr.Number(value=1, precision=0, minimum=1, label="GPUs", min_width=80)
        found["batch"] = gr.Number(value=1, precision=0, minimum=1, label="Batch", min_width=90)
        found["seq_len"] = gr.Number(
            value=None, precision=0, label="Length", placeholder="2048", min_width=90
        )
    with gr.Row():
        found["quantize"] = gr.Dropdown(
            list(CHOICES["quantize"]), value="none", label="Quantised base", min_width=120
        )
        found["checkpointing"] = gr.Checkbox(
            value=False, label="Checkpointing", min_width=120, info="computes activations again"
        )
    found["trainer"] = gr.Dropdown(
        [("not named", ""), *((name, name) for name in trainer_names())], value="", label="Trainer", filterable=True,
        info="the program that runs: it decides what is not typed",
    )  # fmt: skip
    with gr.Accordion("More of the step", open=False), gr.Row():
        for name, label in (
            ("precision", "Precision"),
            ("optimizer", "Optimizer"),
            ("kernels", "Kernels"),
        ):
            found[name] = gr.Dropdown(
                list(CHOICES[name]), value=getattr(USUAL, name), label=label, min_width=120
            )
        found["sharding"] = gr.Dropdown(
            [("as usual", ""), *((name, name) for name in CHOICES["sharding"])],
            value="",
            label="Sharding",
            min_width=120,
        )
        found["price"] = gr.Number(value=None, label="Price, USD an hour", min_width=120)


def _fields() -> tuple[dict[str, Any], dict[str, Any]]:
    """Every field of the page but those of the search, by the names of the choices; and what reads a file."""
    found: dict[str, Any] = {}
    with gr.Group():
        _model_fields(found)
    with gr.Accordion("Adapter", open=True):
        _adapter_fields(found)
    with gr.Accordion("Data", open=True):
        reading = _data_fields(found)
    with gr.Accordion("Machine and step", open=True):
        _machine_fields(found)
    return found, reading


def shown(found: Answer) -> list[Any]:
    """What the outputs become; after an error all but the headline and the link stay as they were."""
    first = [views.headline(found), found.query]
    if found.error is not None or found.plan is None:
        return [*first, *(gr.skip() for _ in range(2 * len(SECTIONS) + 2))]
    sections = [each for _, figure, view in SECTIONS for each in (plot(figure(found)), view(found))]
    return [*first, *sections, plan_views.downloads(found), views.notes(found)]


def searched(found: Search) -> list[Any]:
    """The search's figure and tables."""
    return [plot(figures.frontier(found)), plan_views.plans(found)]


class Handlers:
    """The events of the page, with what the server was started with."""

    def __init__(self, hub: bool) -> None:
        self.hub = hub

    def _chosen(self, values: Sequence[Any]) -> tuple[Choices | None, str | None]:
        return guarded(lambda: choices(dict(zip(NAMES, values, strict=True))))

    def update(self, *values: Any) -> list[Any]:
        """Everything anew after a change of any field."""
        chosen, error = self._chosen(values)
        return shown(answer(chosen, hub=self.hub) if chosen else Answer(USUAL, "", error=error))

    def search(self, *values: Any) -> list[Any]:
        """The plans, when they are asked for."""
        chosen, error = self._chosen(values)
        return searched(plans(chosen, hub=self.hub) if chosen else Search(error=error))

    def take(self, path: str | None) -> list[Any]:
        """A file that the browser sent: counted, and taken off this machine."""
        if path is None:
            return [gr.skip(), gr.skip(), gr.skip()]
        try:
            key, error = guarded(lambda: take(path, path))
        finally:
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)
        return [
            key or "",
            views.data_file(report_of(key) if key else None, error),
            gr.update(visible=bool(key)),
        ]

    def load(self, request: gr.Request) -> list[Any]:
        """The fields from the link that the page was opened by, and everything that follows from them."""
        chosen, error = guarded(lambda: from_query(dict(request.query_params)))
        if chosen is None:
            return [*(getattr(USUAL, name) for name in NAMES), *shown(Answer(USUAL, "", error=error))]
        return [*(getattr(chosen, name) for name in NAMES), *shown(answer(chosen, hub=self.hub))]


def _outputs() -> tuple[list[Any], Any, list[Any]]:
    """The outputs in the order of `shown`, the field of the link, and the search's outputs."""
    head = gr.HTML(elem_id="lp-headline", padding=False)
    query = gr.Textbox(visible="hidden", elem_id="lp-query")
    # Not tabs: Gradio hides those that do not fit behind a menu.
    with gr.Accordion("Downloads and link", open=False, elem_id="lp-downloads"):
        link = gr.Textbox(label="Link to these choices", interactive=False, buttons=["copy"])
        downloads = gr.HTML(padding=False)
    sections: list[Any] = []
    with gr.Tabs(elem_id="lp-tabs"):
        for title, _, _ in SECTIONS:
            with gr.Tab(title):
                figure = gr.Plot(show_label=False, container=False)
                sections += [figure, gr.HTML(padding=False)]
        with gr.Tab("Best plans", elem_id="lp-plans"):
            with gr.Row():
                budget = gr.Number(label="Budget, USD", value=None, min_width=110)
                deadline = gr.Textbox(label="Deadline", placeholder="12h", min_width=110, max_length=20)
                go = gr.Button("Search", variant="primary", min_width=110)
            search = [gr.Plot(show_label=False, container=False, visible=False), gr.HTML(padding=False)]
    with gr.Accordion("Sources", open=False):
        notes = gr.HTML(padding=False)
    return [head, query, *sections, downloads, notes], (budget, deadline, go, link, query), search


def build(*, hub: bool = False) -> Any:
    """The page as gr.Blocks."""
    handlers = Handlers(hub)
    with gr.Blocks(
        title="lora-plan", analytics_enabled=False, fill_width=True, delete_cache=(600, 600)
    ) as page:
        with gr.Row():
            gr.HTML(HEAD, padding=False)
            turn = gr.Button("Light or dark", size="sm", scale=0, min_width=120, variant="secondary")
        with gr.Row():
            with gr.Column(scale=4, min_width=300, elem_id="lp-fields"):
                fields, reading = _fields()
            with gr.Column(scale=9, min_width=300):
                outputs, (budget, deadline, go, link, query), search = _outputs()
        fields = {**fields, "budget": budget, "deadline": deadline}
        inputs = [fields[name] for name in NAMES]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # Pasting into a field of text or numbers is no "input" to Gradio, but a change.
        written = (gr.Textbox, gr.Number)
        changed = [field.change if isinstance(field, written) else field.input for field in inputs]
        gr.on(
            changed,
            handlers.update,
            inputs,
            outputs,
            trigger_mode="always_last",
            concurrency_limit=4,
            **quiet,
        )
        told = [fields["data"], reading["said"], reading["drop"]]
        once = {"show_progress": "minimal", "api_visibility": "private", "concurrency_limit": 1}
        reading["file"].upload(handlers.take, reading["file"], told, **once)
        reading["drop"].click(
            lambda: ["", gr.update(value="", visible=False), gr.update(visible=False)], None, told, **quiet
        )
        asked = {"show_progress": "minimal", "api_visibility": "private", "concurrency_limit": 2}
        gr.on([go.click, deadline.submit, budget.submit], handlers.search, inputs, search, **asked)
        page.load(handlers.load, None, [*inputs, *outputs], **quiet)
        query.change(None, query, link, js=TO_ADDRESS, api_visibility="private")
        turn.click(None, js=TURN, api_visibility="private")
    return page

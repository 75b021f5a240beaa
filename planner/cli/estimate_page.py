"""The page that `estimate` prints for people: a headline, four small tables, warnings, and the sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .. import units
from ..learning_rate.lookup import LearningRate
from ..memory.interval_kinds import KIND_WORDS, LENGTH_WORDS, NARROWER
from ..moments import FIT_WORDS, parts_of
from ..plan import Plan
from . import capacity_tables
from .capacity_tables import titled_table
from .memory_words import fewest, memory_of

WIDE = 100


def _what(plan: Plan) -> str:
    spec = plan.adapter.spec
    where = (
        ", ".join((*(spec.targets or spec.layers or ()), *spec.target_parameters)) or spec.target_regex or ""
    )
    where = "attention, mlp, unembedding" if where == "all" else where
    kind = "DoRA" if spec.variant == "dora" else "QLoRA" if plan.method == "qlora" else "LoRA"
    experts = f", experts {spec.experts}" if plan.adapter.expert_rank else ""
    more = ""
    if spec.layers_to_transform is not None:
        more += f", in {len(spec.layers_to_transform)} layers"
    if spec.modules_to_save:
        more += f", {', '.join(spec.modules_to_save)} in full"
    if spec.bias != "none":
        more += f", biases {spec.bias}"
    return f"{kind} rank {spec.rank} on {where}{experts}{more}"


def _stored(plan: Plan) -> str:
    """How the base model is stored, where that is more than its dtype."""
    model, said = plan.model, []
    if model.quantization and model.weight_bytes is not None:
        said.append(f"weights {units.byte_size(model.weight_bytes)} as stored, {model.quantization['label']}")
    if model.checkpoint:
        files = f"safetensors files of {units.byte_size(model.checkpoint['bytes'])}"
        agrees = "agree" if model.checkpoint["agrees"] else "differ: see the note below"
        said.append(f"{files} ({model.checkpoint['tensors']:,} tensors) {agrees}")
    return "; ".join(said)


def _headline(plan: Plan) -> RenderableType:
    model, adapter = plan.model, plan.adapter
    size = f"{units.count(model.params)} parameters"
    if model.params_active != model.params:
        size += f", {units.count(model.params_active)} active"
    facts_line = [f"trains {units.count(adapter.params)} ({units.percent(adapter.params / model.params)})"]
    if plan.flops:
        facts_line.append(f"{units.percent(plan.flops.ratio)} of full fine-tuning's FLOPs")
    stored = _stored(plan)
    answers = ["; ".join(facts_line), *_rate(plan), *_run(plan)]
    return Group(
        Text.assemble((model.id, "bold cyan"), (f"  {model.model_type}, {size}", "")),
        *([Text(stored)] if stored else []),
        Text(_what(plan)),
        *(Text(line, style="bold") for line in answers),
    )


def _rate(plan: Plan) -> Iterator[str]:
    """The learning rate, with its interval and for which batch."""
    lr = plan.learning_rate
    if lr.value is None:
        return
    span = "" if lr.low is None or lr.high is None else f" ({units.rate(lr.low)} to {units.rate(lr.high)})"
    of = "" if lr.batch is None else f" for a batch of {lr.batch:,.0f}"
    yield f"learning rate {units.rate(lr.value)}{of}{span}"


def _run(plan: Plan) -> Iterator[str]:
    """On the GPU that was named: whether the run fits, how long it takes and what it costs."""
    found, named = (plan.memory or {}).get(plan.method), plan.request.get("gpu")
    if not found or named is None:
        return
    if found["fit"] is not None:
        from .. import hardware  # loaded where a GPU is named

        card, gpus = hardware.find(str(named)), found["setup"]["gpus"]
        peak, low, high = (units.byte_size(found[key]) for key in ("per_gpu_bytes", "low", "high"))
        each = f"{gpus:,} x {card.name}: {peak} of {units.byte_size(card.memory_bytes or 0)}"
        yield f"{FIT_WORDS[found['fit']]} {each}{' each' if gpus > 1 else ''} ({low} to {high})"
    if plan.time and plan.time["seconds"] is not None:
        took, low, high = (units.duration(plan.time[key]) for key in ("seconds", "low", "high"))
        cost = ""
        if plan.cost and plan.cost["usd"] is not None:
            usd, low_usd, high_usd = (f"{plan.cost[key]:,.2f}" for key in ("usd", "low", "high"))
            cost = f"; costs ${usd} ({low_usd} to {high_usd})"
        yield f"takes {took} ({low} to {high}){cost}"


def _adapter(plan: Plan) -> Table:
    adapter = plan.adapter
    chosen = ",".join(adapter.spec.layers or ())
    table = titled_table(
        "Adapter parameters", adapter.basis, f"at rank {adapter.spec.rank}", "parameters", "of model"
    )
    for name, number in adapter.layer_sets.items():
        style = "bold" if name == chosen else ""
        table.add_row(name, f"{number:,}", units.percent(number / plan.model.params), style=style)
    if chosen not in adapter.layer_sets:
        table.add_row(
            "this adapter",
            f"{adapter.params:,}",
            units.percent(adapter.params / plan.model.params),
            style="bold",
        )
    if adapter.expert_rank is not None:
        table.add_row("rank of an expert", f"{adapter.expert_rank:,}", "")
    table.add_row("per unit of rank", f"{adapter.params_per_rank:,}", "")
    table.add_row(f"size, {adapter.spec.dtype}", units.byte_size(adapter.bytes), "")
    return table


def _flops(plan: Plan) -> Table:
    flops = plan.flops
    length = f"at {plan.workload.seq_len:,} tokens" + ("" if plan.workload.seq_len_given else ", assumed")
    if flops is None:
        table = titled_table("Training FLOPs", "unknown")
        table.add_row("no exact count: see the note below", "")
        return table
    table = titled_table("Training FLOPs", flops.basis, length, "a token", "of full")
    data = flops.to_dict()
    table.add_row("full fine-tuning", units.flops(data["full_per_token"]), "")
    table.add_row("LoRA", units.flops(data["lora_per_token"]), units.percent(flops.ratio), style="bold")
    masked = data["masked"]
    table.add_row(
        "LoRA, masked half skipped", units.flops(masked["lora_per_token"]), units.percent(masked["ratio"])
    )
    if flops.rule_ratio is not None:
        table.add_row("bare rule (2N²+6NR)/3N²", "", units.percent(flops.rule_ratio))
    table.add_row("attention, of LoRA's", "", units.percent(flops.attention_share))
    if flops.break_even_rank is not None:
        table.add_row("not cheaper from rank", f"{flops.break_even_rank:,}", "")
    if flops.total_full is not None and flops.total_lora is not None:
        table.add_row("whole run, full", units.flops(flops.total_full), "")
        table.add_row("whole run, LoRA", units.flops(flops.total_lora), units.percent(flops.ratio))
    return table


def _would_fit(plan: Plan) -> Table | None:
    others = [part["would_fit"] for part in (plan.memory or {}).values() if part and part["would_fit"]]
    if not others:
        return None
    from ..remedies import typed  # loaded where something does not fit

    table = titled_table("What would fit", "analytic", "what is trained stays as it is", "a GPU", "a step")
    for other in others[0]:
        step = "" if other["step_s"] is None else f"{units.significant(other['step_s'])} s"
        table.add_row(typed(other["options"]), units.byte_size(other["per_gpu_bytes"]), step)
    return table


def _learning_rate(plan: Plan) -> Table:
    lr = plan.learning_rate
    table = titled_table("Learning rate", lr.basis or "unknown")
    if lr.value is None or lr.full_finetune is None:
        table.add_row("LoRA", "none: see the note below")
        return table
    table.add_row("LoRA", Text(units.rate(lr.value), style="bold"))
    if lr.low is not None and lr.high is not None:
        within = "best in sweeps" if lr.level is None else f"best, {lr.level:.0%} within"
        table.add_row(within, f"{units.rate(lr.low)} to {units.rate(lr.high)}")
    table.add_row("full fine-tuning", units.rate(lr.full_finetune))
    if lr.context:
        table.add_row("of", f"{lr.law}: no law covers it")
        return table
    for factor in lr.factors:
        ends = f"{factor.low:.3g} to {factor.high:.3g}, {factor.basis}"
        table.add_row(f"in it, for {factor.name}", f"x {factor.value:.3g} ({ends})")
    if lr.batch is not None:
        table.add_row("for a batch of", f"{lr.batch:,.0f}")
    table.add_row("law", f"{lr.law}, {lr.family if lr.family_known else 'all families'}")
    return table


def _memory(plan: Plan) -> Table | None:
    if plan.memory is None:
        return None
    columns = {name: part for name, part in plan.memory.items() if part is not None}
    setup = next(iter(columns.values()))["setup"]
    objective = "" if setup["objective"] == "sft" else f", {setup['objective']}"
    bases = ["fitted" if found["corrected"] else "analytic" for found in columns.values()]
    basis = " and ".join(dict.fromkeys(bases))
    how = f"{setup['precision']}, {setup['optimizer']}{objective}"
    table = titled_table("Memory of a GPU", basis, how, *columns)
    for part in parts_of(columns.values()):
        table.add_row(part, *(units.byte_size(found["parts"].get(part, 0)) for found in columns.values()))
    before = [found["loading"] for found in columns.values()]
    if any(before):
        sizes = (units.byte_size(found["per_gpu_bytes"]) if found else "not known" for found in before)
        table.add_row("before the first step", *sizes)
    moments = [found["moment"].partition(" ") for found in columns.values()]
    table.add_row("most at", *(phase for phase, _, _ in moments))
    table.add_row("", *(place for _, _, place in moments))
    table.add_row(
        "peak", *(units.byte_size(found["per_gpu_bytes"]) for found in columns.values()), style="bold"
    )
    table.add_row("from", *(units.byte_size(found["low"]) for found in columns.values()))
    table.add_row("to", *(units.byte_size(found["high"]) for found in columns.values()))
    within = [found["interval"] for found in columns.values()]
    table.add_row("interval of", *(KIND_WORDS[each["kind"]] for each in within))
    table.add_row("it holds", *(f"{each['held']:.0%} of {each['judged']} sources" for each in within))
    if any(corrected := [found["corrected"] for found in columns.values()]):
        table.add_row("what a step adds", *(f"x {each['factor']:.3g}" if each else "" for each in corrected))
    narrower = [NARROWER[each["kind"]] for each in within]
    if any(narrower):
        table.add_row("narrower by", *narrower)
    table.add_row("tokens", f"{plan.workload.seq_len:,} {LENGTH_WORDS[within[0]['length']]}")
    if any(found["host_bytes"] for found in columns.values()):
        hosts = [found["host"] for found in columns.values()]
        table.add_row("on the host, a machine", *(units.byte_size(each["node_bytes"]) for each in hosts))
        if hosts[0]["memory_bytes"] is not None:
            table.add_row("fits there", *("yes" if each["fits"] else "no" for each in hosts))
    if next(iter(columns.values()))["fits"] is not None:
        table.add_row("fits", *(found["fit"] for found in columns.values()))
        least = [fewest(found["fewest"]) for found in columns.values()]
        table.add_row("fewest GPUs", *(count for count, _ in least))
        table.add_row("a sequence each", *(how for _, how in least))
    return table


def _time(plan: Plan) -> Table | None:
    if plan.time is None:
        return None
    from ..speed.kinds import KIND_WORDS as TIMED  # loaded where there is a time
    from ..speed.kinds import held_words

    step, run = plan.time["step"], plan.time
    table = titled_table("Time and cost", run["basis"])
    low, middle, high = (units.significant(step[key]) for key in ("low", "seconds", "high"))
    length = (
        f"{plan.workload.seq_len:,} tokens"
        if run["seq_len"] is None
        else f"{run['seq_len']:,} tokens on average"
    )
    table.add_row(f"a step of {plan.workload.batch:,} x {length}", f"{middle} s ({low} to {high})")
    if run["seconds"] is not None:
        low, middle, high = (units.duration(run[key]) for key in ("low", "seconds", "high"))
        table.add_row(units.counted(run["steps"], "step"), f"{middle} ({low} to {high})")
    within = run["interval"]
    table.add_row("interval of", TIMED[within["kind"]])
    table.add_row("it holds", held_words(within["held"], within["judged"]))
    if plan.cost is not None and plan.cost["usd"] is not None:
        table.add_row(
            "cost", f"${plan.cost['usd']:,.2f} ({plan.cost['low']:,.2f} to {plan.cost['high']:,.2f})"
        )
        table.add_row("at, a GPU and hour", *_price(plan.cost["price"]))
    return table


def _grpo(plan: Plan) -> Table | None:
    found = plan.grpo
    if found is None:
        return None
    table = titled_table("A step of GRPO", "analytic", found["generation"])
    table.add_row("prompts x group", f"{found['prompts']:,} x {found['group']:,}")
    table.add_row("tokens of each", f"{found['prompt_tokens']:,} + {found['completion_tokens']:,}")
    if vllm := found["vllm"]:
        table.add_row("vLLM takes", units.byte_size(vllm["taken_bytes"]))
        table.add_row("of it cache", units.byte_size(vllm["cache_bytes"]))
        table.add_row("at a time", f"{vllm['sequences']:,} of {vllm['wanted']:,}")
    for name, done in found["flops"].items():
        table.add_row(f"FLOPs, {name}", units.flops(done))
    for name, seconds in ((plan.time or {"step": {}})["step"].get("phases") or {}).items():
        table.add_row(f"{name}, s", units.significant(seconds))
    return table


def _price(found: dict[str, Any]) -> tuple[str, ...]:
    """Dollars of a GPU and hour, with the range and the dates of the list."""
    shown = f"${found['usd_per_gpu_hour']:,.2f}"
    if not found["providers"]:
        return (f"{shown}, as given",)
    dates = found["from"] if found["from"] == found["to"] else f"{found['from']} to {found['to']}"
    return (f"{shown} ({found['low']:,.2f} to {found['high']:,.2f}), {dates}",)


def _serving(plan: Plan) -> Table | None:
    found = plan.serving
    if found is None:
        return None
    table = titled_table("Serving", found["basis"])
    table.add_row("an adapter, 16 bits", units.byte_size(found["adapter_bytes"]))
    table.add_row("to load from the host", f"{units.duration(found['load_s'])} at least")
    if found["gpus"] is None:
        table.add_row("beside the base", "the base does not fit")
        return table
    gpus = "a GPU" if found["gpus"] == 1 else f"{found['gpus']:,} GPUs"
    table.add_row(f"beside the base on {gpus}", f"{found['resident']:,} adapters")
    context = units.byte_size(found["cache_bytes_per_token"] * found["cache_tokens"])
    table.add_row(f"with {found['cache_tokens']:,} tokens of context", context)
    return table


def _explain_rate(lr: LearningRate) -> tuple[str, ...]:
    if lr.context:
        return (f"{lr.basis}: {lr.context.statement}",)
    return (
        f"fitted: {lr.fact.form}. {lr.fact.regret_text}",
        (
            "fitted: the learning rate's interval holds the best rate of a model that the fit has not seen, by its "
            "error on models left out; full fine-tuning's is a tenth, the article's ratio."
        ),
        *(f"{factor.basis}: {factor.reason}." for factor in lr.factors),
    )


def _held(within: dict[str, Any], kind: str) -> str:
    """How often intervals of a kind hold sources that had no part in them."""
    return (
        f"Intervals made of all other sources hold {within['held']:.0%} of a source of this kind of set-up "
        f"({kind}), by {within['judged']} of them."
    )


def _explain_memory(plan: Plan) -> tuple[str, ...]:
    found = (plan.memory or {}).get(plan.method)
    if found is None:
        return ()
    within = found["interval"]
    return (
        (
            f"{memory_of(found['corrected'])} Its interval is to hold "
            f"{within['coverage']:.0%} of published peaks of sources that nobody has looked at: it rests on "
            f"{within['runs']} figures of {within['sources']} sources as they were predicted first. "
            f"{_held(within, KIND_WORDS[within['kind']])}"
        ),
    )


def _explain_time(plan: Plan) -> tuple[str, ...]:
    if plan.time is None:
        return ()
    from ..speed.kinds import KIND_WORDS as TIMED  # loaded where there is a time

    within = plan.time["interval"]
    if within["held"] is None:
        return ()
    return (
        (
            "fitted: a step's time is a roofline whose rates were fitted on published steps. Its interval is to hold "
            f"{within['coverage']:.0%} of sources that nobody has looked at: it rests on {within['runs']} steps of "
            f"{within['sources']} sources, as they were predicted first or left out of the fit. "
            f"{_held(within, TIMED[within['kind']])}"
        ),
    )


def _explain(plan: Plan) -> RenderableType:
    bits = f"{plan.capacity.bits_per_param:g} bits a parameter"
    reasons = (
        "exact: parameters are sums of r(d_in + d_out) over the adapted matrices of the model's inventory.",
        (
            "exact: FLOPs are 2 per multiply-add of matrix products, convolutions and attention, forward and "
            "backward, without the gradients that frozen weights do not need; elementwise work (under 1%) is left "
            "out."
        ),
        *_explain_memory(plan),
        *_explain_time(plan),
        f"assumed: {bits} is reached after many exposures; one pass stores less.",
        "assumed: 1 bit a loss token, at most 1 bit an episode.",
        *_explain_rate(plan.learning_rate),
    )
    sources = (f"{use}: {s.title}, {s.locator} ({s.date}). {s.url}" for use, s in plan.sources)
    return Group(
        Text("Where the numbers come from", style="bold"),
        *(Padding(Text(text), (0, 0, 0, 2)) for text in reasons),
        Text("Sources", style="bold"),
        *(Padding(Text(text), (0, 0, 0, 2)) for text in sources),
    )


def show(plan: Plan, explain: bool, console: Console | None = None) -> None:
    """Print the page; two tables side by side where the terminal is wide enough."""
    console = console or Console(highlight=False, soft_wrap=False, markup=False, emoji=False)
    console.print(_headline(plan))
    if plan.adapter.peft_line:
        console.print(
            Text(plan.adapter.peft_line, style="dim"), soft_wrap=console.width >= 80
        )  # whole, to be searched for
    console.print("")
    tables: list[Table] = [_adapter(plan), _flops(plan), capacity_tables.capacity(plan), _learning_rate(plan)]
    more = (
        capacity_tables.price(plan),
        capacity_tables.data(plan),
        _grpo(plan),
        _memory(plan),
        _would_fit(plan),
        _time(plan),
        _serving(plan),
    )
    tables += [table for table in more if table is not None]
    if console.width >= WIDE:
        for number in range(0, len(tables), 2):
            grid = Table.grid(padding=(0, 4))
            grid.add_row(*tables[number : number + 2])
            console.print(grid, "")
    else:
        for table in tables:
            console.print(table, "")
    for curve in plan.capacity.curves or ():
        console.print(capacity_tables.curves(plan, curve), "")
    for notice in plan.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
    if explain:
        console.print("", _explain(plan))

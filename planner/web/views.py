"""A plan's JSON as the words and tables of the page. Only formatting: every number stands in the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import units
from ..memory.interval_kinds import KIND_WORDS, NARROWER
from ..moments import FIT_WORDS, parts_of
from ..report.numbers import dollars
from ..speed.kinds import KIND_WORDS as TIMED
from ..speed.kinds import held_words
from .answer import Answer
from .markup import note, table, text, tile

if TYPE_CHECKING:
    from ..dataset.result import DatasetReport

VERDICTS = {"ample": "The data fit", "tight": "The data just fit", "exceeded": "The data do not fit"}
SIGNS = {"ample": "✓", "tight": "~", "exceeded": "✗"}
TONES = {"ample": "lp-good", "tight": "lp-fair", "exceeded": "lp-poor"}
METHODS = {"lora": "LoRA", "qlora": "QLoRA", "full": "full"}


def between(low: Any, high: Any, show: Any) -> str:
    """An interval, or nothing."""
    return "" if low is None or high is None else f"{show(low)} to {show(high)}"


def asked_method(answer: Answer) -> str:
    """lora or qlora, by the choice of a base."""
    return "lora" if answer.chosen.quantize in ("", "none") else "qlora"


def _capacity_tile(plan: Mapping[str, Any]) -> str:
    found, info = plan["capacity"], plan["information"]
    if info is None:
        return tile("Capacity", units.bits(found["bits"]), "add data to see whether they fit", found["basis"])
    said = f"{units.bits(info['bits'])} of data, room for {units.bits(found['bits'])}"
    if found["required_rank"] is not None:
        said += f"; rank {found['required_rank']:,} would do"
    verdict = found["verdict"]
    return tile("Capacity", f"{SIGNS[verdict]} {VERDICTS[verdict]}", said, found["basis"], TONES[verdict])


def _memory_tile(answer: Answer, plan: Mapping[str, Any]) -> str:
    method = asked_method(answer)
    found = (plan["memory"] or {}).get(method)
    if found is None:
        return tile("Memory of a GPU", "not known", "see the notes below")
    size = units.byte_size(found["per_gpu_bytes"])
    held = f"such intervals hold {found['interval']['held']:.0%} of {found['interval']['judged']} sources"
    within = f"{between(found['low'], found['high'], units.byte_size)} ({held})"
    if found["fits"] is None or answer.card is None:
        return tile("Memory of a GPU", size, f"{within}; choose a GPU to see whether it fits", found["basis"])
    sign, tone = {"yes": ("✓", "lp-good"), "likely": ("~", "lp-fair")}.get(found["fit"], ("✗", "lp-poor"))
    said = FIT_WORDS[found["fit"]]
    return tile(
        "Memory of a GPU",
        f"{sign} {size}",
        f"{said} in {units.byte_size(answer.card)}; {within}",
        found["basis"],
        tone,
    )


def time_held(within: Mapping[str, Any]) -> str:
    """How often such intervals held sources that had no part in them."""
    if within["held"] is None:
        return "nobody has judged such intervals"
    return f"such intervals hold {held_words(within['held'], within['judged'])}"


def _run_tile(plan: Mapping[str, Any]) -> str:
    time, cost = plan["time"], plan["cost"]
    if time is None:
        return tile("Time and cost", "—", "choose a GPU, and data for the whole run")
    if time["seconds"] is None:
        step = time["step"]
        within = between(step["low"], step["high"], units.duration)
        return tile(
            "Time of a step",
            units.duration(step["seconds"]),
            f"{within} ({time_held(time['interval'])}); add data for the run",
            time["basis"],
        )
    value, ends = units.duration(time["seconds"]), between(time["low"], time["high"], units.duration)
    said = f"{ends} ({time_held(time['interval'])})"
    if cost and cost["usd"] is not None:
        value += f", {dollars(cost['usd'])}"
        price = dollars(cost["price"]["usd_per_gpu_hour"])
        said += f"; {between(cost['low'], cost['high'], dollars)}, at {price} a GPU and hour"
    else:
        said += "; no price is known: give yours"
    return tile("Time and cost", value, said, time["basis"])


def _bar(answer: Answer, plan: Mapping[str, Any]) -> str:
    """The figures that decide in a line, which small screens keep in sight."""
    verdict, rate, time = plan["capacity"]["verdict"], plan["learning_rate"]["value"], plan["time"]
    said = [("", f"{units.count(plan['adapter']['params'])} trained")]
    if verdict:
        said.insert(0, (TONES[verdict], f"{SIGNS[verdict]} data"))
    if found := (plan["memory"] or {}).get(asked_method(answer)):
        tone, sign = {True: ("lp-good", "✓ "), False: ("lp-poor", "✗ "), None: ("", "")}[found["fits"]]
        said.append((tone, f"{sign}{units.byte_size(found['per_gpu_bytes'])}"))
    if rate is not None:
        said.append(("", f"rate {units.rate(rate)}"))
    if time and time["seconds"] is not None:
        said.append(("", units.duration(time["seconds"])))
    words = "".join(f'<span class="{tone}">{text(each)}</span>' for tone, each in said)
    return f'<div class="lp-bar" aria-hidden="true">{words}</div>'


def headline(answer: Answer) -> str:
    """The model in a line and the figures that decide; an error instead where there is one."""
    if answer.error is not None or answer.plan is None:
        return (
            f'<div class="lp-error" role="alert"><b>Not calculated.</b> {text(answer.error)} '
            "<small>What is shown below is of the last choices that could be.</small></div>"
        )
    plan = answer.plan
    model, adapter, flops, rate = (plan[name] for name in ("model", "adapter", "flops", "learning_rate"))
    size = f"{units.count(model['params'])} parameters"
    if model["params_active"] != model["params"]:
        size += f", {units.count(model['params_active'])} active"
    share = units.percent(adapter["params"] / model["params"])
    tiles = [
        _capacity_tile(plan),
        tile(
            "Trained parameters",
            units.count(adapter["params"]),
            f"{adapter['params']:,}, {share}",
            adapter["basis"],
        ),
    ]
    if rate["value"] is None:
        tiles.append(tile("Learning rate", "not known", rate["reason"] or "no law was fitted on this family"))
    else:
        within = between(rate["low"], rate["high"], units.rate)
        tiles.append(
            tile("Learning rate", units.rate(rate["value"]), f"{within}, 90% of best rates", rate["basis"])
        )
    tiles.append(_memory_tile(answer, plan))
    tiles.append(_run_tile(plan))
    if flops:
        tiles.append(
            tile("FLOPs", units.percent(flops["ratio"]), "of full fine-tuning's, a token", flops["basis"])
        )
    return (
        f'<h2 class="lp-model">{text(model["id"])}</h2><p class="lp-sub">{text(model["model_type"])}, {text(size)}'
        f'</p><dl class="lp-tiles">{"".join(tiles)}</dl>{_bar(answer, plan)}'
    )


def data_file(report: DatasetReport | None, error: str | None) -> str:
    """What was read of a file, or why it was not."""
    if report is None:
        return f'<div class="lp-error" role="alert"><b>Not read.</b> {text(error)}</div>'
    rows = f"{report.examples:,} examples ({', '.join(report.formats)})"
    broken = f", {report.broken:,} rows that cannot be used" if report.broken else ""
    counted = f"{units.count(report.loss_tokens.value)} loss tokens, {report.tokens.basis} from bytes"
    return note(f"{report.data}: {rows}{broken}; about {counted}. The file itself is not kept.")


def parameters(answer: Answer) -> str:
    """Parameters by layer set and by role."""
    plan = answer.plan or {}
    adapter, whole = plan["adapter"], plan["model"]["params"]
    rows = [(name, f"{n:,}", units.percent(n / whole)) for name, n in adapter["layer_sets"].items()]
    roles = [(name, f"{n:,}", units.percent(n / whole)) for name, n in adapter["params_by_role"].items() if n]
    rank = adapter["rank"]
    said = [f"{adapter['params_per_rank']:,} parameters for each unit of rank."]
    if adapter["expert_rank"] is not None:
        said.append(f"Experts: {adapter['experts']}, each at rank {adapter['expert_rank']:,}.")
    size = f"{units.byte_size(adapter['bytes'])} in {adapter['dtype']}."
    return (
        table(
            f"Layer sets at rank {rank}",
            ("set", "parameters", "of the model"),
            rows,
            marked=adapter["layers"],
        )
        + table("This adapter, by role", ("role", "parameters", "of the model"), roles)
        + note(" ".join([*said, size]))
    )


def capacity(answer: Answer) -> str:
    """Information against capacity."""
    plan = answer.plan or {}
    found, info = plan["capacity"], plan["information"]
    rows: list[tuple[object, ...]] = [
        ("this adapter holds", units.bits(found["bits"]), f"{found['bits_per_param']:g} bits a parameter")
    ]
    if info is not None:
        unit = "loss tokens" if info["kind"] == "sft" else "episodes"
        counted = f"{info['units']:,} {unit}, {info['bits_per_unit']:g} bit each"
        needed = f"{found['required_rank']:,}" if found["required_rank"] else "none"
        rows += [
            ("the data hold", units.bits(info["bits"]), counted),
            ("used", units.percent(found["utilisation"]), "ample up to 50%, tight up to 100%"),
            ("required rank", needed, "the least that holds them"),
        ]
    return table("Information and capacity", ("", "bits", ""), rows) + (
        note("Both rules are assumed: they say the order of magnitude, not the last rank.") if info else ""
    )


def learning_rate(answer: Answer) -> str:
    """The rate and its law."""
    rate = (answer.plan or {})["learning_rate"]
    if rate["value"] is None:
        return note(rate["reason"] or "No law was fitted on this family of models.", "lp-fair")
    rows = [
        ("LoRA", units.rate(rate["value"]), between(rate["low"], rate["high"], units.rate)),
        ("full fine-tuning", units.rate(rate["full_finetune"]), ""),
        *(
            (
                f"in it, for {each['name']}",
                f"× {each['value']:.3g}",
                f"{each['low']:.3g} to {each['high']:.3g}",
            )
            for each in rate["factors"]
        ),
    ]
    if rate["level"] is None:
        return table("Learning rate", ("", "rate", "best rates of sweeps"), rows) + note(
            rate["about"]["title"]
        )
    batch = f" for a batch of {rate['batch']:,.0f}," if rate["batch"] else ""
    return table("Learning rate", ("", "rate", f"{rate['level']:.0%} of best rates within"), rows) + note(
        f"Law {rate['law']}, family {rate['family']};{batch} Adam, constant schedule."
    )


def compute(answer: Answer) -> str:
    """FLOPs of a token, and of the run."""
    flops = (answer.plan or {})["flops"]
    if flops is None:
        return note("No exact count of FLOPs: see the notes.", "lp-fair")
    masked = flops["masked"]
    rows = [
        ("full fine-tuning", units.flops(flops["full_per_token"]), "100%"),
        ("LoRA", units.flops(flops["lora_per_token"]), units.percent(flops["ratio"])),
        ("LoRA, masked half skipped", units.flops(masked["lora_per_token"]), units.percent(masked["ratio"])),
    ]
    step = flops["step"]
    more = [("attention, of LoRA's", units.percent(flops["attention_share"]))]
    if flops["rule_ratio"] is not None:
        more.append(("the bare rule (2N²+6NR)/3N²", units.percent(flops["rule_ratio"])))
    if flops["break_even_rank"] is not None:
        more.append(("not cheaper from rank", f"{flops['break_even_rank']:,}"))
    if flops["totals"]:
        for name, words in (("lora", "whole run, LoRA"), ("full", "whole run, full fine-tuning")):
            more.append((words, units.flops(flops["totals"][name])))
    head = f"A token, in sequences of {step['seq_len']:,}"
    return table(head, ("", "FLOPs", "of full"), rows, marked="LoRA") + table("More", ("", ""), more)


def _fewest(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "over 4,096"
    shared = f", {found['sequence_parallel']} a sequence" if found["sequence_parallel"] > 1 else ""
    shared += f", {found['expert_parallel']} share the experts" if found["expert_parallel"] > 1 else ""
    return f"{found['gpus']:,}{' recomputing' if found['checkpointing'] != 'none' else ''}{shared}"


def memory(answer: Answer) -> str:
    """Peak memory by part, for the three methods."""
    found = (answer.plan or {})["memory"] or {}
    shown = {METHODS[name]: value for name, value in found.items() if value}
    if not shown:
        return note("The memory of this model is not estimated: see the notes.", "lp-fair")
    parts = parts_of(shown.values())
    rows: list[tuple[object, ...]] = [
        (part, *(units.byte_size(each["parts"].get(part, 0)) for each in shown.values())) for part in parts
    ]
    before = [each["loading"] for each in shown.values()]
    if any(before):
        sizes = (units.byte_size(each["per_gpu_bytes"]) if each else "not known" for each in before)
        rows.append(("before the first step", *sizes))
    rows.append(("peak", *(units.byte_size(each["per_gpu_bytes"]) for each in shown.values())))
    rows.append(("from", *(units.byte_size(each["low"]) for each in shown.values())))
    rows.append(("to", *(units.byte_size(each["high"]) for each in shown.values())))
    within = [each["interval"] for each in shown.values()]
    rows.append(("interval of", *(KIND_WORDS[each["kind"]] for each in within)))
    rows.append(("it holds", *(f"{each['held']:.0%} of {each['judged']} sources" for each in within)))
    rows.append(("it rests on", *(f"{each['runs']} figures of {each['sources']} sources" for each in within)))
    if any(NARROWER[each["kind"]] for each in within):
        words = (NARROWER[each["kind"]].replace("--trainer", "the trainer").replace("--seq-len", "a length")
                 for each in within)  # fmt: skip
        rows.append(("narrower by", *words))
    if answer.card is not None:
        signs = {"yes": "✓ yes", "likely": "~ likely", "unlikely": "✗ unlikely", "no": "✗ no", None: "—"}
        rows.append(("fits", *(signs[each["fit"]] for each in shown.values())))
        rows.append(("fewest GPUs, a sequence each", *(_fewest(each["fewest"]) for each in shown.values())))
    return table("Peak memory of one GPU", ("part", *shown), rows, marked="peak")


def time_and_cost(answer: Answer) -> str:
    """The run and its step."""
    plan = answer.plan or {}
    time, cost = plan["time"], plan["cost"]
    if time is None:
        return note("Choose a GPU to see time, and data for the time and cost of the whole run.")
    step, rows = time["step"], []
    if time["seconds"] is not None:
        rows.append(
            ("run", units.duration(time["seconds"]), between(time["low"], time["high"], units.duration))
        )
    rows.append(("step", units.duration(step["seconds"]), between(step["low"], step["high"], units.duration)))
    rows.append(("tokens a second", f"{step['tokens_per_s']:,.0f}", ""))
    if step["mfu"] is not None:
        rows.append(("of the peak (MFU)", units.percent(step["mfu"]), ""))
    if cost and cost["usd"] is not None:
        price = cost["price"]
        rows.append(("cost", dollars(cost["usd"]), between(cost["low"], cost["high"], dollars)))
        rows.append(
            (
                "price of a GPU and hour",
                dollars(price["usd_per_gpu_hour"]),
                between(price["low"], price["high"], dollars),
            )
        )
    within = time["interval"]
    rows.append(("interval of", TIMED[within["kind"]], time_held(within)))
    return table("Time and cost", ("", "", "90% within"), rows)


def notes(answer: Answer) -> str:
    """Warnings, and the sources of every number."""
    plan = answer.plan or {}
    said = "".join(f"<li>{text(each['message'])}</li>" for each in plan["warnings"])
    rows = []
    for source in plan["sources"]:
        where = text(source["title"])
        if str(source["url"]).startswith(("https://", "http://")):
            where = f'<a href="{text(source["url"])}" target="_blank" rel="noreferrer noopener">{where}</a>'
        rows.append(
            f"<li><b>{text(source['used_for'])}</b>: {where}, {text(source['locator'])}, {text(source['date'])}</li>"
        )
    shown = f'<h3>Notes</h3><ul class="lp-list">{said}</ul>' if said else ""
    return f'{shown}<h3>Sources</h3><ul class="lp-list">{"".join(rows)}</ul>'

"""A fit as a law: the constants by their names, what it was fitted on, and its file for `--law`."""

from __future__ import annotations

import datetime
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import facts
from ...errors import InputError
from ...whole_files import put
from ..law import REFERENCE_WIDTH
from ..law_file import law_text
from .result import FitResult, Regret, SimilarRates

FORM_PARTS = {
    "model_pow": "(2000/hidden_size) ** model_pow",
    "lora_pow": "((2000/hidden_size) ** lora_pow if LoRA else 1)",
    "rank_pow": "((rank/32) ** rank_pow if LoRA else 1)",
    "rank_sat_pow": "(((1 + 8/32) / (1 + 8/rank)) ** rank_sat_pow if LoRA else 1)",
    "batch_pow": "(batch/128) ** batch_pow",
    "steps_pow": "(steps/1000) ** steps_pow",
    "alpha_pow": "((alpha/32) ** alpha_pow if LoRA else 1)",
}


def used_table(result: FitResult) -> SimilarRates | None:
    """The table of rates, where it costs less on models left out than the formula: it is then what the law says."""
    return result.similar if result.similar is not None and result.similar.better else None


def constants(result: FitResult) -> dict[str, Any]:
    """The law's constants, methods, families, spread and covariance.

    A sweep of LoRA runs alone gives LoRA's rates: `base` is a tenth of theirs, by the multiplier of the published
    laws. In a sweep of full runs alone LoRA's rates are ten times theirs.
    """
    own = result.coefficients
    methods = [name for name in ("lora", "full") if name in set(result.cells["method"])]
    multiplier = facts.rate_contexts()["full-finetune"].value
    base = math.exp(own["base"])
    if len(methods) == 2:
        multiplier = math.exp(own["m_lora"])
    elif methods == ["lora"]:
        base /= multiplier
    out: dict[str, Any] = {
        "base": base, "lora_multiplier": multiplier, "reference_width": REFERENCE_WIDTH,
        **{name: own[name] for name in FORM_PARTS if name in own},
        "families": sorted(set(result.cells["family"])), "methods": methods,
    }  # fmt: skip
    out.setdefault("lora_pow", 0.0)
    family = result.terms["family"]
    if "family" in result.form.split("+") and isinstance(family, Mapping):
        out["multipliers"] = {name: one.value for name, one in family.items() if name != "population"}
    width = {c[10:-1]: value for c, value in own.items() if c.startswith("model_pow[")}
    if width:
        out["exponents"] = {name: own["model_pow"] + value for name, value in width.items()}
    spread = result.spread
    if (tabled := used_table(result)) is not None:
        spread = tabled.spread
        out["rates"] = {
            family: {str(rank): rate for rank, rate in row.items()} for family, row in tabled.rates.items()
        }
    out["spread"] = {name: value for name, value in spread.items() if value is not None}
    out["covariance"] = {one: dict(row) for one, row in result.covariance.items()}
    return out


def ranges(result: FitResult) -> dict[str, list[float]]:
    """The lowest and highest width, rank (LoRA), batch, steps and alpha of the cells; without what is not given."""
    found = {}
    for name in ("hidden_size", "rank", "batch", "steps", "alpha"):
        cells = result.cells
        values = cells.loc[cells["method"] == "lora", name] if name in ("rank", "alpha") else cells[name]
        if len(values) and values.notna().all():
            low, high = float(values.min()), float(values.max())
            found[name] = [int(low) if low == int(low) else low, int(high) if high == int(high) else high]
    lora = result.cells[result.cells["method"] == "lora"]
    if "alpha" in found and found["alpha"][0] < found["alpha"][1] and "alpha_pow" not in result.coefficients:
        share = (lora["alpha"] / lora["rank"]).round(9)
        if share.nunique() == 1:
            found["alpha_over_rank"] = [float(share.iloc[0])] * 2
    return found


def regrets(result: FitResult) -> dict[str, float]:
    """Out-of-sample regret in percent, in sample where nothing could be left out: mean by both interpolations, and
    median, p90 and max by quadratic interpolation."""
    out: dict[str, float] = {}
    scored = result.scored if (tabled := used_table(result)) is None else tabled.scored
    names = (
        ("left_out", "leave_one_model_out"),
        ("family_out", "leave_one_family_out"),
        ("in_sample", "in_sample"),
    )
    for name, found in names:
        if name == "in_sample" and out:
            continue
        for kind, suffix in (("quadratic", ""), ("log-linear", "_log_linear")):
            one: Regret | None = scored[kind][found]
            if one is None:
                continue
            out[f"{name}_mean{suffix}"] = one.mean
            if not suffix:
                out |= {f"{name}_median": one.median, f"{name}_p90": one.p90, f"{name}_max": one.max}
    return out


def form_text(result: FitResult) -> str:
    """The law's formula in words."""
    if used_table(result) is not None:
        return (
            "lr = rates[family or population][rank], straight in log rate and log rank between ranks; "
            "over lora_multiplier for full fine-tuning"
        )
    parts = ["base", "(lora_multiplier if LoRA else 1)"]
    if "family" in result.form.split("+"):
        parts.append("multiplier[family]")
    parts += [text for name, text in FORM_PARTS.items() if name in result.coefficients]
    return "lr = " + " * ".join(parts)


def _settings(found: Mapping[str, list[float]]) -> str:
    """Batch, steps and alpha in words."""
    told = []
    for name in ("batch", "steps", "alpha"):
        if name in found:
            low, high = found[name]
            told.append(f"{name} {low:g}" if low == high else f"{name} {low:g} to {high:g}")
        else:
            told.append(f"{name} not given")
    return ", ".join(told)


def law_of(result: FitResult, *, id: str, sweep: str) -> dict[str, Any]:
    """A fit as an entry of a law file. `sweep` names where the runs are."""
    found, regret = ranges(result), regrets(result)
    what = result.form if used_table(result) is None else "rates of similar sweeps"
    caution = "" if result.status == "converged" else f"{result.status}: {result.message}"
    if "left_out_mean" in regret:
        text = (
            f"Out of sample, each model predicted from the others, it costs {regret['left_out_mean']:.2f}% of loss "
            f"on average and {regret['left_out_p90']:.2f}% in one of ten cells (quadratic interpolation)."
        )
    else:
        text = f"In sample it costs {regret['in_sample_mean']:.2f}% of loss on average; one model cannot tell more."
    methods = " and ".join(
        {"lora": "LoRA", "full": "full fine-tuning"}[m] for m in constants(result)["methods"]
    )
    n = f"{result.n_models} model{'s' * (result.n_models > 1)} of {result.n_families} famil"
    n += "ies" if result.n_families > 1 else "y"
    source = {
        "title": f"lora-plan fit of {sweep}", "url": sweep, "locator": f"{result.n_runs} runs, form {what}",
        "date": datetime.date.today().isoformat(), "kind": "derived",
    }  # fmt: skip
    return {
        "id": id, "title": f"Fit to {sweep}: {what}", "form": form_text(result), **constants(result),
        "ranges": found,
        "fitted_on": f"{n}, {result.n_sweeps} cells of {sweep}: {methods}, {_settings(found)}",
        "regret_percent": regret, "regret_text": text, "caution": caution, "source": source,
    }  # fmt: skip


def check_law_path(path: str | os.PathLike[str]) -> None:
    """Refuse a file for a law that has another ending or no folder, before anything is fitted."""
    target = Path(path)
    if target.suffix.lower() != ".json":
        raise InputError("out", os.fspath(path), "a file that ends in .json")
    if not target.parent.is_dir():
        raise InputError("out", os.fspath(path), "a file in a folder that exists")


def write_law(result: FitResult, path: str | os.PathLike[str], sweep: str) -> None:
    """Write a fit as a file for `--law`, whole or not at all. Raises InputError."""
    check_law_path(path)
    id = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("-") or "law"
    text = law_text(law_of(result, id=id, sweep=sweep))
    try:
        put(path, text)
    except OSError as error:
        raise InputError(
            "out", os.fspath(path), "a file that can be written", f"{error.strerror}."
        ) from error

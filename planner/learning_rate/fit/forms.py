"""Forms of a law as sums of named terms, and the design matrix of a form over the cells of a sweep.

Every term is linear in log rate:

    log LR = log base + [LoRA] log m_lora + (model_pow + [LoRA] lora_pow) log(2000 / hidden_size) + family + [LoRA]
    (rank_pow log(rank / 32) or rank_sat_pow log((1 + 8/32) / (1 + 8/rank))) + batch_pow log(batch / 128) +
    steps_pow log(steps / 1000) + [LoRA] alpha_pow log(alpha / 32)

`width` is model_pow, one for all families; `width_by_family` is the article's, one for each. Effects of a family (its
own multiplier, or its own model_pow) are partially pooled: a deviation u from the population costs pooling * u^2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, hint
from ...schema import Notice
from ..law import (
    REFERENCE_ALPHA,
    REFERENCE_BATCH,
    REFERENCE_RANK,
    REFERENCE_STEPS,
    REFERENCE_WIDTH,
    SATURATION_RANK,
)
from .cells import Cells, Floats, Ints, codes

# The terms in the order of the columns, and what has to vary in a sweep for each.
TERMS = {
    "method": "the method (lora and full)",
    "width": "hidden_size",
    "width_by_family": "hidden_size or family",
    "lora_width": "hidden_size within both methods",
    "family": "family",
    "rank": "rank",
    "rank_sat": "rank, in three values",
    "batch": "batch",
    "steps": "steps",
    "alpha": "alpha",
}
# Named forms; "+" adds terms. The method's multiplier is in every form where a sweep has both methods.
NAMED = {"constant": (), "article": ("width_by_family",)}
GIVEN = ("batch", "steps", "alpha")  # optional columns that terms depend on
EXPONENTS = {
    "width": "model_pow", "lora_width": "lora_pow", "rank": "rank_pow", "rank_sat": "rank_sat_pow",
    "batch": "batch_pow", "steps": "steps_pow",
    "alpha": "alpha_pow",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Features:
    """What a law knows of each cell: logs against the references, methods, families and models as numbers."""

    width: Floats
    rank: Floats
    rank_sat: Floats
    batch: Floats
    steps: Floats
    alpha: Floats
    lora: NDArray[np.bool_]
    family: Ints
    families: tuple[str, ...]
    model: Ints
    models: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many cells."""
        return len(self.width)


def features_of(cells: Cells) -> Features:
    """The features of the cells. A batch, number of steps or alpha that is not given for every cell counts as the
    reference, so that no term depends on it."""
    table = cells.table
    lora = (table["method"].astype(str) == "lora").to_numpy()

    def logs(column: str, reference: float) -> Floats:
        return np.asarray(np.log(table[column].to_numpy(dtype=float, na_value=np.nan) / reference))

    def given(column: str, reference: float) -> Floats:
        found = logs(column, reference)
        wanted = lora if column == "alpha" else np.ones(len(found), dtype=bool)
        return np.where(wanted, found, 0.0) if np.isfinite(found[wanted]).all() else np.zeros(len(found))

    ranks = np.where(lora, table["rank"].to_numpy(dtype=float), REFERENCE_RANK)
    rank = np.log(ranks / REFERENCE_RANK)
    rank_sat = np.log((1 + SATURATION_RANK / REFERENCE_RANK) / (1 + SATURATION_RANK / ranks))
    family, families = codes(table, "family")
    model, models = codes(table, "model")
    return Features(
        -logs("hidden_size", REFERENCE_WIDTH), rank, rank_sat, given("batch", REFERENCE_BATCH),
        given("steps", REFERENCE_STEPS),
        given("alpha", REFERENCE_ALPHA), lora, family, tuple(families), model, tuple(models),
    )  # fmt: skip


def parse_form(text: str) -> tuple[str, ...]:
    """The terms of a form written as a name (constant, article) or as terms joined by "+"; a constant's name
    (rank_pow) stands for its term."""
    found: list[str] = []
    by_constant = {constant: term for term, constant in EXPONENTS.items()}
    for part in (piece.strip() for piece in text.lower().split("+")):
        if part in NAMED:
            found += NAMED[part]
        elif part in TERMS or part in by_constant:
            found.append(by_constant.get(part, part))
        else:
            choices = (*NAMED, *TERMS)
            expected = f"auto, or terms joined by + out of {', '.join(choices)}"
            raise InputError("form", text, expected, hint(part, choices).strip())
    if "width" in found and "width_by_family" in found:
        raise InputError("form", text, "either width or width_by_family")
    if "rank" in found and "rank_sat" in found:
        raise InputError("form", text, "either rank or rank_sat")
    return tuple(term for term in TERMS if term in found)


def form_name(terms: Iterable[str]) -> str:
    """The name of a form, as `parse_form` reads it; the method's multiplier goes without saying."""
    return "+".join(term for term in terms if term != "method") or "constant"


@dataclass(frozen=True, eq=False)
class Design:
    """The design matrix of a form: a row a cell, a column a coefficient. `pooled` marks the columns that cost
    pooling * u^2; `terms` are those of the form that the sweep can tell apart."""

    terms: tuple[str, ...]
    columns: tuple[str, ...]
    matrix: Floats
    pooled: NDArray[np.bool_]


def _varies(values: Floats) -> bool:
    return bool(len(values)) and bool(np.ptp(values) > 1e-9)


def can_tell(term: str, f: Features) -> bool:
    """Whether what the term depends on varies in the sweep."""
    both = bool(f.lora.any() and not f.lora.all())
    if term == "method":
        return both
    if term == "family":
        return len(f.families) > 1
    if term == "rank_sat":
        return len(np.unique(f.rank[f.lora])) > 2
    if term == "lora_width":
        return both and _varies(f.width[f.lora]) and _varies(f.width[~f.lora])
    if term == "width_by_family":
        return len(f.families) > 1 and _varies(f.width)
    values = {
        "width": f.width,
        "rank": f.rank[f.lora],
        "batch": f.batch,
        "steps": f.steps,
        "alpha": f.alpha[f.lora],
    }
    return _varies(values[term])


def _columns(term: str, f: Features) -> list[tuple[str, Floats, bool]]:
    """Name, values and pooling of the columns of a term."""
    lora = f.lora.astype(float)
    single = {
        "method": ("m_lora", lora), "width": ("model_pow", f.width), "lora_width": ("lora_pow", f.width * lora),
        "rank": ("rank_pow", f.rank * lora), "rank_sat": ("rank_sat_pow", f.rank_sat * lora),
        "batch": ("batch_pow", f.batch), "steps": ("steps_pow", f.steps),
        "alpha": ("alpha_pow", f.alpha * lora),
    }  # fmt: skip
    if term in single:
        return [(*single[term], False)]
    weight = f.width if term == "width_by_family" else np.ones(f.n)
    label = "model_pow" if term == "width_by_family" else "family"
    shared = [("model_pow", f.width, False)] if term == "width_by_family" else []
    own = [(f"{label}[{name}]", weight * (f.family == i), True) for i, name in enumerate(f.families)]
    return shared + own


def make_design(terms: Iterable[str], f: Features) -> tuple[Design, tuple[Notice, ...]]:
    """The design of a form, without the terms that the sweep cannot tell; those are named."""
    notes: list[Notice] = []
    used: list[str] = []
    columns: list[tuple[str, Floats, bool]] = [("base", np.ones(f.n), False)]
    wanted = list(terms)
    if "width_by_family" in wanted and len(f.families) == 1:
        wanted[wanted.index("width_by_family")] = "width"
    for term in ["method", *(t for t in wanted if t != "method")]:
        more = _columns(term, f) if can_tell(term, f) else []
        free = np.column_stack([v for _, v, pooled in columns + more if not pooled])
        if more and np.linalg.matrix_rank(free, tol=1e-6 * np.sqrt(f.n)) == free.shape[1]:
            used.append(term)
            columns += more
        elif term in wanted:
            reason = f"the sweep does not vary {TERMS[term]}" if not more else "it goes with other terms"
            notes.append(Notice("term-not-identified", f"No term {term}: {reason}."))
    matrix = np.column_stack([values for _, values, _ in columns])
    names = tuple(name for name, _, _ in columns)
    return Design(tuple(used), names, matrix, np.array([p for _, _, p in columns])), tuple(notes)


def candidates(f: Features) -> list[tuple[str, ...]]:
    """The forms that are compared: every combination of width (none, shared, by family), rank (none, a power,
    saturating) and family, and for the best of them each further term that the sweep can tell is tried by
    `compare`."""
    found: list[tuple[str, ...]] = []
    for width in ((), ("width",), ("width_by_family",)):
        for family in ((), ("family",)):
            for rank in ((), ("rank",), ("rank_sat",)):
                terms = (*width, *family, *rank)
                if "width_by_family" in terms and "family" in terms:
                    continue  # both give each family a level of its own
                if all(can_tell(term, f) for term in terms):
                    found.append(tuple(term for term in TERMS if term in terms))
    return found

"""What the best rule costs on models left out when the kind of rule is chosen without them too.

    python tools/nested_regret.py

The figures of docs/learning_rate.md for one rule are out of sample, but which rule ships was chosen on the same
cells. Here every choice is made anew without each model: among all formulas with each strength of pooling, the best
constants, and the rates of similar sweeps with each reach, share and weight of the log-linear reading, the one that
costs least on the other models, each of them predicted without itself (mean of both readings). The model that was
left out is then scored at that rule's rates. tools/write_regret.py puts the figures into the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from planner import facts
from planner.learning_rate.fit.cells import Floats, make_cells
from planner.learning_rate.fit.compare import POOLINGS, Data
from planner.learning_rate.fit.curves import INTERPOLATIONS
from planner.learning_rate.fit.forms import candidates, form_name, make_design
from planner.learning_rate.fit.losses import Losses
from planner.learning_rate.fit.similar import REACHES, SHARES
from planner.learning_rate.fit.solve import fit_each, leave_out, refit_each
from planner.learning_rate.sweep import read_sweep
from tools.regret_rows import plain

STRAIGHTS = (0.0, 0.2, 0.5, 0.8, 1.0)


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule without choices: the log rates of all cells without their model, and the summed regret of all other
    models, each predicted without itself and without model g, for every g."""

    kind: str
    name: str
    left_out: Floats
    others: Floats


def both(data: Data, x: Floats) -> Floats:
    """The mean of both readings of the regret."""
    return np.asarray(np.mean([data.regret(x, kind) for kind in INTERPOLATIONS], axis=0))


def _formulas(data: Data, terms: tuple[str, ...], poolings: Sequence[float]) -> list[Rule]:
    """A formula with each strength of pooling, fitted by the interpolation of `data`, side by side."""
    design, _ = make_design(terms, data.features)
    problem, penalties, model = (
        data.problem(design, 0.0),
        data.penalties(design, poolings),
        data.features.model,
    )
    n = int(model.max()) + 1
    theta = fit_each(problem, penalties).theta
    away = leave_out(model)
    held = (design.matrix * refit_each(problem, penalties, theta, away)[:, model]).sum(axis=-1)
    outer, inner = np.triu_indices(n, k=1)
    refitted = refit_each(problem, penalties, theta, away[outer] * away[inner])
    kind = f"formula, {data.interpolation}" if terms else "constant"
    rules = []
    for pooling, left_out, found in zip(poolings, held, refitted, strict=True):
        regret = both(data, found @ design.matrix.T)
        others = np.zeros(n)
        for one, two in ((outer, inner), (inner, outer)):
            np.add.at(others, one, (regret * (model[None] == two[:, None])).sum(axis=1))
        rules.append(Rule(kind, f"{form_name(terms)}, pooling {pooling:g}", left_out, others))
    return rules


def _similar(data: Data, losses: Losses, option: tuple[float, float, float]) -> Rule:
    """The rates of similar sweeps with these constants."""
    straight, reach, share = option
    regret, model = losses.mixed(straight), data.features.model
    same = losses.family[:, None] == losses.family
    weights = losses.near(losses.log_rank, reach) * np.where(same, 1.0, share)
    total = (weights * (model[:, None] != model)) @ regret
    others = np.zeros(int(model.max()) + 1)
    for g in range(len(others)):
        mine: NDArray[np.bool_] = model == g
        less = total - weights[:, mine] @ regret[mine]
        others[g] = both(data, losses.at[np.argmin(less, axis=1)])[~mine].sum()
    name = f"log-linear {straight:g}, reach {reach:g}, share {share:g}"
    return Rule("similar sweeps", name, losses.at[np.argmin(total, axis=1)], others)


@cache
def rules() -> tuple[Data, tuple[Rule, ...]]:
    """The shipped sweep, and every rule that is chosen from."""
    cells = make_cells(read_sweep(facts.data_dir() / "sweeps" / "tinker_sft.csv"))
    found = []
    for kind in INTERPOLATIONS:
        data = plain(cells, kind)
        for terms in candidates(data.features):
            pooled = make_design(terms, data.features)[0].pooled.any()
            found += _formulas(data, terms, POOLINGS if pooled else (0.0,))
    data = plain(cells, "quadratic")
    losses = Losses.of(data)
    found += [_similar(data, losses, (s, r, h)) for s in STRAIGHTS for r in REACHES for h in SHARES]
    return data, tuple(found)


def nested() -> tuple[Floats, Counter[str]]:
    """The log rates of all cells by the rule that is best without their model, and the kinds chosen."""
    data, every = rules()
    pick = np.argmin(np.stack([rule.others for rule in every]), axis=0)
    model = data.features.model
    x = np.stack([rule.left_out for rule in every])[pick[model], np.arange(data.cells.n)]
    return x, Counter(every[i].kind for i in pick)


def main() -> None:
    """Print the figures."""
    data, every = rules()
    x, kinds = nested()
    print(f"{len(every)} rules; chosen without each model: {dict(kinds)}")
    for kind in INTERPOLATIONS:
        print(f"{kind}: {data.regret(x, kind).mean():.3f}%")
    for rule in sorted(every, key=lambda one: float(both(data, one.left_out).mean()))[:8]:
        print(f"{both(data, rule.left_out).mean():.3f}%  {rule.kind}: {rule.name}")


if __name__ == "__main__":
    main()

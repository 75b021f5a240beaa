"""Fit the law that ships, and write it into data/laws.toml.

    python tools/fit_law.py [--check]

Fits data/sweeps/tinker_sft.csv (`planner.fit`, form chosen by regret out of sample) and replaces the block of
laws.toml between the two marks; `python tools/import_facts.py --index-only` then makes the JSON that the planner
reads. With --check nothing is written, and the exit code is 1 where the block differs.
"""

from __future__ import annotations

import argparse
import json
import sys

from planner import facts
from planner.learning_rate.fit import FitResult, fit
from planner.learning_rate.fit.as_law import constants, form_text, regrets, used_table
from planner.learning_rate.lookup import DEFAULT_LAW

BEGIN = "# >>> written by tools/fit_law.py\n"
END = "# <<<\n"


def number(value: float) -> str:
    """Five significant digits, as TOML reads them."""
    text = f"{value:.5g}"
    return text if any(c in text for c in ".e") else f"{text}.0"


def table(values: dict[str, float]) -> str:
    """An inline table."""
    return "{ " + ", ".join(f'"{key}" = {number(value)}' for key, value in values.items()) + " }"


def block(result: FitResult) -> str:
    """The [[law]] of a fit whose form is family+rank_sat and whose similar sweeps cost less."""
    table_of = used_table(result)
    if result.form != "family+rank_sat" or table_of is None:
        raise SystemExit(f"the best form is {result.form}, better than a table: {table_of is None}")
    law, regret = constants(result), regrets(result)
    cells = result.to_frame()
    covariance = "\n".join(f'"{one}" = {table(dict(row))}' for one, row in law["covariance"].items())
    rates = "\n".join(f'"{family}" = {table(row)}' for family, row in law["rates"].items())
    text = f"""\
[[law]]
id = "{DEFAULT_LAW}"
title = "Our fit to the shipped sweep: the rates that cost similar sweeps least, by family and rank"
status = "complete"
form = "{form_text(result)}"
base = {number(law["base"])}
lora_multiplier = {number(law["lora_multiplier"])}
reference_width = 2000
lora_pow = 0.0
rank_sat_pow = {number(law["rank_sat_pow"])}
population = true
families = {json.dumps(law["families"])}
multipliers = {table(law["multipliers"])}
spread = {table(law["spread"])}
ranges = {{ hidden_size = [{cells["hidden_size"].min()}, {cells["hidden_size"].max()}], rank = [{cells["rank"].min()}, {cells["rank"].max()}], batch = [128, 128], steps = [780, 780] }}
fitted_on = "{result.n_models} models of {result.n_families} families, {result.n_sweeps} cells of model and rank: Tulu 3 SFT, batch 128, 780 steps, alpha 32, LoRA only"
regret_percent = {table(regret)}
regret_text = "Out of sample, each model predicted from the others, it costs {regret["left_out_mean"]:.2f}% of loss on average read by quadratic interpolation and {regret["left_out_mean_log_linear"]:.2f}% read log-linearly; the best constant costs more by both: docs/learning_rate.md."
notes = "Reach {table_of.reach:g} in log rank, share {table_of.share:g} for other families, both chosen on models left out; for unknown families, whose rates alone differ from those of lora-plan-2026-11-28, families count alike, the reach is {table_of.unknown.reach:g}, the log-linear reading weighs {table_of.unknown.straight:g} and a rank's own rate {table_of.unknown.own:g}, chosen so that the greatest excess over a constant in any family left out is least. base, rank_sat_pow, multipliers and covariance are those of the formula family+rank_sat, from which the widening of the interval outside of the swept ranks comes. The sweep has LoRA runs only: the multiplier between LoRA and full fine-tuning is that of the article and tinker-cookbook, not fitted here. Width is left out because it did not help out of sample."
source = {{ title = "Fit by tools/fit_law.py to data/sweeps/tinker_sft.csv (sweep of thinking-machines-lab/tinker-cookbook)", url = "https://github.com/thinking-machines-lab/tinker-cookbook", locator = "tinker_cookbook/recipes/chat_sl/results/sft_sweep.md at commit 9dfcc3a2", date = "2026-11-28", kind = "derived" }}

[law.covariance]
{covariance}

[law.rates]
{rates}
"""  # noqa: E501
    return text


def main() -> int:
    """Fit and write, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the block differs")
    check = parser.parse_args().check
    path = facts.data_dir() / "laws.toml"
    text = path.read_text(encoding="utf-8")
    made = BEGIN + block(fit(facts.data_dir() / "sweeps" / "tinker_sft.csv")) + END
    start = text.find(BEGIN)
    new = (
        text.rstrip("\n") + "\n\n" + made
        if start < 0
        else text[:start] + made + text[text.index(END) + len(END) :]
    )
    if check:
        print("as fitted" if new == text else "data/laws.toml is out of date")
        return 0 if new == text else 1
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

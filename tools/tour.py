# %% [markdown]
# # A ten-minute tour
#
# You want to fine-tune Llama-3.1-8B with LoRA, and before you rent a GPU you would like to know what it takes.
# This tour goes from the model's name to a config that trains and a PDF for your colleagues. Everything in it
# runs offline, in seconds, and without torch.
#
# To run it yourself: `pip install . jupyterlab` in a checkout, and open `docs/tour.ipynb`.
#
# Each number carries its *basis*: `exact` (counted), `analytic` (a formula of the step), `fitted` (a law with an
# interval), `simulated`, `measured`, or `assumed` (a rule; give the planner something better and it uses that).
#
# ## The model and the adapter

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd

import planner
from planner import units

pd.options.display.max_colwidth, pd.options.display.width = 110, 160
MODEL = "meta-llama/Llama-3.1-8B"
plan = planner.estimate(MODEL, rank=32, layers="all-linear")
plan

# %% [markdown]
# A `Plan` shows itself in a notebook. Parameters and FLOPs are exact: they are counted from the model's config,
# which the catalogue holds, and equal what transformers, PEFT and torch's own counter give. There are no data
# yet, so nothing is said about capacity, and memory is that of one sequence of 2,048 tokens.
#
# This is the line that PEFT will print when it trains the adapter:

# %%
print(plan.adapter.peft_line)

# %% [markdown]
# Tables come as pandas frames. Where the adapter's parameters are (exact):

# %%
plan.to_frame("params")

# %% [markdown]
# And what the same rank would hold on other sets of layers (exact). Attention alone has less than a third of
# `all-linear`, which is why it comes out behind at an equal rank.

# %%
plan.to_frame("layer_sets")

# %% [markdown]
# ## Your data
#
# `library.jsonl` is a small file of chats from a library's help desk, one row a line. The planner reads all of
# it, and says what it could not use instead of passing over it.

# %%
data = planner.dataset("examples/library.jsonl")
print(f"examples      {data.examples}, {data.formats}")
print(
    f"tokens        {data.tokens.value:,} ({data.tokens.low:,} to {data.tokens.high:,}), {data.tokens.basis}"
)
print(f"that we train {data.loss_tokens.value:,} ({data.loss_tokens.low:,} to {data.loss_tokens.high:,})")
print(f"duplicates    {data.duplicates_exact} exact, {data.duplicates_near} near")
for row in data.broken_rows:
    print(f"broken        {row.file}, line {row.line}: {row.reason}")
for notice in data.warnings:
    print(f"note          {notice.message}")

# %% [markdown]
# Bytes are measured, tokens are assumed: without a tokenizer they are bytes divided by what most tokenizers need,
# with an interval. With `tokenizer=` and a model's folder they are counted.
#
# What does the file ask of the adapter? A loss token brings about one bit (assumed, a rule of *LoRA Without
# Regret*):

# %%
small = planner.estimate(MODEL, rank=32, layers="all-linear", data="examples/library.jsonl")
print(f"the data hold    {units.bits(small.information.bits)}")
print(f"the adapter can  {units.bits(small.capacity.bits)}")
print(f"rank needed      {small.capacity.required_rank}")

# %% [markdown]
# Some thirty chats fit an adapter of any rank. A real set is larger, so from here on the tour takes 50 million
# loss tokens, in sequences of 2,048 and batches of 32. Put your own file into `data=` to see yours.
#
# ## Capacity, and the price of a rank

# %%
RUN = {"tokens": "50M", "seq_len": 2048, "batch": 32}
plan = planner.estimate(MODEL, rank=32, layers="all-linear", curves=True, **RUN)
held = plan.capacity
print(
    f"{held.verdict}: {held.utilisation:.0%} used ({held.utilisation_low:.0%} to {held.utilisation_high:.0%})"
)
print(
    f"rank {held.required_rank} is enough ({held.required_rank_low} to {held.required_rank_high}), {held.basis}"
)

# %% [markdown]
# Capacity is a rule: 2 bits a parameter, from 1.2 in our own runs on adapters to 3.6 of plain memorisation. The
# interval is theirs. The price of a rank is a law fitted to published runs: how much more loss an adapter ends
# with than one of ample rank, with an interval that holds 80%.

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.6))
for curve in held.curves:
    if curve.layers in ("attention", "mlp", "all-linear"):
        ranks = [point.rank for point in curve.points]
        regrets = [point.regret for point in curve.points]
        (line,) = axes.loglog(
            ranks, [100 * regret.value for regret in regrets], marker="o", label=curve.layers
        )
        low, high = [100 * regret.low for regret in regrets], [100 * regret.high for regret in regrets]
        axes.fill_between(ranks, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
axes.set_xticks(ranks, ranks, minor=False)
axes.minorticks_off()
axes.yaxis.set_major_formatter("{x:g}")
axes.set(xlabel="rank", ylabel="more loss than an ample rank, %")
axes.set_title("The price of a rank, 50 M loss tokens (fitted)")
axes.legend()
figure.tight_layout()
plt.show()

# %%
pd.DataFrame(
    {
        "rank": point.rank,
        "parameters": point.params,
        "of capacity used": units.percent(point.utilisation),
        "verdict": point.verdict,
        "more loss": units.percent(point.regret.value),
    }
    for curve in held.curves
    if curve.layers == "all-linear"
    for point in curve.points
    if point.rank in (1, 4, 8, 16, 32, 64)
)

# %% [markdown]
# Rank 32 costs little here; rank 1 is dear. Attention alone needs about three times the rank for the same loss.
#
# ## The learning rate
#
# A law fitted to a published sweep of 26 models gives the rate, and each factor beside it says why it is there
# and on which basis. The interval holds the best rate in 90% of cases.

# %%
steps = round(50_000_000 / (32 * 2048))
rate = planner.lr(MODEL, rank=32, steps=steps, batch=32)
print(f"{rate.value:.2e} ({rate.low:.1e} to {rate.high:.1e}), {rate.basis}, by {rate.law}")
for factor in rate.factors:
    print(f"  x {factor.value:.2f} ({factor.low:.2f} to {factor.high:.2f}), {factor.basis}: {factor.reason}")
print("worth sweeping:", ", ".join(f"{value:.1e}" for value in rate.grid))

# %% [markdown]
# The interval is wide, mostly since the batch is a quarter of that in the sweep and what a batch does to LoRA's
# rate is assumed. A sweep over the grid pays for itself; `planner.fit` then makes a law of it that is yours.
#
# ## Memory on a GPU: LoRA, QLoRA, full
#
# Would one RTX 4090 with 24 GB do? One sequence at a time, 32 of them to a step, layers computed again in the
# backward pass:

# %%
HOW = {"gpu": "rtx4090", "accumulation": 32, "checkpointing": "layer", "layers": "all-linear"}
found = planner.compare(MODEL, ranks=32, **RUN, **HOW)
pd.DataFrame(
    {
        "method": column.method,
        "peak a GPU": units.byte_size(column.memory.per_gpu_bytes),
        "from": units.byte_size(column.memory.low),
        "to": units.byte_size(column.memory.high),
        "fits": column.memory.per_gpu_bytes <= column.memory_bytes,
        "fewest GPUs": column.fewest.gpus,
        "time": units.duration(column.time.seconds),
        "USD": f"{column.cost.usd:.2f}",
    }
    for column in found.columns
)

# %%
for notice in found.warnings:
    print("note:", notice.message)

# %% [markdown]
# Memory is analytic: what is alive at the step's worst moment, part by part. Time is fitted to published runs,
# and the cost is time by dated prices of providers. Full fine-tuning's time is that of a card with more memory
# and this speed. LoRA is slower than it here, in spite of fewer FLOPs, for the reason in the note. What the note
# advises:

# %%
faster = planner.compare(MODEL, ranks=32, **RUN, **HOW, adapter_dtype="bfloat16")
for column in faster.columns:
    print(
        f"{column.method:<6} {units.byte_size(column.memory.per_gpu_bytes)}, {units.duration(column.time.seconds)}"
    )

# %% [markdown]
# Where the memory of the first table goes:

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.4))
parts = pd.DataFrame({column.method: column.memory.parts() for column in found.columns}).T / 2**30
parts.loc[:, parts.sum() > 0].iloc[::-1].plot.barh(stacked=True, ax=axes, width=0.6, colormap="tab10")
axes.axvline(found.columns[0].memory_bytes / 2**30, color="black", linestyle="--", label="RTX 4090")
axes.set(xlabel="GiB a GPU at the peak (analytic)", title="What is in memory at the worst moment")
axes.legend(fontsize="small")
figure.tight_layout()
plt.show()

# %% [markdown]
# LoRA fits by little, and the upper end of its interval does not. QLoRA fits with room, at the price of time. The
# optimizer's states are what full fine-tuning pays for.
#
# To check such a peak tensor by tensor, `planner.simulate` runs the real transformers model with PEFT on torch's
# meta device, without weights or GPU. It needs torch (`pip install 'lora-plan[validate]'`), so the tour leaves it
# out.
#
# ## The best plan for a budget
#
# Instead of trying set-ups by hand, say what you have: 20 USD and six hours.

# %%
best = planner.plan(MODEL, **RUN, gpu="h100,a100-80gb,l40s,rtx4090", budget=20, deadline="6h")
print(f"{best.feasible:,} of {best.candidates:,} set-ups keep to the limits; the best:")
print(f"{best.best.choice.text}: {units.duration(best.best.seconds)}, {best.best.usd:.2f} USD")
for notice in best.warnings:
    print("note:", notice.message)

# %% [markdown]
# "Best" is the least loss (what no sweep could tell apart counts as equal), then the least cost, then the least
# time. Set-ups that lose to no other in all three (time and loss are fitted, prices measured on their dates):

# %%
frontier = pd.DataFrame(
    {
        "set-up": one.choice.text,
        "hours": round(one.seconds / 3600, 2),
        "USD": round(one.usd, 2),
        "more loss, %": round(100 * one.regret.value, 2),
    }
    for one in best.frontier
).sort_values(["hours", "USD"], ignore_index=True)
frontier.head(8)

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.6))
loss = frontier["more loss, %"]
shown = axes.scatter(frontier["hours"], frontier["USD"], c=loss, cmap="viridis_r", norm="log", s=50)
axes.plot(
    best.best.seconds / 3600, best.best.usd, "o", markersize=13, markerfacecolor="none", color="crimson"
)
figure.colorbar(shown, label="more loss, % (fitted)")
axes.set(xlabel="hours (fitted)", ylabel="USD", title="No set-up beats these; the ring is the plan's choice")
figure.tight_layout()
plt.show()

# %% [markdown]
# And why the neighbours of the best plan lose:

# %%
for rejected in best.rejected[:6]:
    print(f"{rejected.change}: {rejected.kind}, {rejected.reason}")

# %% [markdown]
# ## Into your trainer
#
# The plan's choices are options of `estimate` and `export`. TRL's YAML carries the adapter, the rate in TRL's own
# terms, batch, length and precision, and says why beside each. What is left to you is the name of the data set.

# %%
trl = planner.export("trl-sft", **best.options())
print(list(trl.files))
print(trl.text)

# %% [markdown]
# PEFT alone wants an `adapter_config.json`. The parameters that it trains equal the plan's exact count.

# %%
print(planner.export("peft", MODEL, rank=32, layers="all-linear").text[:420], "...")

# %% [markdown]
# ## A config that you already have
#
# `examples/axolotl.yml` is a config as one finds it. `planner.review` reads it and says what looks wrong, how
# grave it is, and what to do. Each finding has a source.

# %%
review = planner.review("examples/axolotl.yml", gpu="h100", gpus=1)
for finding in review.findings:
    print(f"{finding.severity}: {finding.message}\n    {finding.advice} [{finding.source.title}]")

# %% [markdown]
# ## For your colleagues
#
# `planner.report` writes the plan as a PDF (or HTML, or Markdown), with figures, what could go wrong, every
# source, and the command that makes it again.

# %%
with TemporaryDirectory() as folder:
    place = Path(folder) / "plan.pdf"
    written = planner.report(MODEL, place, rank=32, **RUN, **HOW)
    print(place.read_bytes()[:4].decode(), written["kind"], written["paper"])
print("sections:", ", ".join(written["sections"]))
print("figures: ", ", ".join(written["figures"]))

# %% [markdown]
# ## Where each number came from
#
# A plan names its sources, as does its JSON (`plan.to_dict()`).

# %%
for use, source in plan.sources:
    print(f"{use}: {source.title}, {source.date}")

# %% [markdown]
# From here: [how each number is made](methods.md), [data sets](datasets.md), [exports and reviews](exports.md),
# [the learning rate](learning_rate.md), [memory](memory.md), and what our own runs say of the claims behind all
# this ([evidence](evidence.md)). `planner.validate` trains small models to test such a claim on your machine.

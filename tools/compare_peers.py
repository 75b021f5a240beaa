"""Other calculators of memory on the same published runs: data/measured/peers.csv and docs/peers.md.

    python -m tools.compare_peers --requests FILE  # every set-up with a published figure, for tools/ask_peers.py
    python -m tools.compare_peers --keep ANSWERS   # their answers into data/measured/peers.csv, and the page
    python -m tools.compare_peers                  # the page with today's estimates beside the answers that are kept

Beside them stand this planner's estimates: of the sets that came later as they were predicted first, before anybody
looked, and of the first table those that no constant was fitted on. Where tensors alone were measured, what another
calculator calls overhead is left away, as it is from ours.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from planner import facts
from planner.estimator import load
from planner.running import running
from planner.setup import Setup
from tools.compare_published_memory import compared, estimates, predicted
from tools.published_memory import Case, cases, model_of
from tools.published_memory_later import RESTS_ON, RUN, blind, later, options_of

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "measured" / "peers.csv"
PAGE = ROOT / "docs" / "peers.md"
ASKED = (
    "micro_batch", "seq_len", "checkpointing", "quantize", "optimizer", "attention_kernel", "precision", "gpus",
    "sharding", "tensor_parallel", "pipeline_parallel", "offload", "accumulation",
)  # fmt: skip
OWN = "lora-plan"
FEWEST = 10
ALSO = ("method", "sequence_parallel", "expert_parallel")
ONLY_TENSORS = ("allocated", "reserved")
METHODS = {"lora": "LoRA", "qlora": "QLoRA", "full": "full"}
FIELDS = ("case", "method", "stated", "metric", "measured", "ours", "alike")
ADAPTER = (
    "rank", "targets", "target_regex", "layers", "modules_to_save", "experts", "variant", "layout",
    "target_parameters",
)  # fmt: skip
PEERS = {
    "ftuneai": ("ftuneai 0.4.1", "https://github.com/ritikmahy5/ftune"),
    "unsloth": ("Unsloth Studio, 015bdef0", "https://github.com/unslothai/unsloth"),
    "llm-analysis": ("llm-analysis 0.2.2", "https://github.com/cli99/llm-analysis"),
    "accelerate": ("accelerate 1.15.0, estimate-memory", "https://github.com/huggingface/accelerate"),
}


@dataclass(frozen=True)
class Published:
    """A published figure with our prediction of it, in bytes, and what was run."""

    case: str
    model: Any
    options: Mapping[str, Any]
    stated: bool
    metric: str
    measured: float
    ours: float


def _of_table() -> Iterator[Published]:
    """The first table's figures that state their set-up."""
    for case, found in estimates(each for each in cases()[0] if each.headline)[0]:
        part = "fitted" if case.fitted else "judged"
        ours = compared(case, found).predicted
        name = f"{part} {case.row} {case.source}"
        yield Published(name, model_of(case.model), case.options, True, case.metric, case.measured, ours)


def _of_later() -> Iterator[Published]:
    """Figures of later sets, with first predictions."""
    first = blind()
    for case in later():
        said = first[case.number]
        if case.metric in RUN or case.found not in RESTS_ON or said.problem:
            continue
        options = options_of(replace(case, now=""))
        name = f"{case.found} {case.number} {case.source}"
        yield Published(
            name, model_of(case.model), options, case.stated, case.metric, case.measured, said.predicted
        )


@cache
def published() -> tuple[Published, ...]:
    """Every figure."""
    return (*_of_table(), *_of_later())


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    found = next((config[name] for name in names if config.get(name)), None)
    return found if isinstance(found, int) else None


def _sizes(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model's config, and its sizes in words that all know."""
    resolved, arch = load(model)
    text = {**resolved.config, **(resolved.config.get("text_config") or {})}
    heads = _number(text, "num_attention_heads", "n_head") or 1
    experts = max(matrix.experts for matrix in arch.matrices)
    return dict(resolved.config), {
        "params": arch.params, "hidden": arch.hidden_size, "layers": arch.n_layers, "heads": heads,
        "kv_heads": _number(text, "num_key_value_heads", "num_kv_heads") or heads, "vocab": arch.vocab_size,
        "intermediate": _number(text, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
        or 4 * arch.hidden_size,
        "experts": experts,
        "active": max(matrix.experts_active for matrix in arch.matrices if matrix.experts == experts),
        "gated": any("gate" in matrix.leaf for matrix in arch.matrices),
    }  # fmt: skip


def method_of(setup: Setup) -> str:
    """LoRA on a quantised base is QLoRA, whatever it was called."""
    return "qlora" if setup.method == "lora" and setup.quantize != "none" else setup.method


def request(each: Published) -> dict[str, Any]:
    """What another calculator is asked."""
    made = running(each.model, each.options)
    setup = made.setup
    config, sizes = _sizes(each.model)
    return {
        "case": each.case, "name": made.model, "config": config, "model": sizes,
        **{name: getattr(setup, name) for name in ASKED},
        "method": method_of(setup),
        "rank": made.spec.rank if made.spec else None,
        "targets": sorted({pair.matrix.leaf for pair in made.pairs}),
    }  # fmt: skip


def alike(each: Published) -> float:
    """What `lora-plan` of today says when it is told no more than the others: no trainer, nothing of its program."""
    setup = running(each.model, each.options).setup
    options = {name: value for name, value in each.options.items() if name in ADAPTER}
    options |= {name: getattr(setup, name) for name in (*ASKED, *ALSO) if name != "micro_batch"}
    copies = setup.gpus // (setup.tensor_parallel * setup.pipeline_parallel * setup.sequence_parallel)
    options["batch"] = setup.micro_batch * setup.accumulation * copies
    found = running(each.model, options).memory()
    return predicted(Case("", 0, "A", "", {}, each.metric, each.measured, each.stated), found)


@dataclass(frozen=True)
class Said:
    """A published figure, ours, and what calculators say of it, in bytes, by their names."""

    case: str
    method: str
    stated: bool
    metric: str
    measured: float
    ours: float
    alike: float
    peers: Mapping[str, float]

    @property
    def source(self) -> str:
        """Who published it."""
        return self.case.split(" ", 2)[2]

    @property
    def part(self) -> str:
        """judged or fitted of the first table, or later."""
        first = self.case.split()[0]
        return first if first in ("judged", "fitted") else "later"


Figures = Mapping[str, Mapping[str, float]]  # what calculators say, in bytes, by case and calculator


def answered(answers: Iterable[Mapping[str, Any]]) -> Figures:
    """Their answers as bytes of what was measured: without what they call overhead where tensors alone were."""
    metric = {each.case: each.metric for each in published()}
    found: dict[str, dict[str, float]] = {}
    for answer in answers:
        if "bytes" in answer:
            beyond = answer["beyond"] if metric[answer["case"]] in ONLY_TENSORS else 0
            found.setdefault(answer["case"], {})[answer["peer"]] = answer["bytes"] - beyond
    return found


def keep(figures: Figures) -> None:
    """Write what calculators say beside what was measured, and beside today's estimates."""
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*FIELDS, *PEERS))
        for each in published():
            theirs = figures.get(each.case, {})
            own = [round(value) for value in (each.measured, each.ours, alike(each))]
            method, stated = (
                method_of(running(each.model, each.options).setup),
                "yes" if each.stated else "no",
            )
            shown = [round(theirs[name]) if name in theirs else "" for name in PEERS]
            table.writerow((each.case, method, stated, each.metric, *own, *shown))


def said() -> list[Said]:
    """What is kept."""
    rows = csv.DictReader(io.StringIO(facts.read_data("measured", TABLE.name)))
    return [
        Said(
            row["case"], row["method"], row["stated"] == "yes", row["metric"], float(row["measured"]),
            float(row["ours"]), float(row["alike"]), {name: float(row[name]) for name in PEERS if row[name]},
        )
        for row in rows
    ]  # fmt: skip


def _spread(ratios: Sequence[float]) -> str:
    errors = sorted(abs(ratio - 1) for ratio in ratios)
    ninth = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    within = sum(error <= 0.25 for error in errors) / len(errors)
    return f"{statistics.median(errors):.0%} | {ninth:.0%} | {statistics.median(ratios):.2f} | {within:.0%}"


def table(part: str) -> Iterator[str]:
    """Every calculator on the stated figures that it can say, and ours on the same ones."""
    columns = "median error | 90th percentile | median ratio | within 25%"
    yield f"| calculator | method | figures | sources | {columns} | {OWN}: {columns} | told the same: {columns} |"
    yield "|---|---|" + "---|" * 14
    for peer, (title, url) in PEERS.items():
        for method, word in METHODS.items():
            own = [
                e for e in said() if e.part == part and e.stated and e.method == method and peer in e.peers
            ]
            if len(own) >= FEWEST:
                sources = len({e.source for e in own})
                ratios = ([e.peers[peer] / e.measured for e in own], [e.ours / e.measured for e in own])
                spreads = [_spread(each) for each in (*ratios, [e.alike / e.measured for e in own])]
                yield f"| [{title}]({url}) | {word} | {len(own)} | {sources} | {' | '.join(spreads)} |"


TEXT = """\
# Memory: other calculators on the same runs

Written by `python -m tools.compare_peers` from [peers.csv](../data/measured/peers.csv). Published measurements of
[memory-published.md](memory-published.md), each said by other calculators too: they were given what they have inputs
for (model, method, rank, modules, micro-batch, length, checkpointing, optimizer, kernel of attention, GPUs and
sharding), by `tools/ask_peers.py`, and what they cannot be told (offloading, layers split by tensors, several GPUs)
is not counted against them. Their allowance for CUDA's context is left away where the source measured tensors
alone, as ours is. Set-ups that state batch, length and checkpointing; errors are |predicted / measured - 1|, and
`lora-plan` stands beside each on the same figures. "Told the same" is `lora-plan` of today where it is told no more
than they are: no trainer's name and nothing of what its program does. Methods of fewer than {fewest} figures are left
out.

## Found later, predicted blind

Figures of the five later sets that rules rest on. **`lora-plan`'s are its first predictions, before anybody had
looked at the source**; nothing of the mends since is in them.

{later}

## The first table

Figures that no constant of ours was fitted on; profiles of their trainers were written knowing them, so that here
`lora-plan` has an advantage.

{judged}

What was not compared: tools that need the model's weights or a GPU to answer (PEFT's `train_memory.py`, Red Hat's
`training_hub`), those of states alone (DeepSpeed's estimators), of inference (hf-mem), or of Megatron's arguments.
"""


def page() -> str:
    """The page."""
    judged, after = ("\n".join(table(part)) for part in ("judged", "later"))
    return TEXT.format(fewest=FEWEST, later=after, judged=judged)


def main() -> None:
    """Requests, answers, or the page."""
    words = sys.argv[1:]
    if words[:1] == ["--requests"]:
        Path(words[1]).write_text(json.dumps([request(each) for each in published()]), encoding="utf-8")
        return
    given = json.loads(Path(words[1]).read_text(encoding="utf-8")) if words[:1] == ["--keep"] else None
    keep({each.case: each.peers for each in said()} if given is None else answered(given))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Tinker: a Python script of the service's own client, with its fixed alpha and its choice of layers."""

from __future__ import annotations

from dataclasses import replace

from ..adapter import adapt, params
from ..errors import InputError
from ..learning_rate.parametrisation import convert
from . import data
from .limits import ONE_GPU_WORK, of_own, refuse
from .lines import Code, Line, comment, python_call, python_value
from .trainers import trainer
from .training import Training

NAME = "Tinker"
FILE = "tinker_train.py"
ALPHA = 32  # whatever the rank: the service takes none
SETS = {"attention": "train_attn", "mlp": "train_mlp", "unembedding": "train_unembed"}
PLAIN = {
    "targets": None, "target_regex": None, "target_parameters": (), "layers_to_transform": None,
    "exclude_modules": (), "exclude_regex": None, "rank_pattern": (), "alpha_pattern": (), "modules_to_save": (),
    "bias": "none",
    "variant": "lora",
}  # fmt: skip


def layers_of(t: Training) -> dict[str, bool]:
    """Which of Tinker's three sets are trained. Raises InputError where the plan's choice is another."""
    for name, usual in PLAIN.items():
        if getattr(t.spec, name) != usual:
            raise InputError(
                name.replace("_", "-"), getattr(t.spec, name), f"{usual}: {NAME} trains whole sets of layers",
                "The nearest is --layers with attention, mlp and unembedding.",
            )  # fmt: skip
    wanted = {"attention", "mlp", "unembedding"} if t.spec.layers == ("all",) else set(t.spec.layers or ())
    odd = sorted(wanted - set(SETS))
    if odd or not wanted:
        raise InputError("layers", ",".join(odd), f"attention, mlp and unembedding: {NAME} trains no other")
    theirs = replace(t.spec, layout="tinker", experts="shared-outer")
    count = params(adapt(t.arch, theirs))
    if count != t.plan.adapter.params:
        raise InputError(
            "experts", t.spec.experts, f"shared-outer, as {NAME} adapts this model",
            f"The nearest is --experts shared-outer --layout tinker with {count:,} parameters instead of "
            f"{t.plan.adapter.params:,}.",
        )  # fmt: skip
    return {option: name in wanted for name, option in SETS.items()}


def rate_of(t: Training) -> tuple[float, str]:
    """The rate for Tinker's alpha, and why: the law's own; a given one keeps B's rate, right to first order."""
    if t.own["lr"] is None:
        found = t.rate_for(ALPHA)
        return found.value, found.why
    convention = "rslora" if t.spec.use_rslora else "article"
    own = convert(convention, "tinker", lr=t.rate.value, rank=t.spec.rank, alpha=t.spec.alpha, to_alpha=ALPHA)
    if own.single_rate is None:
        return own.after.lr_a, t.rate.why
    why = (
        f"Given as {t.rate.value:g} for alpha {t.spec.alpha:g}; {NAME} has alpha {ALPHA}: B's rate is kept, which is "
        "right to first order."
    )
    return float(f"{own.single_rate:.6g}"), why


_LOOP = """{define}
tokenizer = training.get_tokenizer()
renderer = renderers.get_renderer(model_info.get_recommended_renderer_name(MODEL), tokenizer)
rows = {load}.shuffle(seed=SEED)
step = 0
for _ in range(EPOCHS):
    for start in range(0, len(rows) - BATCH + 1, BATCH):
        batch = [
            conversation_to_datum({messages}, renderer, MAX_LENGTH, TrainOnWhat.ALL_ASSISTANT_MESSAGES)
            for row in rows.select(range(start, start + BATCH))
        ]
        passed = training.forward_backward(batch, loss_fn="cross_entropy")
        stepped = training.optim_step(adam)
        passed.result(), stepped.result()
        step += 1
        print(f"step {{step}}")
training.save_state(name="final").result()
"""


def _place(t: Training) -> list[str]:
    return [f"DATA = {python_value(t.data_or_blank)}"] if t.shape is None else []


def _loop(t: Training) -> str:
    """The loop over the data, whose rows become messages."""
    said = {"define": "", "load": 'load_dataset(DATA, split="train")', "messages": 'row["messages"]'}
    if t.shape is not None:
        found = data.arguments(t.shape)
        if t.shape.loader is None or t.shape.format not in ("messages", "sharegpt", "alpaca"):
            raise data.refused(t.shape, NAME, "conversations, with a column messages", ("messages",))
        path = found.pop("path")
        files = "".join(f", {name}={value!r}" for name, value in found.items())
        said["load"] = f"load_dataset({path!r}{files}, split='train')"
        if t.shape.renamed or t.shape.format == "alpaca" or t.shape.columns != {"messages": "messages"}:
            said["define"] = "\n" + "\n".join([*data.as_messages(t.shape, NAME), "", ""])
            said["messages"] = 'example(row)["messages"]'
    return _LOOP.format(**said)


def export(t: Training) -> dict[str, str]:
    """tinker_train.py."""
    if t.task == "rl":
        raise InputError("target", "tinker", "a plan of supervised training", "The nearest is trl-grpo.")
    refuse(t, {"quantize": "none", "optimizer": "adamw", "lora_dropout": 0.0, "offload": "none"}, NAME)
    refuse(t, dict.fromkeys(ONE_GPU_WORK, 1), NAME)
    for name, only in (("schedule", "constant"), ("warmup", 0)):
        of_own(t, name, {only: only}, "this script")
    sets = layers_of(t)
    rate, why = rate_of(t)
    head = t.header(
        NAME, trainer("tinker").label, f"python {FILE}  (needs tinker, tinker-cookbook and a key)", False
    )
    out = [line for text in head for line in comment(text)]
    out += comment("The service chooses machines, precision and kernels: the plan's own say nothing here.")
    out += [
        "", "import tinker", "from datasets import load_dataset",
        "from tinker_cookbook import model_info, renderers", "from tinker_cookbook.renderers import TrainOnWhat",
        "from tinker_cookbook.supervised.data import conversation_to_datum", "",
        f"MODEL = {python_value(t.model_or_blank)}", *_place(t),
        f"SEED = {t.own['seed']}", f"EPOCHS = {t.plan.workload.epochs}",
    ]  # fmt: skip
    out += comment(f"{t.batch} sequences a step. {NAME} has no packing: each is cut at the length.")
    out += [f"BATCH = {t.batch}", f"MAX_LENGTH = {t.setup.seq_len}", ""]
    lines = [Line("base_model", Code("MODEL")), Line("rank", t.spec.rank, f"{t.plan.adapter.params:,} parameters."),
             Line("seed", Code("SEED")), *(Line(name, on) for name, on in sets.items())]  # fmt: skip
    out += python_call("training = tinker.ServiceClient().create_lora_training_client", lines)
    out[-1] += ".result()"
    adam = [
        Line("learning_rate", rate, why),
        Line("beta1", 0.9),
        Line("beta2", 0.999, "As in the runs behind the law; the client's own default is 0.95."),
        Line("eps", 1e-8),
        Line("weight_decay", float(t.own["weight_decay"])),
    ]
    out += [
        "",
        *comment("The same rate at every step: the law was fitted at a constant rate without warm-up."),
    ]
    out += python_call("adam = tinker.AdamParams", adam)
    return {FILE: "\n".join(out) + _loop(t)}

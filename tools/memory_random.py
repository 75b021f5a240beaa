"""Points that nobody looked at: models of the catalogue and their configs changed at random, with set-ups drawn at
random, each point by a seed of its own.

Half of the points take a model type first, so that rare ones are met, half any model. From seed WIDE on types that
the catalogue lacks are met too, by the values that their config class has where none are given (named by the type and
DEFAULTS), and what trainers' loops hold, reentrant checkpointing and ranks by name are drawn as well. What a draw may
not combine is what PEFT or the model's code refuses; the rest is left in, and a refusal is a row of the record.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from planner.adapter import adapt
from planner.architecture.build import BUILDERS
from planner.architecture.images import known_types
from planner.errors import PlannerError
from planner.estimator import load
from planner.simulate.setups import check_pairs

from .memory_grid import CHOICES, CONFIGS, DEFAULTS, NO_FLASH, UNQUANTISED, WITHOUT, Point, default_config
from .memory_random_newest import NEWEST, newest
from .memory_random_rarer import CLASSES, CLASSIFIED_SHARE, RARER, rarer
from .memory_random_wider import PICTURED_SHARE, WIDER, widened
from .pictured_models import PICTURED

MODELS = Path(__file__).resolve().parent.parent / "data" / "models"
# Encoders, and what transformers has no code of its own for.
LEFT_OUT = (
    None, "bert", "roberta", "xlm-roberta", "clip", "chatglm", "internlm2", "kimi_k3", "mimo", "minicpm",
    "minimax_m3", "nemotron-nas",
)  # fmt: skip
STACKS_OF_TWO = ("t5", "mt5", "bart", "mbart", "pegasus", "marian", "whisper")
MAMBAS = ("mamba", "falcon_mamba", "mamba2")
WIDE = 4  # the first seed that draws from all types and choices
ENCODERS = ("bert", "roberta", "xlm-roberta")
LENGTHS = (128, 250, 512, 700, 1024, 1500, 2048, 3000, 4096, 8192)
MORE: dict[str, tuple[Any, ...]] = {
    **CHOICES,
    "micro_batch": (1, 1, 2, 3, 4, 8, 16),
    "seq_len": LENGTHS,
    "accumulation": (1, 1, 2, 8),
    "rank": (1, 8, 16, 64, 256),
    "layers": (
        "all-linear", "all-linear", "all", "attention", "mlp", "attention,unembedding", "mlp,embedding",
        "unembedding",
    ),
    "bias": ("none", "none", "none", "none", "all", "lora_only"),
    "use_rslora": (False, True),
    "modules_to_save": (None, None, None, None, "head", "both"),
    "layers_to_transform": (None, None, None, None, "some"),
    "loss_chunk": (1024, 4096),
}  # fmt: skip
del MORE["shape"]
# Drawn from seed WIDE on.
OF_LOOPS: dict[str, tuple[Any, ...]] = {
    "reentrant": (False, False, False, True),
    "outputs_held": (False, False, False, True),
    "upcast_norms": (False, False, True),
    "quantised_inputs_kept": (False, False, False, True),
    "input_grads": (None, None, None, None, True),
    "rank_pattern": (None, None, None, "some"),
}


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Every model's config that can be drawn, by its name."""
    found = {}
    for path in sorted(MODELS.glob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.get("model_type") not in LEFT_OUT:
            found[path.stem.replace("__", "/", 1)] = config
    return found


@cache
def wide_catalogue() -> dict[str, dict[str, Any]]:
    """The catalogue with its encoders, the grid's configs, and for every other model type that has a builder the
    config that its class makes of nothing."""
    found = {**catalogue(), **CONFIGS}
    for path in sorted(MODELS.glob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.get("model_type") in ENCODERS:
            found[path.stem.replace("__", "/", 1)] = config
    known = {config["model_type"] for config in found.values()}
    for kind in sorted(set(BUILDERS) - known - set(LEFT_OUT)):
        try:
            config = default_config(kind)
            load(config)
        except (PlannerError, ValueError):  # its class wants values, or it is no model of text
            continue
        found[kind + DEFAULTS] = config
    return found


@cache
def _wide_by_type() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, config in wide_catalogue().items():
        found.setdefault(config["model_type"], []).append(name)
    return found


@cache
def _by_type() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, config in catalogue().items():
        found.setdefault(config["model_type"], []).append(name)
    return found


def random_points(seed: int, number: int) -> list[Point]:
    """So many points of a seed, the same at every call."""
    if seed >= WIDER:
        settled, rare, new = seed > WIDER, seed >= RARER, seed >= NEWEST
        sources = [random.Random(f"{seed} {index}") for index in range(number)]
        return [_wider_point(each, settled=settled, rare=rare, new=new) for each in sources]
    draw = _wide if seed >= WIDE else _point
    return [draw(random.Random(f"{seed} {index}")) for index in range(number)]


def _point(source: random.Random) -> Point:
    if source.random() < 0.5:
        model = source.choice(_by_type()[source.choice(sorted(_by_type()))])
    else:
        model = source.choice(sorted(catalogue()))
    config = catalogue()[model]
    changes = _changes(source, text_of(config)) if source.random() < 0.5 else {}
    drawn = {name: source.choice(values) for name, values in MORE.items()}
    return Point(config["model_type"], model, _settled(source, model, config, drawn), changes)


def _wide(source: random.Random) -> Point:
    return _wide_point(source, _wide_by_type(), wide_catalogue())


def _wide_point(
    source: random.Random, by_type: dict[str, list[str]], pool: dict[str, dict[str, Any]]
) -> Point:
    """A point of a model of these types, or of a pool."""
    if source.random() < 0.6:
        model = source.choice(by_type[source.choice(sorted(by_type))])
    else:
        model = source.choice(sorted(pool))
    config = pool[model]
    changes = _changes(source, text_of(config)) if source.random() < 0.4 else {}
    drawn = {name: source.choice(values) for name, values in {**MORE, **OF_LOOPS}.items()}
    loops = {name: drawn.pop(name) for name in OF_LOOPS}
    found = _settled(source, model, config, drawn)
    if has_own_loss(config):
        found["loss"] = "full"
    if found["checkpointing"] == "none":
        loops["reentrant"] = False
    if found["method"] != "qlora" or found["upcast_small"]:
        loops["upcast_norms"] = False
    if not found.get("quantize", "none").startswith("nf4"):
        loops["quantised_inputs_kept"] = False
    if found["method"] == "full":
        loops["input_grads"] = loops["rank_pattern"] = None
    point = Point(config["model_type"], model, found, changes)
    if loops["rank_pattern"]:
        loops["rank_pattern"] = _pattern(source, point)
    found.update({name: value for name, value in loops.items() if value})
    return point


def _wider_point(
    source: random.Random, *, settled: bool, rare: bool = False, new: bool = False
) -> Point:  # fmt: skip
    """A wide point with more drawn on top; every fifth is of a model whose images have an account."""
    by_type, pool = (_pictured(), PICTURED) if source.random() < PICTURED_SHARE else (_wide_by_type(), {})
    if rare and source.random() < CLASSIFIED_SHARE:
        by_type = {kind: names for kind, names in _wide_by_type().items() if kind in CLASSES}
    point = _wide_point(source, by_type, {**wide_catalogue(), **pool})
    config = PICTURED.get(point.model) or wide_catalogue()[point.model]
    kind = config["model_type"]
    own_loss = kind not in known_types() and has_own_loss(config)
    found = widened(source, point, own_loss=own_loss, settled=settled)
    found = rarer(source, found, own_loss=own_loss) if rare else found
    return newest(source, found, own_loss=own_loss) if new else found


@cache
def _pictured() -> dict[str, list[str]]:
    """Models whose images have an account, by type."""
    found = {kind: names for kind, names in _wide_by_type().items() if kind in known_types()}
    for name, config in PICTURED.items():
        found[config["model_type"]] = [*found.get(config["model_type"], []), name]
    return found


def has_own_loss(config: dict[str, Any]) -> bool:
    """Whether a model's class computes a loss of its own: an encoder's over masked tokens, or that of two stacks."""
    name = (config.get("architectures") or [""])[0]
    return config["model_type"] in STACKS_OF_TWO or "CausalLM" not in name


def refusal(point: Point) -> str | None:
    """Why `simulate` refuses a point that its parts run: PEFT reaches what is quantised as a bare parameter alone,
    whose pairs get no gradient. Draws before that was asked have two such points."""
    spec = point.spec
    try:
        if spec is not None:
            check_pairs(spec, point.setup, point.loaded[1])
    except PlannerError as error:
        return str(error).splitlines()[0]
    return None


def _pattern(source: random.Random, point: Point) -> dict[str, int]:
    """Another rank for the adapted modules of one name; none where nothing of a name of its own is adapted."""
    try:
        spec = point.spec
        items = adapt(load(point.source)[1], spec) if spec else ()
    except PlannerError:
        return {}
    names = {item.matrix.name.rsplit(".", 1)[-1] for item in items if item.matrix.kind == "linear"}
    return {source.choice(sorted(names)): source.choice((2, 24, 128))} if names else {}


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that describes the text model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _changes(source: random.Random, text: dict[str, Any]) -> dict[str, Any]:
    """Fields of a config with other values, of which three are taken at most."""
    found: dict[str, Any] = {}
    heads = text.get("num_attention_heads")
    if isinstance(text.get("vocab_size"), int):
        found["vocab_size"] = source.choice((32000, 49157, 100352, 151936, 262144))
    for name in ("intermediate_size", "moe_intermediate_size", "ffn_hidden_size"):
        if isinstance(text.get(name), int):
            found[name] = max(128, round(text[name] * source.choice((0.5, 0.7, 1.3, 2)) / 64) * 64)
    if isinstance(text.get("num_key_value_heads"), int) and isinstance(heads, int):
        divisors = [n for n in range(1, heads + 1) if heads % n == 0]
        found["num_key_value_heads"] = source.choice(divisors)
    if isinstance(text.get("head_dim"), int):
        found["head_dim"] = source.choice((64, 96, 128, 192, 256))
    for name in ("tie_word_embeddings", "attention_bias", "mlp_bias"):
        if isinstance(text.get(name), bool):
            found[name] = not text[name]
    for name in ("num_experts_per_tok", "top_k_experts"):
        if isinstance(text.get(name), int):
            found[name] = source.choice((1, 2, 4, 6))
    if isinstance(text.get("sliding_window"), int):
        found["sliding_window"] = source.choice((256, 1024, 4096))
    if isinstance(text.get("num_hidden_layers"), int) and not any(
        "layer" in k and k != "num_hidden_layers" for k in text
    ):
        found["num_hidden_layers"] = source.choice((3, 8, 20, 48))
    found["attention_dropout"] = 0.1
    names = source.sample(sorted(found), min(len(found), source.choice((1, 2, 3))))
    return {name: found[name] for name in sorted(names)}


def _settled(
    source: random.Random, model: str, config: dict[str, Any], drawn: dict[str, Any]
) -> dict[str, Any]:
    """A draw without what its other choices exclude."""
    found = dict(drawn)
    kind, method, decomposed = config["model_type"], found["method"], found.pop("quantised_dora")
    if method == "qlora" and kind in _types(UNQUANTISED):
        found["method"] = method = "lora"
    if found["precision"] in ("fp32", "autocast") or method == "full":
        found["autocast"] = False
    if kind in STACKS_OF_TWO:
        longest = 448 if kind == "whisper" else config.get("max_position_embeddings", 4096)
        found.update(loss="full", seq_len=min(found["seq_len"], longest))
        if kind == "whisper":
            found["packing"] = "full"
    if kind in MAMBAS and found["loss"] == "chunked":
        found["loss"] = "full"  # its code makes logits float32 behind the unembedding
    if method == "qlora":
        found["precision"] = "fp16" if found["precision"] == "fp16" else "bf16"
    else:
        found.update(quantize="none", upcast_small=False)
    if found["attention_kernel"] == "flash" and (found["precision"] == "fp32" or kind in _types(NO_FLASH)):
        found["attention_kernel"] = "sdpa"
    if method == "full":
        found = {k: v for k, v in found.items() if k not in OF_ADAPTER}
        found.update(adapter_dtype=None, lora_dropout=0.0)
        found["optimizer_in_backward"] = found["accumulation"] == 1 and found["optimizer_kernel"] == "foreach"
    else:
        _settle_adapter(source, model, config, found, decomposed)
    if found["optimizer"] not in ("adamw", "paged-adamw"):
        found["optimizer_kernel"] = "fused"
    return {name: value for name, value in found.items() if value is not None or name == "adapter_dtype"}


OF_ADAPTER = ("rank", "layers", "experts", "bias", "use_rslora", "modules_to_save", "layers_to_transform")


def _types(names: Iterable[str]) -> set[str]:
    """The model types of these models."""
    return {catalogue()[name]["model_type"] for name in names}


def _settle_adapter(
    source: random.Random, model: str, config: dict[str, Any], found: dict[str, Any], decomposed: bool
) -> None:
    """What an adapter excludes, or is left out on."""
    kind = config["model_type"]
    if kind in _types(WITHOUT):
        found["exclude_modules"] = "out_proj"
    if kind in MAMBAS:
        found.update(layers=None, targets="in_proj,x_proj")
    if found["precision"] == "fp16" and found["adapter_dtype"] == "bfloat16":
        found["adapter_dtype"] = "float16"
    if found["method"] == "dora" or (found["method"] == "qlora" and decomposed):
        found.update(method=found["method"].replace("dora", "lora"), variant="dora", experts="none")
    if found["loss"] == "chunked" and "all" in str(found["layers"]).split(","):
        found["layers"] = "all-linear"
    if found["loss"] == "chunked" and "unembedding" in str(found["layers"]):
        found["layers"] = "attention"
    if found["layers_to_transform"]:
        found["layers_to_transform"] = f"{source.choice((0, 2))}-{source.choice((2, 5))}"
    if found["modules_to_save"]:
        found["modules_to_save"] = "lm_head" if found["modules_to_save"] == "head" else "lm_head,embed_tokens"
        if "embedding" in str(found["layers"]) or found["layers"] == "all" or found["loss"] == "chunked":
            found["modules_to_save"] = None
    if found["experts"] == "peft":
        found["lora_dropout"] = 0.0  # PEFT has none for bare parameters

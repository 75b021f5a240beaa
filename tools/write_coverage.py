"""Checks every architecture of transformers' auto mappings against transformers and PEFT: docs/coverage.md.

Run it in an environment with torch, transformers and peft:  python tools/write_coverage.py [--update] [TYPE ...]
With model types it prints their rows only; with --update it puts them, or all, into the page, which is written after
each, so that a run that was stopped can go on from a type (--from TYPE). Each architecture is built from its class's
default config, or from a small one below where the defaults are no model. Parameters are compared with those of
transformers' own build, and `all-linear` with what PEFT makes trainable, both on the meta device.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from planner.adapter import AdapterSpec, adapt, params  # noqa: E402
from planner.architecture.build import build  # noqa: E402
from planner.architecture.meta import transformers_version  # noqa: E402
from planner.architecture.meta.forward import prepare, token_inputs  # noqa: E402
from planner.architecture.meta.model import build_model  # noqa: E402
from planner.architecture.meta.recorder import Sizes, sizes_mode  # noqa: E402
from planner.errors import PlannerError  # noqa: E402
from planner.flops import Step, flops, step_macs  # noqa: E402
from planner.schema import Architecture  # noqa: E402

MAPPINGS = {
    "causal language models": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "sequence-to-sequence models": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "masked language models and encoders": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "image-text-to-text models": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
}
PAGE = ROOT / "docs" / "coverage.md"
RANK = 2
STEP = (1, 40)

_HEADS = {"head_dim": 16, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
          "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 128}  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_BOTH_ROPES = {"full_attention": _ROPE, "sliding_attention": _ROPE}
_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 512,
    "indexer_compress_ratio": 4,
}
_ASSISTANT = {
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
    "enable_moe_block": False,
    "use_double_wide_mlp": False,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 4,
}
_MROPE = {"rope_parameters": {**_ROPE, "partial_rotary_factor": 0.5}, "head_dim": 128}
_XDROPE = {**_ROPE, "mrope_section": [16, 16, 16, 16]}
_T5GEMMA2 = {**_HEADS, "num_hidden_layers": 4, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
_SIGLIP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
# Small ones whose backward pass asks for values, so that the counter runs them with weights.
NEEDS_VALUES = ("diffllama", "t5gemma2")
# Fields for architectures whose class's defaults are no model that transformers can build.
SMALL: dict[str, dict[str, Any]] = {
    "hunyuan_v1_dense": _HEADS,
    "hunyuan_v1_moe": {**_HEADS, "num_experts": 4, "moe_topk": 2},
    "ministral": _HEADS,
    "nemotron": {**_HEADS, "num_key_value_heads": 2},
    "lfm2_moe": {**_HEADS, "layer_types": ["conv", "full_attention"], "num_experts": 4, "moe_intermediate_size": 32},
    "reformer ReformerModelWithLMHead": {"is_decoder": True},
    "esm": {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
    "dots1": {**_HEADS, "moe_intermediate_size": 32, "n_routed_experts": 4, "n_shared_experts": 1,
              "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 16}},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "emu3": {"vocabulary_map": {"<image>": 4}},
    "cohere_compass_text": {"rope_parameters": _BOTH_ROPES},
    "cohere_compass": {"text_config": {"rope_parameters": _BOTH_ROPES}},
    "qwen4_exp_text": _INDEXER,
    "qwen4_exp": {"text_config": _INDEXER},
    "gemma4_assistant": {"text_config": _ASSISTANT},
    "gemma4_unified_assistant": {"text_config": _ASSISTANT},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense"] + ["sparse"] * 11, "num_hidden_layers": 12,
                                      "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1}},
    "granite4_vision": {"deepstack_layer_map": [[3, 9]], "spatial_target_layers": [12], "downsample_rate": "4/8"},
    "diffllama": _HEADS,
    "t5gemma2": {"encoder": {"text_config": _T5GEMMA2, "vision_config": _SIGLIP}, "decoder": _T5GEMMA2},
    "m2m_100": {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0},  # as NLLB has it
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "ovis2": {"hidden_size": 4096, "vocab_size": 151936},  # as its text model has them
    "glm46v": {"text_config": _MROPE},
    "glmga": {"text_config": _MROPE},
    "glm4v_moe": {"text_config": _MROPE},
    "qwen3_omni_moe_thinker": {"text_config": {"head_dim": 128}},
    "hunyuan_vl": {"text_config": {"head_dim": 128, "rope_parameters": _XDROPE}},
    "step3p7": {"text_config": {"sliding_window": 512}},
    "diffusion_gemma": {"text_config": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 64}},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One architecture: how it was counted and whether the independent counts agree; else why not."""

    model_type: str
    class_name: str
    route: str = ""
    params: int = 0
    all_linear: int = 0
    agrees_params: bool | None = None
    agrees_linear: bool | None = None
    flops: str = ""
    problem: str = ""
    remark: str = ""


def types_of(mapping: str) -> Iterator[tuple[str, str]]:
    """Model types of a mapping with the name of their class."""
    from transformers.models.auto import modeling_auto

    for model_type, name in getattr(modeling_auto, mapping).items():
        yield model_type, name if isinstance(name, str) else name[0]


def default_config(model_type: str, class_name: str) -> dict[str, Any]:
    """The default (or small) config as a config.json would hold it."""
    import transformers
    from transformers import AutoConfig

    fields = SMALL.get(f"{model_type} {class_name}", SMALL.get(model_type, {}))
    made = AutoConfig.for_model(model_type, **copy.deepcopy(fields))
    wanted = getattr(transformers, class_name).config_class
    text = made.get_text_config(decoder=True)
    if not isinstance(made, wanted) and isinstance(text, wanted):
        made = text  # as the auto class does where a text model is asked of a config with more in it
    config = {**made.to_dict(), "model_type": made.model_type, "architectures": [class_name]}
    kept: dict[str, Any] = json.loads(json.dumps(config, default=str))
    return kept


def their_model(config: Mapping[str, Any]) -> Any:
    """The model as transformers builds it, on the meta device."""
    import torch
    import transformers

    fields = {key: value for key, value in config.items() if key not in ("model_type", "quantization_config")}
    read = transformers.AutoConfig.for_model(config["model_type"], **copy.deepcopy(fields))
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])._from_config(read)
        model.tie_weights()
    return model


def their_all_linear(model: Any) -> int:
    """What PEFT's all-linear makes trainable."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear"))
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def our_all_linear(arch: Architecture) -> int:
    """What we say that it makes trainable."""
    return params(adapt(arch, AdapterSpec(rank=RANK, layers=("all-linear",), experts="peft")))


def their_step(config: Mapping[str, Any]) -> int:
    """FLOPs of a full forward and backward, as torch's counter sees them on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model(config)
    prepare(model)
    with sizes_mode(Sizes(10**9)), FlopCounterMode(display=False) as counter:
        out = model(**token_inputs(model, *STEP))
        (out.logits if "logits" in out else out[0]).sum().backward()
    return int(counter.get_total_flops())


def their_real_step(config: Mapping[str, Any]) -> int:
    """The same with weights, for small models whose backward pass the meta device cannot run."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model(config).to_empty(device="cpu")
    prepare(model)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    inputs = {
        key: value.new_ones(value.shape, device="cpu") for key, value in token_inputs(model, *STEP).items()
    }
    with FlopCounterMode(display=False) as counter:
        out = model(**inputs)
        (out.logits if "logits" in out else out[0]).sum().backward()
    return int(counter.get_total_flops())


def our_step(arch: Architecture) -> int:
    """The same from the inventory."""
    return flops(step_macs(arch, Step(*STEP), None))


def check(model_type: str, class_name: str) -> Row:
    """One architecture, counted twice."""
    try:
        config = default_config(model_type, class_name)
        model = their_model(config)
    except Exception as error:  # whatever transformers raises is the answer
        return Row(model_type, class_name, problem=f"transformers: {_line(error)}")
    expected = sum(p.numel() for p in model.parameters())
    try:
        arch = build(config)
    except PlannerError as error:
        return Row(model_type, class_name, problem=str(error))
    route = "meta" if arch.built_by else "builder"
    counted = "none" if arch.flops_gap or not arch.blocks else "exact"
    if counted == "exact" and arch.built_by:
        try:
            theirs = their_real_step if model_type in NEEDS_VALUES else their_step
            counted = "exact" if theirs(config) == our_step(arch) else "**differs**"
        except Exception:  # a backward pass that the meta device cannot run
            counted = "forward only checked"
    ours = our_all_linear(arch)
    agrees: bool | None = None
    remark = ""
    try:
        agrees = their_all_linear(model) == ours
    except Exception as error:
        remark = f"PEFT: {_line(error)}"
    return Row(
        model_type, class_name, route, arch.params, ours, arch.params == expected, agrees, counted, "", remark
    )


def _line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text[:160].replace("|", "/")


def _mark(value: bool | None) -> str:
    return {True: "equal", False: "**differs**", None: "–"}[value]


def table(rows: list[Row]) -> Iterator[str]:
    """A mapping's rows as Markdown."""
    yield "| model type | class | route | parameters | equal | all-linear (rank 2) | equal | FLOPs |"
    yield "| --- | --- | --- | ---: | --- | ---: | --- | --- |"
    for row in rows:
        if row.problem:
            yield f"| {row.model_type} | {row.class_name} | none: {row.problem} | | | | | |"
            continue
        linear = _mark(row.agrees_linear) + (f" ({row.remark})" if row.remark else "")
        yield (
            f"| {row.model_type} | {row.class_name} | {row.route} | {row.params:,} | {_mark(row.agrees_params)} "
            f"| {row.all_linear:,} | {linear} | {row.flops} |"
        )


def summary(rows: list[Row]) -> str:
    """A mapping's counts in a sentence."""
    built = [row for row in rows if not row.problem]
    routes = Counter(row.route for row in built)
    compared = [row for row in built if row.agrees_linear is not None]
    return (
        f"{len(built)} of {len(rows)} build ({routes['builder']} by a builder, {routes['meta']} through "
        f"transformers); parameters equal in {sum(bool(r.agrees_params) for r in built)} of {len(built)}, PEFT's "
        f"all-linear in {sum(bool(r.agrees_linear) for r in compared)} of {len(compared)}; exact FLOPs for "
        f"{sum(r.flops == 'exact' for r in built)}."
    )


def about() -> str:
    """The page's first paragraph."""
    import peft

    return (
        "Written by `tools/write_coverage.py`; do not edit. Every architecture of four auto mappings of transformers "
        f"{transformers_version()} is built from its class's default config (or a small one, where the defaults are "
        "no model), counted by lora-plan, and counted again from transformers' own build. all-linear is compared "
        f"with what PEFT {peft.__version__} makes trainable. The route is a builder of ours (no torch needed) or "
        "transformers on the meta device. FLOPs are exact or"
        " none; where the meta route has them, a full step's equal those of torch's counter."
    )


def document(found: Mapping[str, list[Row]]) -> str:
    """The whole page, of the rows of each mapping."""
    lines = ["# Coverage", "", about()]
    for title, rows in found.items():
        lines += ["", f"## {title[0].upper()}{title[1:]}", "", summary(rows), "", *table(rows)]
    return "\n".join(lines) + "\n"


def read(page: str) -> dict[str, list[Row]]:
    """The rows of a page that `document` wrote, by mapping."""
    found: dict[str, list[Row]] = {title: [] for title in MAPPINGS}
    rows: list[Row] = []
    for line in page.splitlines():
        if line.startswith("## "):
            rows = found[line[3].lower() + line[4:]]
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| ") else []
        if len(cells) == 8 and cells[0] != "model type" and cells[0][:3] != "---":
            rows.append(_row(cells))
    return found


def _row(cells: list[str]) -> Row:
    """A row from its line."""
    model_type, class_name, route, params, equal, linear, same, counted = cells
    if route.startswith("none: "):
        return Row(model_type, class_name, problem=route.removeprefix("none: "))
    marks = {"equal": True, "**differs**": False, "–": None}
    mark, _, remark = same.partition(" (")
    total, adapted = (int(number.replace(",", "")) for number in (params, linear))
    return Row(
        model_type, class_name, route, total, adapted, marks[equal], marks[mark], counted, "",
        remark.removesuffix(")"),
    )  # fmt: skip


def pages() -> Iterator[str]:
    """The page, complete."""
    found = {}
    for title, mapping in MAPPINGS.items():
        found[title] = [check(*pair) for pair in sorted(types_of(mapping))]
        print(title, summary(found[title]), file=sys.stderr)
    yield document(found)


def updated(wanted: set[str], first: str | None) -> Iterator[str]:
    """The page as it is, with the rows of the model types wanted (all where none is) made anew one by one; from the
    model type `first` on, where one is named, in every mapping."""
    found = read(PAGE.read_text(encoding="utf-8"))
    for title, mapping in MAPPINGS.items():
        for pair in sorted(types_of(mapping)):
            if (wanted and pair[0] not in wanted) or (first and pair[0] < first):
                continue
            made = check(*pair)
            kept = [row for row in found[title] if (row.model_type, row.class_name) != pair]
            found[title] = sorted([*kept, made], key=lambda row: (row.model_type, row.class_name))
            print(title, made.model_type, made.route, made.agrees_params, made.agrees_linear, file=sys.stderr)
            yield document(found)


def main() -> None:
    """Write the page, bring it up to date, or print the rows of the model types named."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description="Check every architecture and write docs/coverage.md.")
    parser.add_argument("model_types", nargs="*")
    parser.add_argument("--update", action="store_true", help="put the rows into the page as it is")
    parser.add_argument("--from", dest="first", help="with --update, begin with this model type")
    chosen = parser.parse_args()
    wanted = set(chosen.model_types)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LORA_PLAN_CACHE"] = folder
        if chosen.update or not wanted:
            for page in updated(wanted, chosen.first) if chosen.update else pages():
                PAGE.write_text(page, encoding="utf-8")
            return
        for mapping in MAPPINGS.values():
            for model_type, class_name in types_of(mapping):
                if model_type in wanted:
                    start = time.perf_counter()
                    print(check(model_type, class_name), f"{time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()

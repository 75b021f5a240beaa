"""What a weight is for, by where it stands in the module tree: structure and the words that every library uses for
it, never the name of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...schema import Role

PROJECTOR = re.compile(
    r"projector|connector|merger|multi_modal|multimodal|modality_proj|resampler|aligner|perceiver_resampler|abstractor|"
    r"image_to_text|vision_proj|visual_proj|embed_vision|embed_audio|vision_embed_tokens",
    re.I,
)
VISION = re.compile(
    r"visi(?:on|al)|visual|image|video|pixel|vit(?:_|$)|siglip|sam_|high_res|qformer|vqmodel", re.I
)
AUDIO = re.compile(r"audio|speech|sound|acoustic|mel_|codec|tokenizer_encoder", re.I)
ATTENTION = re.compile(r"att(?:n|ention)(?!.*norm)", re.I)
NOT_ATTENTION_CLASS = re.compile(r"(?:Layer|Block|Model|Encoder|Decoder|Stage)$")
SCAN_STATE = frozenset("A_log dt_bias conv1d conv_1d short_conv time_decay slope_rate rg_lru".split())
SHARED = re.compile(r"shared_?(?:expert|mlp|moe)|shared_experts?|dense_experts?", re.I)
TOWER_END = re.compile(r"(?:^|\.)(?:text|visual|image|audio|language)_projection$")
EXPERTS = re.compile(r"experts?\.")
ROUTER = re.compile(r"(?:^|\.)(?:gate|wg|router|router_weights|classifier)(?:\.|$)|router|routing", re.I)
QKV = frozenset("q k v q_proj k_proj v_proj query key value qkv qkv_proj query_key_value".split())


@dataclass
class Place:
    """A module with its path and the modules above it, outermost first."""

    path: str
    module: Any
    above: tuple[tuple[str, Any], ...]
    in_layer: bool


class Roles:
    """Assigns roles in one model."""

    def __init__(self, model: Any, moe_blocks: dict[str, int]) -> None:
        self.output = _safely(model, "get_output_embeddings")
        self.table = _safely(model, "get_input_embeddings")
        self.moe_blocks = moe_blocks
        self.hears = _inputs([("", model)]) == "audio"
        self.two_sided = bool(getattr(model.config, "is_encoder_decoder", False))
        self.rows = getattr(_text_config(model), "vocab_size", None)

    def of(self, place: Place, leaf: str, kind: str, d_out: int) -> Role:
        """The role of the parameter `leaf` of a module."""
        if self.output is not None and place.module is self.output:
            return "unembedding"
        if self.table is not None and place.module is self.table:
            return "embedding"
        tower = self._tower(place)
        if tower is not None:
            return tower
        if kind == "convolution":
            return "audio" if _inputs(place.above[-2:]) == "audio" else "other"
        if kind == "embedding":
            return "embedding" if self._reads_tokens(place) else "other"
        return self._in_text(place, leaf, kind, d_out)

    def _reads_tokens(self, place: Place) -> bool:
        """Whether a table is one of tokens, in a model that does not say which its own is."""
        rows = getattr(self.table, "weight", None)
        told = rows is not None and rows.dim() == 2 and rows.shape[0] == self.rows
        return (self.two_sided or not told) and place.module.weight.shape[0] == self.rows

    def _tower(self, place: Place) -> Role | None:
        """Vision, audio or what joins them to the text, by the words of the path before its layers."""
        head = place.path
        found: Role | None = None
        for component in head.split("."):
            if component.isdigit():
                continue
            if PROJECTOR.search(component):
                return "projector"
            if found is None and VISION.search(component) and "experts" not in component:
                found = "vision"
            elif found is None and AUDIO.search(component):
                found = "audio"
        if found is None:
            inputs = _inputs(place.above[1:])
            if inputs == "vision" or (inputs == "audio" and not self.hears):
                return inputs
        return found

    def _in_text(self, place: Place, leaf: str, kind: str, d_out: int) -> Role:
        if kind == "experts":
            return "shared_expert" if SHARED.search(place.path) else "expert"
        block = self._moe_block(place)
        if block is not None:
            inside = f"{place.path}.{leaf}"[len(block) + 1 :]
            experts = self.moe_blocks[block]
            if ROUTER.search(inside) and (d_out >= experts or d_out == 1):
                return "router"
            if SHARED.search(inside):
                return "router" if d_out == 1 else "shared_expert"
            if EXPERTS.match(inside):
                return "expert"
        if self.moe_blocks and place.in_layer and SHARED.search(place.path):
            return "shared_expert"
        if kind == "parameter":
            return "other"
        if not place.in_layer:
            return "projector" if TOWER_END.search(place.path) else "other"
        return self._mixer(place) or "mlp"

    def _moe_block(self, place: Place) -> str | None:
        return next((path for path, _ in reversed(place.above) if path in self.moe_blocks), None)

    def _mixer(self, place: Place) -> Role | None:
        """Attention or state space, by the nearest module that is one."""
        convolves = False
        for path, module in reversed(place.above):
            name = path.rsplit(".", 1)[-1]
            if name.isdigit() and _is_layer(module):
                break
            if {*module._parameters, *module._modules, *module._buffers} & SCAN_STATE:
                return "state_space"
            called = type(module).__name__
            if ATTENTION.search(name) or ("Attention" in called and not NOT_ATTENTION_CLASS.search(called)):
                return "attention"
            if len(QKV.intersection(module._modules)) >= 3:
                return "attention"
            convolves |= any(type(child).__name__ == "Conv1d" for child in module._modules.values())
        return "state_space" if convolves else None


def _inputs(modules: Sequence[tuple[str, Any]]) -> Literal["vision", "audio", ""]:
    """What the innermost of these models takes in beside text, by its class: vision, audio or nothing."""
    for _, module in reversed(modules):
        name = getattr(module, "main_input_name", None)
        if isinstance(name, str):
            if name == "pixel_values":
                return "vision"
            return "audio" if name in ("input_features", "input_values") else ""
    return ""


def _text_config(model: Any) -> Any:
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _is_layer(module: Any) -> bool:
    return type(module).__name__.endswith(("Layer", "Block"))


def _safely(model: Any, method: str) -> Any:
    try:
        return getattr(model, method)()
    except (NotImplementedError, AttributeError, TypeError):
        return None

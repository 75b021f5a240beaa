"""The image and video tower of Kimi K2.5 and its projector."""

from __future__ import annotations

from ..fields import Fields
from ..trace import Trace
from .vision import Tower, split


def kimi_k25(trace: Trace, cfg: Fields, text_hidden: int) -> None:
    """A ViT with a learnt table of positions; the projector joins neighbouring patches.

    Checkpoints that carry their own code spell the tower's fields with the prefix `vt_` and the table's with
    `init_`; where the library's own spelling stands, it counts.
    """
    vision = cfg.sub("vision_config", {})

    def number(key: str, old: str, default: int) -> int:
        found: int = vision.int(key, vision.int(old, default))
        return found

    tower = Tower(trace, "model.vision_tower.")
    d, width = (
        number("hidden_size", "vt_hidden_size", 1152),
        number("intermediate_size", "vt_intermediate_size", 4304),
    )
    heads = "num_attention_heads"
    split(vision, heads if vision.has(heads) or not vision.has(f"vt_{heads}") else f"vt_{heads}", d, 16)
    rows = number("pos_emb_height", "init_pos_emb_height", 64)
    columns = number("pos_emb_width", "init_pos_emb_width", 64)
    patch = vision.int("patch_size", 14)
    tower.conv("patch_embed.proj", 3, d, (patch, patch), bias=True)
    tower.vector("patch_embed.pos_emb.position_embeddings", rows * columns * d)
    block = tower.at("layers.{}.", range(number("num_hidden_layers", "vt_num_hidden_layers", 27)))
    for name in ("proj", "q_proj", "k_proj", "v_proj"):
        block.linear(f"attn.{name}", d, d, bias=True)
    block.linear("mlp.fc1", d, width, bias=True)
    block.linear("mlp.fc2", width, d, bias=True)
    for name in ("norm1", "norm2"):
        block.norm(name, d, bias=True)
    tower.norm("final_layernorm", d, bias=True)
    _projector(Tower(trace, "model.mm_projector.", "projector"), cfg, vision, d, text_hidden)


def _projector(projector: Tower, cfg: Fields, vision: Fields, d: int, text_hidden: int) -> None:
    sides = vision.list("merge_kernel_size", [2, 2], length=2)
    if not all(type(side) is int and side > 0 for side in sides):
        raise vision.fail("merge_kernel_size", "two whole numbers of at least 1")
    merged = d * sides[0] * sides[1]
    projector.norm("pre_norm", cfg.int("projection_hidden_size", 1152), bias=True)
    projector.linear("in_proj", merged, merged, bias=True)
    projector.linear("out_proj", merged, text_hidden, bias=True)

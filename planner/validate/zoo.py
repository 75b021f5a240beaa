"""A zoo of our own: Llama-like models of six widths and a mixture of experts, pretrained here on our own text.

The same seed and shape give the same model on the same machine and versions. They lie under LORA_PLAN_CACHE/zoo,
named by a hash of everything that makes them; a download is never needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..architecture.cache import folder as cache_folder
from ..errors import PlannerError
from .require import require
from .tasks import biographies, strings
from .text import VOCAB_SIZE, passage, stream

RECIPE = 1
LANGUAGES = tuple(range(100, 108))


@dataclass(frozen=True)
class Shape:
    """The shape of a zoo model and its pretraining. `d_ff` is about 8/3 of the width, as in Llama; with `experts` it
    is that of the `top_k` active ones together, in the shape of Qwen3-MoE."""

    hidden_size: int
    n_layers: int
    n_heads: int
    d_ff: int
    steps: int
    batch: int = 16
    seq_len: int = 64
    lr: float = 3e-3
    experts: int = 0
    top_k: int = 2

    def config(self) -> dict[str, Any]:
        """The model's config.json, with an unembedding of its own."""
        kind: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        if self.experts:
            kind = {
                "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": self.experts,
                "num_experts_per_tok": self.top_k, "moe_intermediate_size": self.d_ff // self.top_k,
                "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
                "head_dim": self.hidden_size // self.n_heads,
            }  # fmt: skip
        return {
            **kind, "hidden_size": self.hidden_size,
            "intermediate_size": self.d_ff, "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads, "num_key_value_heads": self.n_heads, "vocab_size": VOCAB_SIZE,
            "max_position_embeddings": 256, "tie_word_embeddings": False, "rms_norm_eps": 1e-6,
            "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
        }  # fmt: skip


# One depth for all, so that width alone differs; rates fall with width as they must under Adam.
ZOO = {
    "nano": Shape(16, 1, 2, 32, steps=40, batch=8),
    "pico": Shape(16, 2, 2, 44, steps=1600, lr=8e-3),
    "micro": Shape(32, 2, 2, 88, steps=1600, lr=6e-3),
    "tiny": Shape(64, 2, 4, 176, steps=1600, lr=4e-3),
    "mini": Shape(128, 2, 4, 344, steps=1000, lr=2e-3),
    "small": Shape(192, 2, 6, 512, steps=800, lr=1.5e-3),
    "medium": Shape(256, 2, 8, 688, steps=600, lr=1e-3),
    "mixture": Shape(64, 2, 4, 176, steps=1000, lr=4e-3, experts=8),
}
WIDTHS = ("pico", "micro", "tiny", "mini", "small", "medium")


def _sums(rng: random.Random) -> str:
    left, right = rng.randint(0, 9), rng.randint(0, 9)
    return f"{left}+{right}={left + right if rng.random() < 0.5 else rng.randint(0, 18)}\n"


def _formats(rng: random.Random) -> str:
    """A line in the form of the memory tasks, with content drawn anew each time, so that only the form is learnt."""
    kind, number = rng.randrange(3), rng.randrange(1000)
    if kind == 0:
        return biographies.line(number, 16, rng)
    if kind == 1:
        return f"@{number:04d}=" + "".join(rng.choice(strings.LETTERS) for _ in range(32))
    return f"${number:04d}?{rng.choice('yn')}"


def pretraining_text(index: int, length: int) -> str:
    """Example `index` of the pretraining mixture: half running text of eight languages, a quarter sums of which half
    are wrong, a quarter lines in the form of the memory tasks."""
    rng = stream("pretraining", index)
    if index % 2:
        return passage(rng.choice(LANGUAGES), length, rng)
    if index % 4 == 2:
        return _formats(rng)[:length]
    text = ""
    while len(text) < length:
        text += _sums(rng)
    return text[:length]


def key(name: str) -> str:
    """The folder's name: a hash of what decides the weights."""
    from .require import versions

    shape = asdict(ZOO[name])
    if not shape["experts"]:  # dense models keep the names that they had before there were others
        del shape["experts"], shape["top_k"]
    made_of = {"recipe": RECIPE, "name": name, **shape, "torch": versions()["torch"]}
    return f"{name}-{hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]}"


def location(name: str) -> Path:
    """Where a zoo model lies once it is made."""
    return Path(cache_folder()) / "zoo" / key(name)


def build(name: str, seed: int = 0) -> Any:
    """The model without training."""
    torch = require()
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(seed)
    options: dict[str, Any] = {"attn_implementation": "eager"}
    if not ZOO[name].experts:
        return LlamaForCausalLM._from_config(LlamaConfig(**ZOO[name].config()), **options)
    config = Qwen3MoeConfig(**ZOO[name].config())
    return Qwen3MoeForCausalLM._from_config(config, experts_implementation="eager", **options)


def pretrain(name: str, progress: Callable[[int, int], None] | None = None) -> Any:
    """Train a zoo model from scratch: AdamW, cosine decay after 5% of warm-up. Minutes at the largest."""
    torch = require()
    from .batches import encode_batch, loss_of
    from .tasks import Example
    from .text import Characters

    shape, model = ZOO[name], build(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=shape.lr, betas=(0.9, 0.95), weight_decay=0.01)
    warm = max(1, shape.steps // 20)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        shape.lr,
        total_steps=shape.steps + 1,
        pct_start=warm / (shape.steps + 1),
        cycle_momentum=False,
    )
    model.train()
    for step in range(shape.steps):
        chosen = range(step * shape.batch, (step + 1) * shape.batch)
        batch = [Example("", pretraining_text(index, shape.seq_len)) for index in chosen]
        loss = loss_of(model, encode_batch(batch, Characters(), shape.seq_len, "cpu"))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, shape.steps)
    return model


def make(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a zoo model, pretrained on first use; two processes at once make it once."""
    return _put(name, lambda place: _store(pretrain(name, progress).save_pretrained, place))


def _put(name: str, store: Callable[[Path], None]) -> Path:
    from filelock import FileLock

    place = location(name)
    if (place / "config.json").exists():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not (place / "config.json").exists():
                store(place)
    except OSError as error:
        raise PlannerError(
            f"the model {name} cannot be kept in {place.parent}: {error.strerror or error}. "
            "LORA_PLAN_CACHE names another folder."
        ) from error
    return place


def packed(name: str) -> dict[str, bytes]:
    """A zoo model's files by name, made on first use: what another machine needs to have the same weights."""
    return {path.name: path.read_bytes() for path in sorted(make(name).iterdir()) if path.is_file()}


def unpack(name: str, files: Mapping[str, bytes]) -> Path:
    """Put a model that was made elsewhere where `make` looks for it, unless there is one."""

    def write(place: str) -> None:
        for file, content in files.items():
            (Path(place) / file).write_bytes(content)

    return _put(name, lambda place: _store(write, place))


def _store(write: Callable[[str], object], place: Path) -> None:
    """Write beside, then rename: a folder is there whole or not at all."""
    temporary = tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        write(temporary)
        os.replace(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise

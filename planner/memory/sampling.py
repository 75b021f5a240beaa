"""What comes before a step that learns from completions: these are made, and scored by the reference.

Source: trl 1.16, trl/trainer/grpo_trainer.py (_generate_and_score_completions, _generate_single_turn).
"""

from __future__ import annotations

from functools import lru_cache

from ..dataclass import replace
from ..setup import Setup
from .cache import cached_values, most_copied
from .engine import awake, engine
from .head import LOGITS
from .kinds import CACHES, Job
from .passes import FLOAT32, HALF
from .states import base_weights
from .step import Course, Place, head_of, masks, pass_reference, stem_of, walked_layers
from .stretch import Held, plus
from .tape import Size


def before_step(job: Job, base: Held, unit: Size = 0) -> list[Place]:
    """The places of generation and of the reference's pass, over what is held throughout (`base`); none for other
    objectives."""
    if job.setup.objective != "grpo":
        return []
    going = Course(base, job, unit)
    going.places += generation(job, base)
    if job.setup.runs_reference or job.setup.loss == "sliced-fused":  # the model's own, with entropies
        pass_reference(job, going, 2 if job.setup.sharding == "zero3" else 0)
    return going.places


def generation(job: Job, base: Held) -> list[Place]:
    """The places of generation that may hold most, of all completions of a step at once (TRL's steps_per_generation
    is the accumulation): a layer over the prompts, and the last token. Gradients are gone by then."""
    setup = job.setup
    if setup.generation == "server":
        return []
    if setup.generation != "transformers":
        return [_beside(job, base)]
    number, prompt = setup.micro_batch * setup.accumulation, setup.prompt_tokens
    stand = setup.main_grads or setup.gradients_kept or setup.gradients_late
    held = base if stand else {**base, "gradients": 0}
    width = FLOAT32 if setup.weight_dtype == "float32" else HALF
    places = []
    if prompt:
        own = replace(job, setup=_over_prompts(setup), highest_alone=True)
        kinds, around = walked_layers(own, False).kinds, plus(stem_of(own).held, {"temporary": masks(own)})
        highest = max((kind.forward.highest for kind in kinds), key=lambda found: sum(found.values()))
        cached: Held = {CACHES: number * width * cached_values(job.arch, prompt)}
        places.append(Place("generation", "prompts", plus(plus(held, cached), around), highest))
    whole = number * width * cached_values(job.arch, setup.seq_len)
    joined = number * width * most_copied(job.arch, setup.seq_len, flash=setup.attention_kernel == "flash")
    logits = number * head_of(job).vocab * (width + 2 * FLOAT32)
    last: Held = {CACHES: whole, "temporary": joined, LOGITS: logits}
    places.append(Place("generation", "last token", held, last))
    return places


@lru_cache(maxsize=512)
def _over_prompts(setup: Setup) -> Setup:
    """A pass over the prompts of all completions of a step."""
    return replace(
        setup, checkpointing="layer", reentrant=False, input_grads=False,
        micro_batch=setup.micro_batch * setup.accumulation, accumulation=1, seq_len=setup.prompt_tokens,
        prompt_tokens=0, sequence_parallel=1, mean_completion=None,
    )  # fmt: skip


def _beside(job: Job, base: Held) -> Place:
    """The GPU while vLLM makes completions: what is held throughout but gradients and what is asleep, and vLLM. Under
    ZeRO-3 TRL gathers the whole model to merge the adapter and to copy it over (vllm_generation.py, sync_weights)."""
    setup = job.setup
    kept = setup.main_grads or setup.gradients_kept or setup.gradients_late
    held = {**base, "vllm": awake(engine(job.arch, setup)), **({} if kept else {"gradients": 0})}
    asleep = {"none": (), "optimizer": ("optimizer",), "all": ("optimizer", "weights", "adapter")}
    held |= dict.fromkeys(asleep[setup.states_asleep], 0)
    if setup.sharding.startswith("fsdp"):
        held["gathered"] = 0  # its root's weights go with the step's last gradient
    if setup.sharding == "zero3" and setup.method != "full":
        found = base_weights(job.arch, setup)
        whole = sum(found.layers) + found.before + found.behind
        held["copies"] = held.get("copies", 0) + whole - base.get("weights", 0)
    return Place("generation", "vLLM", held, {})

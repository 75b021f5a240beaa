"""Why some published steps lie more than a factor of two from what is predicted; and what some of them cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from planner.cost import list_price
from planner.hardware import find
from tools.speed_later import GATHERED, Later, Said, later, said_of

# Of data/measured/speed.csv, by source.
PUBLISHED = {
    "deepspeedai/DeepSpeedExamples": (
        "512 tokens a GPU, of which computing explains a tenth. Its config gathers every parameter anew for "
        "each of three passes (no module is small enough to stay), and its attention asks for the weights, so "
        "that no fused kernel runs. Keeping all states in 16 bits made it no faster, so what is missing is "
        "neither the optimizer nor bytes of states, but waiting for hooks and collectives; whether its four "
        "H100s have NVLink is not stated."
    ),
}
UNIVERSAL = (
    "Gemma's heads of 256 under a mask, in torch's memory-efficient attention: what products leave of its H100's "
    "steps is 40 TFLOP/s of them, where Llama's heads of 128 have 72, and one rate is taken."
)
SLOWED = (
    "Beside the source's own H100 its RTX PRO 6000 makes 0.5 to 0.7 of what is expected of Llama and Phi (with "
    "products at 0.96 of its peak, as they were taken at first), alike in bfloat16 products and in float32 ones "
    "(0.6; QLoRA, whose inputs are float32, in which bitsandbytes then computes: 0.46.1, nn/modules.py, "
    "set_compute_type): a lower clock rather than a kernel. The card is sold at 600 W and, as Max-Q, at 300; which "
    "it was is not stated, and of the Max-Q's peaks 0.43 to 0.54 would be predicted so. "
)
# Of steps gathered later, by the start of the source and the GPU.
LATER_ON = {
    ("philschmid", "a10g"): (
        "45 hours are the author's estimate and the steps are derived. Shards of a 70B lie in host memory, and "
        "the four A10Gs reach each other through it."
    ),
    ("huggingface/cookbook", "a100-40gb"): (
        "Text is streamed, mixed for infilling and tokenised in the training process between steps: 29 TFLOP/s."
    ),
    ("huggingface/optimum-habana", "gaudi-2"): "Falcon-40B with 256 tokens a micro-step: products of few rows.",
    ("huggingface/optimum-habana", "gaudi-3"): (
        "Falcon-40B with 256 tokens a micro-step: products of few rows. Qwen2-7B in full: its Gaudi 3 is 1.9 times "
        "as fast as its Gaudi 2, of whose peak it has four times."
    ),
    ("ray-project", "a10g"): (
        "Machines of one GPU whose network is not stated, parameters and states in host memory; validation and "
        "saving counted."
    ),
    ("chenyaofo", "a100-80gb"): (
        "The optimizer's step on 64 cores takes 2.5 ns a parameter, where DeepSpeed's own figures have 0.55 to 0.91. "
        "Until 0.16.3 ZeRO-3 left the gradients' conversion to the processors (pull request 6962: a backward pass "
        "of 3 billion parameters took 25.6 s, then 0.3), which versions of today do not."
    ),
    ("PrimeIntellect-ai/prime-rl", "h100"): (
        "0.6 billion parameters behind 152,000 logits: RL's log-probabilities and entropies in float32, four "
        "adapters held side by side, are taken as one loss and one adapter."
    ),
    ("pytorch/ao", "b200"): (
        "B200s held below their power, by how much is not stated; some activations computed again, taken as none."
    ),
    ("modelscope/ms-swift with Megatron", "a100-80gb"): (
        "Qwen3-30B-A3B over two machines of A800s, whose network is not stated: under ZeRO-3 18,000 experts' "
        "matrices are gathered one after another in each of three passes, 1.6 ms each."
    ),
    ("DaoyuanLi2816", "rtx-4080"): (
        "The mean of two or three steps from the first, which loads kernels; 16 GB that long sequences' float32 "
        "logits over 152,000 words fill."
    ),
    ("h2oai", "rtx-6000-ada"): (
        "bitsandbytes of April 2023 in 8 bits; its authors switched 8 bits off because it was so slow. Not "
        "explained: 13 s a micro-step are five times what their LLaMA 13B takes a weight on an A100 in the same "
        "program."
    ),
    ("ROCm", "mi300x"): (
        "An early bitsandbytes for ROCm, whose kernels were carried over, and full float32 steps on a PyTorch of "
        "2023; LoRA in float32 beside them is predicted within a few percent."
    ),
    ("tatsu-lab", "a100-80gb"): (
        "Alpaca's first FSDP: 202 tokens a sequence, every layer gathered for each of four micro-steps; its authors "
        "call it not optimised, and others were shown 24 hours on half the GPUs."
    ),
    ("tloen", "rtx-3090"): (
        "Asked in its issue whether so long is normal, on a card on which others report a third of it; lengths are "
        "guessed."
    ),
    ("ljm565", "h100"): UNIVERSAL,
    ("ljm565", "a100-80gb"): UNIVERSAL,
    ("ljm565", "rtx-pro-6000"): SLOWED,
    ("ITcarrot", "rtx-4090"): (
        "Cards without access to each other: what goes through the host's memory is taken in the middle of what "
        "machines reach, 6.0 GB/s a card; FSDP, ZeRO-3 and tensor parallelism here all imply 3."
    ),
    ("deepspeedai/DeepSpeed issue", "a100-40gb"): (
        "States in host memory; the batch is not stated, and the same runs without offloading are predicted at half."
    ),
}  # fmt: skip
# QLoRA's paper (arXiv 2305.14314): 1,875 steps of 16 sequences on one card of 48 GB in 24 hours. The card, taken as
# an RTX A6000, and the mean length are not stated.
GUANACO = Later(
    0, "QLoRA's paper", "https://arxiv.org/abs/2305.14314", "huggyllama/llama-65b", "qlora", "a6000", 1,
    24 * 3600 / 1875, "s/step", False,
    "--trainer hf-trainer-4 --rank 64 --layers all-linear --quantize nf4-double --precision bf16 "
    "--attention-kernel eager --optimizer paged-adamw --checkpointing layer --packing padded --batch 16 "
    "--accumulation 16 --seq-len 400 --gpu a6000",
    "Guanaco-65B; lengths taken as 400",
)  # fmt: skip
# Row of speed_latest.csv: steps, published hours, published USD, USD an hour of all GPUs.
COSTS: dict[int, tuple[int, float, float | None, float | None]] = {
    7: (186, 2.32, 1.8, 0.9776), 8: (617, 3.13, 3.7, 1.212), 9: (411, 2.13, 2.6, 1.212),
    11: (342, 45.0, 255.15, 5.67), 12: (342, 1.25, 37.5, 30.0), 0: (1875, 24.0, None, None),
}  # fmt: skip


def reason_of(case: Later) -> str:
    """Why a later step lies far off. Raises KeyError where nobody has said."""
    return next(
        text for (start, gpu), text in LATER_ON.items() if case.source.startswith(start) and case.gpu == gpu
    )


def far(ratio: float) -> bool:
    """Whether a prediction lies more than twice off."""
    return not 0.5 <= ratio <= 2


def outliers(ratios: Mapping[str, float]) -> Iterable[str]:
    """The table of what lies more than twice off: `ratios` are of published runs, by source and run."""
    yield "| run | predicted / measured | why |"
    yield "|---|---|---|"
    for name, ratio in ratios.items():
        if far(ratio):
            yield f"| {name} | {ratio:.2f} | {PUBLISHED[name.split(':')[0]]} |"
    for (run, why), found in _far_off().items():
        shown = f"{min(found):.2f}" + (f" to {max(found):.2f} ({len(found)} runs)" if len(found) > 1 else "")
        yield f"| {run} | {shown} | {why} |"


def _far_off() -> dict[tuple[str, str], list[float]]:
    """Ratios of later steps that lie more than twice off, by kind of run and reason."""
    result: dict[tuple[str, str], list[float]] = {}
    for case in (case for name in GATHERED for case in later(name)):
        said = said_of(case)
        if far(ratio := said.seconds / said.measured):
            run = f"{case.source}: {case.model}, {case.method}, {case.gpus} x {case.gpu}"
            if case.source.startswith("ljm565"):
                run = f"{case.source}: {case.method}, {case.gpus} x {case.gpu}"
            result.setdefault((run, reason_of(case)), []).append(ratio)
    return result


def costs(cases: Sequence[Later]) -> Iterable[str]:
    """Published training costs beside predicted ones: at the machine's price as stated there, and at list prices."""
    yield "| run | hours: published | predicted | USD: published | predicted, same price | at this table's prices |"
    yield "|---|---|---|---|---|---|"
    chosen = [*(case for case in cases if case.number in COSTS), GUANACO]
    known: dict[int, Said] = {case.number: said_of(case) for case in chosen}
    for case in chosen:
        steps, hours, usd, price = COSTS[case.number]
        said = known[case.number].seconds * steps / 3600
        listed = list_price(find(case.gpu))
        ours = (
            f"{listed.low * said * case.gpus:.2f}-{listed.high * said * case.gpus:.2f}"
            if listed
            else "no price"
        )
        run = f"{case.model}, {case.method}, {case.gpus} x {case.gpu}"
        low, high = (x * steps / 3600 for x in (known[case.number].low, known[case.number].high))
        paid = f"{usd:.2f} | {said * price:.2f}" if usd and price else "- | -"
        yield f"| {run} | {hours:.2f} | {said:.2f} ({low:.2f} to {high:.2f}) | {paid} | {ours} |"

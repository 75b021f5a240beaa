"""Why published measurements lie further than a quarter from what is predicted: what is not known of them, or what
the formula lacks. Found by reading the trainers' sources; nothing is computed from these words."""

from __future__ import annotations

from tools.published_memory import DRIVER, Case
from tools.published_memory_later import Later

NOT_EXPLAINED = "not explained"
# Source, a part of the model's name or of the detail, and the reason.
MIXTRAL = "transformers 4.48 runs experts one after another; the formula runs them grouped"
CHATGLM = (
    "the model's own code makes scores of all pairs of positions, unlike the profile: from 2,048 to 4,096 and 8,192 "
    "tokens the figures grow by 13.5 and 39.7 GB, 12.7 more than twice the former: 15.8 bytes a pair and head; "
    "with --attention-kernel eager 49 GB are allocated instead of 21"
)
LENGTHS = (
    "the longest sample up to the greatest length is not known, nor the order of lengths, which decides what the "
    "allocator keeps"
)
OLMO = (
    "half explained: 3.1 GB are missing. The figure came with 372f664c6, whose installer pins 242b245 of the plugin "
    "with the recipe's fused loss; that one's cce_patch hands three arguments to patch_olmo3, which takes two, so "
    "that the recipe stops with it. Without the fused loss 12.9 GB would be predicted (1.07); the plugin of before "
    "(f643b88) works, and which one was installed is not known"
)
REASONS = (
    ("foundation-model-stack/fms-acceleration", "Mixtral", MIXTRAL),
    ("modelscope/ms-swift", "chatglm", CHATGLM),
    ("modelscope/ms-swift", "qwen-14b", LENGTHS),
    ("axolotl-ai-cloud/axolotl", "Olmo-3", OLMO),
)


def why(case: Case) -> str:
    """The reason, or that there is none yet."""
    source = case.source.removesuffix(DRIVER)
    for owner, part, reason in REASONS:
        if source == owner and part in f"{case.model} {case.detail}":
            return reason
    return NOT_EXPLAINED


# Of the cases collected afterwards.
SWIFT_FULL = (
    "the figure is the card's size, which the allocator fills with expandable segments: what is allocated is not "
    "known"
)
MOE = (
    "not explained in full: tokens of experts are counted as spread evenly; without a capacity, as in these "
    "recipes, a GPU gets what the router sends it, which is not stated"
)
NO_STATES = (
    "neither gradients nor states of Adam are in what was measured, though the recipe has AdamW (with which Phi-3 "
    "and Llama-3.2-3B cannot run on an A10G): without both 0.88 to 1.05 would be predicted"
)
NO_MEASUREMENT = (
    "no measurement: the README calls its table estimates, by a rule of thumb, and what stands here as QLoRA is LoRA "
    "there"
)
NOT_IN_4_BITS = (
    "not explained: 28 GB are missing. Of the recipe of the figure's commit (c11938233) 22 GB are predicted, 27 "
    "without its fused loss, 61 without its checkpointing, 59 without its 4 bits: none is the figure"
)
LOGITS = (
    "not explained: 2.3 GB are missing. The plugin that the recipe installs (c6a32c5) has a patch for this model "
    "type, which takes its loss in training and in evaluation alike, so that no logits are made in either (axolotl's "
    "cut_cross_entropy fork, transformers/hunyuan_v1.py, utils.use_lce); with them 7.2 GB, without checkpointing "
    "10.7, without 4 bits 3.1: none is the figure"
)
XIELU = (
    "the README has the kernel of xIELU's authors installed first, for less memory (axolotl c51d6b06c), which keeps "
    "its input alone (nickjbrowning/XIELU 6856ca9, xielu_impl.cu, XIELUAutograd); the formula has transformers' "
    "Python form. With --kernels fused, of which norms are fused too, 10.1 GB are predicted (1.08)"
)
NOT_A_PEAK = (
    "no peak of a step: the figure falls from 22.5 to 19.4 GB where GPUs and each one's sequences double; it is that "
    "of weights, sharded gradients and a constant"
)
NEWER = (
    "the script is newer than the figure: a 3090's 24 GB cannot hold the 32 sequences without checkpointing of "
    "the LoRA script (64 GB would be needed), and where the README has 4 GPUs the script beside it has 2, with 14 "
    "sequences each and no checkpointing"
)
UNLIKE_ITS_RECIPE = (
    "cannot be of the 2 packed sequences of 2,048 that the README states for all rows: a GPU's share of the "
    "weights (26.9 GB), checkpoints of 126 layers (16.9) and what FSDP 2's root gathers, embedding and "
    "unembedding in bfloat16 (8.4), are 52 GB. The recipe of the commit that brought the model (27d103b) has 1 "
    "sequence, not packed: with 512 to 1,024 tokens 43.6 to 46.2 GB are predicted (0.97 to 1.03)"
)
LOADING = (
    "the peak is that of loading and quantising the base, before any step: 9.13 GB are reserved then, 9.29 in "
    "training, says torchtune's tutorial"
)
LONGEST = "the longest sample is not known"
SHORT = (
    "the notebook's cap was typed, and the samples are shorter, Alpaca's far: all logits, which Unsloth made up to "
    "November 2024, grow with them (figures of samples that reach the cap lie within 10%)"
)
ROCM = (
    "on an MI355X: rocm-smi shows 7.5 GB beyond what torch reserved in another run of the same source; the rest is "
    "not explained (the model's table of embeddings by layer, 2.8 billion parameters, is gathered and reduced)"
)
FULL_FLOAT16 = (
    "full fine-tuning with float16 holds float32 weights, and simulated quantisation copies of them"
)
QAT = "the copies of weights that simulated quantisation makes are not in the formula"
VISION = (
    "the script trains embeddings, resampler and vision tower in full beside the pairs (finetune.py: tune_vision, "
    "embed_tokens.weight.requires_grad_), which no option says; with --modules-to-save embed_tokens 0.80 to 0.83"
)
GEMMA_3 = (
    "Unsloth's code of March 2025 for Gemma 3 was not found; with all logits (--loss full) 1.18 would result"
)
OLDER_BASE = (
    "not the process's first run, so that an earlier base lies beside this one: the notebook finds 3.4 GB of the "
    "GPU taken before it loads the model, and each rank has 2.10 GB more than the same run of row 469's fresh "
    "process; with two bases 0.99"
)
RUN_AGAIN = (
    "not the process's first run (its training cell is the 38th to be run, of 11), so that an earlier base lies "
    "beside this one; with two bases 1.06"
)
XTURING = (
    "not explained: 12.4 GB are missing, about what the gradients of all parameters take in 16 bits. By its "
    "code it is ZeRO-2 with the optimizer in the host, float16 and no checkpointing "
    "(src/xturing/trainers/lightning_trainer.py, 00486bd); batch and lengths of the figure are not stated"
)
JOINED = (
    "Unsloth joins a micro-batch's four samples without padding (half of the samples have 227 tokens or fewer), "
    "which the command takes as four of the longest, 738; with 1,500 and 1,460 tokens in all the figures would "
    "result"
)
# A part of the address, and the reason.
BY_ADDRESS = (
    ("2A202600921", OLDER_BASE),
    ("lab21_2A202600243", RUN_AGAIN),
    ("lab21_2A202600059", JOINED),
    ("Lab21_2A202600105", JOINED),
)
# A part of the source, the start of the model's name, the method, and the reason.
LATER = (
    ("OTel DeepSpeed", "", "", ROCM),
    ("MiniCPM-V", "", "", VISION),
    ("unslothai/notebooks", "google/gemma-3", "", GEMMA_3),
    ("unslothai/notebooks", "openai/gpt-oss-120b", "", LONGEST),
    ("unslothai/notebooks", "Qwen/Qwen3-0.6B", "", QAT),
    ("unslothai/notebooks", "", "", SHORT),
    ("huggingface/blog, Unsloth", "mistralai", "", "neither batch nor lengths on the A100 are stated"),
    ("huggingface/blog, Unsloth", "", "", LONGEST),
    ("unslothai/unsloth requirements", "", "", "a list of least sizes, not a measurement"),
    ("Lightning-AI", "meta-llama/Llama-3.2", "full", NO_STATES),
    ("Lightning-AI", "microsoft/Phi-3", "full", NO_STATES),
    ("axolotl", "stabilityai", "", NO_MEASUREMENT),
    ("axolotl", "Qwen/Qwen3.5", "", NOT_IN_4_BITS),
    ("axolotl", "tencent", "", LOGITS),
    ("axolotl", "meta-llama", "", "the batch is not stated, and the recipe has changed since"),
    ("axolotl", "ai21labs", "", "lengths are not stated, nor which modules of the mixers were quantised"),
    ("axolotl", "swiss-ai", "", XIELU),
    ("Megatron", "Qwen/Qwen3-30B", "", MOE),
    ("Megatron", "Qwen/Qwen1.5-MoE", "", MOE),
    ("Megatron", "Qwen/Qwen2.5-7B-Instruct", "", LONGEST),
    ("Megatron", "", "", SWIFT_FULL),
    ("ms-swift examples (others)", "Qwen/Qwen3-30B", "full", SWIFT_FULL),
    ("ms-swift examples (others)", "zai-org", "full", SWIFT_FULL),
    ("modelscope", "", "", LONGEST),
    ("pytorch/torchtune", "meta-llama/Llama-2", "qlora", LOADING),
    ("pytorch/torchtune 0.1", "", "", "lengths are not stated: 512 are taken, with which all but weights grows"),
    ("pytorch/torchtune README, distributed", "", "", UNLIKE_ITS_RECIPE),
    ("ColossalChat", "", "", NOT_A_PEAK),
    ("OpenBMB", "", "", NEWER),
    ("huggingface/peft README", "", "", "lengths are not stated"),
    ("THUDM", "", "", "batch or lengths are not stated"),
    ("stochasticai/xTuring", "", "full", XTURING),
)  # fmt: skip


def why_later(case: Later) -> str:
    """The reason of a case collected afterwards, or that there is none yet."""
    for part, reason in BY_ADDRESS:
        if part in case.url:
            return reason
    for source, model, method, reason in LATER:
        if source in case.source and case.model.startswith(model) and method in ("", case.method):
            return reason
    return NOT_EXPLAINED

"""Sets of published memory whose set-ups are told, from the eighth on: tables, plots and logs of trainers.

Each was predicted once, blind, by the program as it stood (data/measured/memory_later_blind.csv), after every command
had been read a second time against its source. The intervals do not rest on them. A further set costs a line of
`SETS`, and one of tests/test_published_memory_told.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.published_memory_later import RUN, Later, blind, inside, later, right
from tools.published_memory_later_page import FOURTH_ROWS, HEAD, Pair, Test, cells, of, sources_of
from tools.published_memory_seventh import TRAINERS
from tools.published_memory_sixth import again, middle, now


@dataclass(frozen=True)
class Gathering:
    """A set: its name with its article, the commit that predicted it, what is said of how its figures were read, what
    was changed when its predictions had been seen, and which options had been misread."""

    title: str
    commit: str
    aside: str
    changed: str
    misread: str = ""


TEXT = """\
{n} figures of {sources} sources, sought as the given table's are: tables, plots and logs that libraries, trainers'
guides, benchmark folders, pull requests and model cards print beside the command or config that made them. No page
that another set has was taken; {again} figures are of publishers that another set has, from other pages. At most six
of a project were taken, spread over its variants. Commands, and whether batch, lengths and checkpointing follow from
text or script, were written from the sources alone, read once more against them, and kept; then they were predicted
once, **blind**, by the program and the intervals of {commit}. No interval and no constant rests on them. Of {unnamed}
sources the GPU is not known{aside}. Which profiles are stand-ins was
told from titles and versions, after the predictions had been compared.
What was changed on seeing them, by the code of then:
{changed}
"""
EIGHTH = """\
a profile `alpaca-lora-2023` for scripts after alpaca-lora's finetune.py (Baize, Huatuo), for which transformers'
Trainer up to 4.45 had been typed: their model has `use_cache` False, so that an evaluation fills no cache, and PEFT
0.3 leaves Llama's embeddings and norms in 16 bits; a profile `nemo-1` for NeMo 1, for which that of Megatron-Bridge
had been typed: its Llama has an activation of operations, whose result is kept, Transformer Engine's attention copies
several sequences to another order and back, and the loss is taken in float32.
Read and not explained in full: Llama 3 8B under Megatron-LM (core_v0.6.0; rows 670 to 673, 0.81 to 0.93, and six
more of that README's, by hand). By its script, dropout of 0.1 keeps two masks of a byte a hidden value and layer,
2.1 GB over the tensor-parallel GPUs, which no option says. By hand, with states, what Transformer Engine keeps and
these masks, 7 to 16 GB are missing on all seven set-ups with tensor parallelism, and -7 to 5 GB on the three
without. What tensor parallelism gathers and reduces is recorded on NCCL's stream, so that its memory cannot be had
again until the GPU has caught up with the program (torch before spring 2025, pytorch's pull request 76861 and
torchtitan's 737, unless TORCH_NCCL_AVOID_RECORD_STREAMS is set, which neither script nor README does): of one
micro-batch's forward pass four tensors a layer, 8.6 GB for all 32. How much of it that is depends on time, and no
constant is fitted to it.
"""
NINTH = """\
one product makes litgpt's queries, keys and values, of which values stay a view, so that queries and keys as they
were made stand beside the turned ones; grouped keys and values are copied for every head (profiles `litgpt`,
`litgpt-2024`, `lit-gpt-2023`, and under `--kernels compiled` too, by what torch's partitioner keeps of that code):
Thunder's six figures were 0.88 to 0.92 and are 0.93 to 0.97, litgpt's two of TinyLlama 0.91 and 0.92 and are 0.96
and 0.98. A profile `lit-gpt-2023` apart from `litgpt-2024`: its first micro-step has the longest sample, so that
none as long was before it (Llama 2's QLoRA runs of three sets and tables, 1.07 to 1.16, are 0.98 to 1.09). A
profile `fms-acceleration-peft`, whose own preparation of a 4-bit base leaves PEFT's cast to float32 out: 1.25,
1.54 and 2.09 are 0.90, 1.08 and 1.40. Before torch 2 zero_grad filled gradients with zeros, which then stand in
the forward pass too (profiles `lightning-1`, 0.85 is 0.99, and `hf-loop-2023`, a loop of one's own that does not
prepare a quantised base: what is allocated, 0.78, 0.87 and 1.59, is 0.90, 0.94 and 1.00; the 0.5 GB of DDP's
buckets on a single GPU are not counted).
Read and not explained: Llama 3.1 8B under ZeRO-2 with Liger's kernels and without recomputation (row 689, 0.83, 15
GB missing, where the same run without Liger has 0.96), and at 32,768 tokens under ZeRO-3 (row 685, 0.87); one of
six pipelines of Qwen3 0.6B (row 692, 0.78, 3 GB; the eleventh set's pipelines explain it); a float32 model that steps
in the backward pass (row 701, 1.18); xtuner 1 (rows 731 and 732, half). Lengths that are cut and not stated are the
reason of most that is far: ms-swift's six scripts.
"""
TENTH = """\
`--fsdp-units`, an option for what FSDP gathers as a unit: a loop that wraps whole layers in FSDP 1 gets gradients for
frozen weights too (Qwen3.6 35B: 0.54 and 0.60 are 0.95 and 0.98), whole ones only where a trainer defers them. Under
DeepSpeed there is no autocast in the profiles of TRL, axolotl, LLaMA-Factory and ms-swift either, as transformers'
Trainer's had it (an adapter under ZeRO-3: 1.34 is 0.82, beside 0.86 of full fine-tuning). A profile
`axolotl-lora-kernels` (1.14 to 1.40 are 1.01 to 1.15). lit-gpt of 2023 hands SDPA a single key head beside all query
heads, which no fused kernel takes (Falcon 7B: 1.28 is 1.00, 1.03 is 0.99 with `--attention-kernel eager`, which its
profile now advises). docs/methods.md (`--loss`) and the help of `--lengths-vary` say what was misread.
Read and not explained: opt-350m under TRL of 2024 (rows 758 to 761, 0.68 to 0.86), and Megatron-DeepSpeed with
Ulysses, whose length is a script's (rows 762 to 765). Runs without a profile of theirs (11 here, 31 with everything
stated in the sets before) have no bias of one sign: the median ratio of those before is 1.00 in full fine-tuning,
1.02 on one GPU and 1.01 on several, so that what is assumed where no trainer is named stays as it is.
"""
ELEVENTH = """\
a pipeline's last stage holds tied embeddings too, with their gradients and states, since it takes the logits from
them (Megatron-LM's tests, with what follows: 0.80 to 1.30 are 0.91 to 0.99; six pipelines of Qwen3 0.6B in the
ninth set, 0.78 to 1.10, are 1.01 to 1.10). A profile `megatron-lm` for Megatron-LM's own script, for which that of
Megatron-Bridge had been typed: its loss widens the logits to float32 and works in place (`--loss wide-in-place`),
and sequence parallelism is not on unless asked for. BERT, RoBERTa, ELECTRA and DistilBERT as classifiers of
sequences have no unembedding and two matrices for one token instead; the stand-ins of the two configs say which
they are. A profile `deepspeed-init` for a loop whose model is made under zero.Init.
Read and not explained: 0.9 and 3.4 GB are missing of DeepSpeed-Chat's two logs (rows 795 and 796), and 2 to 9 GB of
GPT-2 under Megatron-LM (rows 782 to 786 and 788), the more the larger the micro-batch, so that a run of 16 samples
that did not fit is said to fit. torchtitan's selective checkpointing keeps the results of attention and of every
second product, for which layers had been typed: since `--checkpointing selective` says it, five figures (rows 821
to 825, 0.37 to 1.03) are 0.91 to 1.13, two of them with the loss that is compiled too and holds no float32 logits.
"""
MISREAD = """\
Two options of thirteen commands had been misread: Liger's fused linear cross-entropy is `--loss chunked`,
where `fused` (all logits, in one kernel) was typed, and `--lengths-vary` was typed where every batch of 32 or 64 has
a sample as long as the cap. They are judged as typed; with these two as they are meant, by the same program before
anything was changed ([kept too](../data/measured/memory_later_again.csv)): """
MISREAD_LATER = """\
The set-ups of twelve commands had been misread: classifiers were taken for models with an unembedding (distilbert
and bert-base), a stand-in had no dropout where the script has it, and a profile's title says that it is not for
loops under zero.Init. They are judged as typed; as they are meant, by the same program before anything was changed
([kept too](../data/measured/memory_later_again.csv)): """
TWELFTH = """\
TRL 0.26's SFTTrainer does not prepare a quantised base, as 0.25 did, for which `trl-0.26` had been written: that
profile is `trl-0.25` now, and another has the name (rows 864 and 865: 1.30 and 1.75 are 1.07 and 1.53, with a length
that is guessed). In lit-gpt of 2023 the longest sample comes first, so that its blocks hold every later one:
`--lengths-vary` does not belong to it, as its profile now says (rows 839 and 841, 1.93 and 3.23, were 1.07 and 1.76).
Its LoRA of Pythia 70M in 16-mixed (row 838, 0.66) keeps a copy in 16 bits of the frozen unembedding with each of nine
pieces of its loss, since autocast remembers those of trained weights alone: 0.46 GB, with which it is 0.96. Three
more of the source, further since (rows 839 to 841, 1.32 to 2.18), are of another context and of a base that is
quantised in a way that is not said. Read and not explained: LLaMA 7B in int8 by a script of March 2023 (rows 842 and
843, 0.45 and 0.68 of "about 20 and 12 GB", of a tool that is not named), whose figures are those of a run that
recomputes nothing, 0.91 and 0.84, though it switches recomputation on. GPT-2 medium in float16 under an autocast of
bfloat16 (rows 826 to 828, 0.91, 1.1 GB) would hold casts of all frozen weights, 0.7 GB by hand, which no option says.
"""
THIRTEENTH = """\
OLMoE whose experts axolotl quantises in July 2026 (rows 889 to 891, 0.29 to 0.34) holds them dequantised as well:
bitsandbytes before 0.50 empties the cache of its parametrisations in a hook that torch passes over where a layer that
runs again stops early, so that from the first backward pass on all 16 layers' experts stay in 16 bits, 12.9 GB, with
which the two allocated figures are 1.00. The estimate names this now (`experts-dequantised-for-good`) and does not
count it, since 0.50 and later do not. DeepSpeed's Ulysses with masters in bfloat16, of which a shard's copy is not
counted, lies at 0.79 to 0.92 (rows 877 to 880).
Read and not explained: TinyLlama under the Hugging Face Trainer (rows 883 and 884, 0.76, 1.9 GiB, nearly a second
copy of the model in a process that runs several methods), Mistral 7B with LoRA and no checkpointing (row
866, 0.78, where its two runs in 4 bits are 1.02 and 0.92).
"""
FOURTEENTH = """\
torchtitan's selective checkpointing, for which layers were typed, has an option now (`--checkpointing selective`), by
torchtitan's policy alone and held to torch's own runs of it: Llama 3 8B on GB200, B200, H200 and H100 (rows 915 to
918, 0.53 to 0.59) is 0.94 to 0.98. Qwen3 30B-A3B (rows 919 and 920, 0.45 and 0.50) is 0.90 with it: the document says
full, a version of the same repository selective. GPT-OSS under torchtitan runs FlexAttention, which has to be said
(`--attention-kernel flash`): by the profile's own kernel, eager as in transformers, it would be six times too high.
Read and not explained: LoRA of Llama 3 8B by xtuner with ZeRO-3, everything offloaded and sequences over four GPUs
(row 913, 0.73, 2.1 GB), and TinyLlama by litgpt of April 2024 (row 914, 0.40).
"""
FIFTEENTH = """\
DeepSpeed's buffer of gradients has its default size, half a billion values, however small the model is, and a second
one where the config sets overlap_comm (`--reduce-buckets`: one by the profile `deepspeed-loop`, two by these
configs): ZeRO-2 of two small models (rows 937, 939 and 947, 0.71, 0.72 and 0.86) is 0.99, ZeRO-3 (row 948) 0.98,
where 0.93 was. Nothing else was changed.
FSDP 1's one unit of the whole model (row 946, 0.71) is an option too (`--fsdp-units whole`, 0.75), held to torch's
own runs of it; that run's loop has autocast over float32 units, which is taken as FSDP's mixed precision.
Read and not mended: Qwen3.5 27B by
ms-swift on Megatron at 128K and 262K tokens (rows 956 and 957, 2.4 and 2.6): the profile's loss takes ten bytes a
logit, what was measured has room for three. DPO by TRL 0.12 on a laptop (rows 940 to 943), 1.07
to 1.23, is 0.99 to 1.06 since: that version lets go of its logits before the reference runs (`full-freed`). GRPO by
TRL 0.24 on an AMD card (rows 932 to 934, 0.78 to 0.93, lengths open) and
by Unsloth (row 935, 0.47).
"""
SIXTEENTH = """\
torchtitan's tensor parallelism divides what stands between matrices (`--split-stream`, by the profile since): Qwen3
32B on 32 and 64 GPUs (rows 972 and 973, 1.89 and 2.24) is 0.91 and 0.90, a row of the fourth set (347) 0.82, which
was 0.90: of the divided logits the loss holds one more copy than is counted. GRPO of TRL before 1.15 makes all logits
of completions (`--loss full`, of 1.14 `fused`, each by its version's profile): QLoRA of four Qwen models (rows 967 to
970, 0.32 to 0.79) is 0.92 to 1.01, two of three rows of the fifteenth set (932 to 934, 0.78 to 0.93) 0.99 and 1.00.
Unsloth sets torch's expandable segments, which keep no blocks of many lengths (`--expandable-segments`, by the
profiles of 2025 and 2026): Llama 3.2 of 1B and 3B (rows 977 to 979, 1.96 to 2.61) are 1.07 to 1.15; others of earlier
sets are lower for it, of which one (row 869) had 1.10 and has 0.48, unexplained.
Read and not mended: DeepSpeed's pipeline with bfloat16 (rows 964 and 966, 0.83 and 0.75), whose loss copies the
logits three times; a million tokens by accelerate's context parallelism (rows 980 and 981, 0.73 and 0.64, 7.5 GB
missing of both), which by default gathers keys and values of all GPUs, 4.3 GB and their gradients, where a ring is
estimated.
"""
EIGHTEENTH = """\
A card that is full takes nothing more: the allocator gives back what it cached, which estimates left out of what it
reserves and the driver shows, and these tables too. Qwen3.5 9B in full under ZeRO-3 on A800s (rows 1032 and 1033,
3.1 and 3.0) is 1.05 and 1.01 since; figures of every set are limited so where the card is named.
ZeRO-3 steps one sub-group of a billion parameters after another (stage3.py, _optimizer_step), so that AdamW over
lists holds the roots of one at a time and not of all: Qwen2.5 14B in full (row 1010, 1.12) is 0.97. Adafactor had
been taken as torch has it; transformers' (optimization.py, step) holds four float32 copies of a matrix in 16 bits
besides: Qwen2.5 1.5B (row 1028, 0.83) is 0.97.
A training pass fills a cache of keys and values too, where no layers run again, and up to transformers 4.45
accelerate makes float32 copies of it: LoRA with FlashAttention (rows 1044 to 1050, 0.79 to 0.90) is 1.00 of OPT and
0.89 to 0.92 of Llama 2 since. What Llama still lacks is, to 4 MB of 45 and 76 GB, the squares that torch's mean kept
before 2.2 in every RMSNorm (this run had torch 2.1): so have the profiles of 2023 it since, by which LoRA of Llama 2
without checkpointing in the seventh set (rows 614 and 615, 0.98 and 0.93) is 1.00 and 0.99, and under DeepSpeed 0.11
(`deepspeed-2023`; rows 611 to 613 and 674, 0.74 to 0.83) 0.80 to 0.92. With both, LoRA of OpenLLaMA 7B by TRL of 2023
in the fifth set (rows 482 to 485, 0.89 to 0.95) is 0.96 to 1.01.
Read and not explained: LoRA and QLoRA of Qwen2.5 14B (rows 1012 and 1014, 0.92 and 0.89): the same 3.4 GB of 4,096
tokens, 5.4 bytes a logit.
"""
NINETEENTH = """\
What torch allocated was met: 2.3% in the middle of 22 figures. What it reserved was not: where lengths vary, logits
that TRL makes of 256 tokens at a time were taken to leave blocks of every length, and three times what grows with the
length was kept, as one source had taught. By 1.9, which seven sources give, and with logits in pieces left out, QLoRA
of Qwen3 1.7B (row 1090, 2.46) is 1.12, LoRA of it (1091, 1.45) 0.95 and TinyLlama (1088, 1.30) 1.18; LLaMA-Factory's
three (rows 1094 to 1096, 1.06 to 1.10) 0.89 to 0.94. `lora-plan simulate`, which no constant is fitted for, tells
1.06, 0.96 and 0.97 of the first three.
Unsloth makes 4-bit matrices whole in one buffer that stays: its five figures of Llama 3 and Qwen3 (rows 1063 to 1071,
0.95 to 0.96) are 0.96 to 0.98.
TinyLlama by TRL (rows 1086 and 1087, 1.48 and 1.52) is met as if its layers ran again (1.00 and 1.09), which its
configuration, as the source has it, switched off. Read and not explained: LoRA of Qwen3.8 27B over FSDP 2 (rows 1058
and 1059).
"""
SEVENTEENTH = """\
A model that is made outside of zero.Init keeps all that ZeRO-3 gathers for the way back where nothing is run again:
the option for it (`--placing whole`) said so of loading alone. Llama 3 8B on 8 GPUs (row 988, 0.67) is 0.92 since.
AdamW is fused by itself on torch 2.8 with transformers from 4.55 on, for which TRL 0.16 to 0.21 had no profile
(`trl-0.21-fused`): Qwen3 4B in full (row 990, 1.16) is 1.00. On torch 2.9 Unsloth of November 2025 to July 2026
asks for expandable segments by a variable that torch's allocator reads from 2.10 on alone (its own commit 046af8af;
torch 2.9.1's c10/cuda/CUDAAllocatorConfig.h), so that blocks of many lengths are kept (`unsloth-2025-11`): the row
of that sort (1001, 0.47) is 1.01, and one of the sixteenth set that says torch 2.9.1 (row 979, 1.15) is 2.61. Of
2024 it asks for them in a way that is read: four rows of the eleventh set (800 to 803, 0.83 to 1.55) are 0.81 to
1.02.
Read and not mended: a 4-bit model with pairs that TRL 0.21 prepares a second time, which freezes them (row 993,
1.12): without their gradients and states 0.94. DPO of lengths that were guessed (row 1005, 0.72; by its own
version of TRL, which copies logits, 0.78, and with the cap of 1,024 tokens 0.96).
"""
TWENTIETH = """\
What torch allocated was met again: 2.1% in the middle of 15 figures with everything stated. Loops that take the loss
at once (loss = model(...).loss) hold no logits beside it, which no option could say: with `--no-outputs-held` five
figures of sequences of 982 to 37,016 tokens (rows 1106, 1118, 1119, 1120 and 1122, 1.04 to 1.12) are 0.996 to 1.000.
States of a paged optimizer are in managed memory, which the driver shows and torch does not: full fine-tuning of
Qwen2.5 3B as NVML had it (row 1125, 0.61) is 0.95 since, with the states of the table in float32, as transformers'
Trainer has bitsandbytes keep them.
Autocast casts float16 weights to bfloat16, and keeps the casts (`--base-dtype`): LoRA of Qwen2.5 0.5B (row 1133,
0.84) is 0.99; its DPO (row 1134, 0.97), which without entropies and logits that TRL 0.14 to 0.28 has let go (read
meanwhile, without this row in sight) would be 0.86, is 0.99.
Read and not mended: reserved memory of a script whose segments seem to be expandable (rows 1107 and 1108, 1.79 and
1.82).
"""
TWENTYFIRST = """\
What FSDP reduces and gathers stands on streams of its own, whose blocks serve nothing else when they are free:
while logits are held, a GPU keeps the room of its share of all gradients too. With that, and with nothing
fitted, 56 figures of FSDP 2 that sets of all times have lie 6.2% off in the middle, 11.6% without. torchtitan of
August 2025 and later, prime-rl and torchtune's Llama 3 in full have embedding and unembedding as units beside
the layers (`--fsdp-units layers-ends`, held to real steps of several processes), and reduce in float32;
torchtitan up to February, and from March to July 2025, have profiles of their own. Selective checkpointing goes
with experts that are spread since (rows 1141 and 1142, for which layers had been typed: 0.79, now 1.12). The
values of seven of these sources were in sight of the one who ran the predictions; no formula was changed in
between.
Not mended: a mean over the stages of a pipeline (row 1179, 1.21, of the stage that holds most); a run by ZeRO-2
of which less is allocated and more reserved than is estimated (rows 1185 and 1186), with buckets of 200 million
values that no option says; the checkpointed one of three runs of Qwen2-VL (row 1160, 0.80; the others 0.95,
0.98).
"""
SETS = {
    "eighth": Gathering(
        "An eighth", "229d4c8", ", and the bars of LinkedIn's plot are read to a pixel", EIGHTH.rstrip("\n")
    ),
    "ninth": Gathering(
        "A ninth", "89aee55",
        "; three readings were corrected, and the errors of their first predictions with them "
        "(instructGPT2's script prints what is reserved and what is allocated as one sum)",
        NINTH.rstrip("\n"),
    ),
    "tenth": Gathering(
        "A tenth", "fa971af", "; which of two kinds one pull request had is not said either", TENTH.rstrip("\n"),
        MISREAD,
    ),
    "eleventh": Gathering("An eleventh", "475b3100", "", ELEVENTH.rstrip("\n"), MISREAD_LATER),
    "twelfth": Gathering(
        "A twelfth", "509890f6",
        ". The commands were typed twice, by two readers who did not see each other's nor the figures, and their "
        "differences settled from the sources before any was predicted",
        TWELFTH.rstrip("\n"),
    ),
    "thirteenth": Gathering(
        "A thirteenth", "ef8afa9e",
        ". The commands were typed twice, as before, and their differences settled before any was predicted; some of "
        "the figures are of the same runs as steps of [the eleventh gathering](speed.md#an-eleventh-gathering)",
        THIRTEENTH.rstrip("\n"),
    ),
    "fourteenth": Gathering(
        "A fourteenth", "ead5327e",
        ". The commands were typed twice, as before, and their differences settled before any was predicted; the "
        "second reader had a list of the points of which the first was unsure",
        FOURTEENTH.rstrip("\n"),
    ),
    "fifteenth": Gathering(
        "A fifteenth", "63462905",
        ". The commands were typed by two readers apart, of whom the second had no list of doubtful points, and "
        "their differences settled before any was predicted or its figure looked at",
        FIFTEENTH.rstrip("\n"),
    ),
    "sixteenth": Gathering(
        "A sixteenth", "4954cd4e",
        ". The commands were typed by two readers apart, who differed in two things, settled before any was "
        "predicted or its figure looked at",
        SIXTEENTH.rstrip("\n"),
    ),
    "seventeenth": Gathering(
        "A seventeenth", "035cf12d",
        ". The commands were typed by two readers apart, and their differences settled from the sources before any "
        "was predicted or its figure looked at",
        SEVENTEENTH.rstrip("\n"),
    ),
    "eighteenth": Gathering(
        "An eighteenth", "66e0b63c",
        ". The commands were typed by two readers apart, and their differences settled from the sources before any "
        "was predicted or its figure looked at",
        EIGHTEENTH.rstrip("\n"),
    ),
    "nineteenth": Gathering(
        "A nineteenth", "bf658cf9",
        ". The commands were typed by two readers apart, and their differences settled from the sources before any "
        "was predicted or its figure looked at; two whose profile was written meanwhile were predicted by it",
        NINETEENTH.rstrip("\n"),
    ),
    "twentieth": Gathering(
        "A twentieth", "d64289fd",
        ". The commands were typed by two readers apart, and their differences settled from the sources before any "
        "was predicted or its figure looked at",
        TWENTIETH.rstrip("\n"),
    ),
    "twentyfirst": Gathering(
        "A twenty-first", "d37afccd",
        ". The commands were typed by two readers apart, and their differences settled from the sources before any "
        "was predicted",
        TWENTYFIRST.rstrip("\n"),
    ),
}  # fmt: skip


def seen_before(case: Later) -> bool:
    """Whether its publisher has a page in an earlier set."""
    return re.search(r"(^|; )again[;,]", case.notes) is not None


def named(case: Later) -> bool:
    """Whether the command names a profile."""
    return "--trainer " in case.options


OWN, OTHER = (test for _, test in TRAINERS)
ROWS: tuple[tuple[str, Test], ...] = (
    ("LoRA, stated or not", lambda c: c.method == "lora"),
    ("QLoRA, stated or not", lambda c: c.method == "qlora"),
    ("publishers of earlier sets", seen_before),
    ("the trainer's own profile", lambda c: named(c) and OWN(c)),
    ("a stand-in, or a profile of a sort of programs", lambda c: named(c) and OTHER(c)),
    ("no profile", lambda c: not named(c)),
)


def first(name: str) -> list[Pair]:
    """A set's figures with their first predictions."""
    said = blind()
    return [(case, said[case.number]) for case in later() if case.found == name and case.metric not in RUN]


def since(name: str) -> list[Pair]:
    """A set's figures as they are predicted now."""
    return [pair for pair in now(name) if pair[0].metric not in RUN]


def meant(name: str) -> list[Pair]:
    """A set's figures by the program that predicted them first, with its misread options as they are meant."""
    said = again()
    return [(case, said[case.number]) for case, _ in first(name) if case.number in said]


def _verdicts(name: str) -> str:
    """How runs of which only is known whether they fit were judged."""
    said = blind()
    firsts = [(case, said[case.number]) for case in later() if case.found == name and case.metric in RUN]
    if not firsts:
        return ""
    today = [pair for pair in now(name) if pair[0].metric in RUN]
    counts = [sum(right(*pair) for pair in pairs) for pairs in (firsts, today)]
    allowed = sum(inside(*pair) for pair in today)
    return (
        f" Of {len(firsts)} run of which only is known whether it fits: blind {counts[0]} right, now {counts[1]}; "
        f"{allowed} allowed by the interval."
    )


def _line(name: str, test: Test, found: Sequence[Sequence[Pair]]) -> list[str]:
    chosen = [of(each, test) for each in found]
    return [f"| {name} | {len(chosen[0])} | {' | '.join(map(cells, chosen))} |"] if chosen[0] else []


def section(name: str) -> list[str]:
    """The lines of a set's section."""
    gathering = SETS[name]
    found = (first(name), since(name))
    cases = [case for case, _ in found[0]]
    text = TEXT.format(
        n=len(cases),
        sources=len({case.source for case in cases}),
        again=sum(map(seen_before, cases)),
        unnamed=len({case.source for case in cases if not case.gpu}),
        commit=gathering.commit,
        aside=gathering.aside,
        changed=gathering.changed,
    )
    if gathering.misread:
        stated = of(meant(name), lambda case: case.stated)
        median, last, held = (cell.strip() for cell in cells(stated).split("|"))
        text += f"{gathering.misread}{median}, {last} and {held} of those with everything stated.\n"
    return [
        f"## {gathering.title} set, predicted blind", "", text,
        HEAD, "|---|" + "---|" * 7,
        *(line for row, test in (*FOURTH_ROWS, *ROWS, *sources_of(found[0])) for line in _line(row, test, found)),
        "",
        f"The median over sources of their median errors: blind {middle(found[0])}, now {middle(found[1])}."
        + _verdicts(name),
        "",
    ]  # fmt: skip

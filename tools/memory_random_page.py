"""The section of docs/memory.md on points that nobody looked at."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from planner.errors import UnsupportedArchitectureError

from .compare_memory import analytic
from .memory_page import GIB, described, quantile
from .memory_random import refusal
from .memory_rows import Compared, Drawn
from .random_flops import errors

PAGE = Path(__file__).resolve().parent.parent / "docs" / "memory.md"
BEGIN, END = "<!-- random: begin -->", "<!-- random: end -->"
HEAD = """## Random points, not looked at before

Written by `python -m tools.compare_random_memory SEED --page` from its record
([memory_random.json](../data/measured/memory_random.json)). Models of every kind in the catalogue, half of them with
up to three fields of their config changed (vocabulary, heads, their width, biases, tied ends, windows, experts,
layers), meet set-ups drawn at random: method, adapted layers, biases and modules trained beside pairs, optimizer,
precision, checkpointing, 1 to 16 sequences of 128 to 8,192 tokens, kernels, packing and losses
(`tools/memory_random.py`). Each point is drawn by a seed of its own, from the catalogue of the day.

`when first run` is the error before anyone had looked at the points of a seed: the honest figure. Seed 1 was then
looked at, and what it showed was repaired on either side: `today` is no longer blind for it. Seed 2 was run once
after that, and seed 3 when all changes had come together; later the worst of seed 3 were repaired too. Seed 4 draws
from more: encoders, encoders with decoders, every other model type that has a builder by the config that its class
makes of nothing, reentrant checkpointing, outputs held by the loop, norms in float32, quantised products that keep
what they read, ranks by name. It showed which rarer types the equations took for Llama's kind; about twenty of them
were repaired, and five are left without a figure now. Seed 5 was run once after that, before those five were refused,
and seed 6 a day later, before anything was changed. Seed 7 draws more on top (`tools/memory_random_wider.py`):
preferences and GRPO's step (DPO, ORPO, KTO, with a reference or without), TRL's tiled loss, images in models that see
them, modules by name, without some, with the router, tensors of experts, the optimizer as a loop,
outputs widened by accelerate. It was run once too, by the equations that seed 6 was run by. Seed 8, of the same kind,
was run once when what seeds 6 and 7 had shown was mended, seed 9 once after that, before anything was changed
again, and seed 10 when its points and what a look at every model type had shown were mended. Seeds 11 and 12 were run
once, when what is named below was mended, seeds 13 and 14 after that, before anything was changed again. Seed 23
was run once when the types that run by default had been looked at where a layer makes the peak (small vocabularies),
seed 31 once after that. Seed 41 draws on top what had come up rarely (`tools/memory_random_rarer.py`): 8 bits and
FP8, adapters in 16 bits of the other kind, losses by pieces, evaluations, optimizers, selective and offloaded
checkpoints, packed batches, classifiers; it was run once when seed 31's points and what is named below were mended,
seed 53, of the same kind, once after another look at every model type, seed 61 once when what it had shown was
mended, and seed 71, of the same kind too, before anything of seed 61 was. Seed 73 draws on top what no seed had
(`tools/memory_random_newest.py`): bases in 16 bits of the other kind, losses of preferences and completions as older
trainers run them, losses of other trainers, attention by operations, gradients that stay, towers left as they are,
experts in FP8, odd lengths; it was run once when what seed 71 had shown was mended. Seeds 83 to 86 are of the same
kind: 83 was run once, by the equations that seed 73 had left; 84 and 85 when what 83 had shown was mended, and 86
when what was found of these was.

{stale} points of quantised products that hold what they read, under checkpoints (below), have not been simulated
again since that was mended in the simulation: `today` leaves them out.

FLOPs stand beside the peak: the closed form against what the simulated step counts by operator, both under eager
attention (a fused kernel makes scores twice). `equal` are points where both agree to the last FLOP. When first
compared, DoRA behind dropout lacked the base's second product (up to half of a step), folded pairs and LLM.int8's
recompute a few per cent; all of them are counted now.

{table}"""
CAUSES = """
What seed 1 showed. Of the simulation: sums of a layer that runs again were made in place, which kept eager
attention's weights alive (up to 16 % too much); Falcon ran eager attention where SDPA was asked for; autocast's
softmax and sums made copies that CUDA's kernels do not make; the older losses of models that cap their logits were
refused. Of the equations: pairs on embeddings were counted as if the whole table were trained, and DoRA's norm of the
table was left out; biases trained alone were left out of what is kept; a widened gradient was made while the lowered
weight was still held; a single sequence's shifted logits are a view; keys of one head need math attention without
grouping; masks of windows exactly as long as the text; folded pairs on shared experts; shared experts' sums kept what
they read; noise and float32 inputs of Phi's experts; Granite's gated norm; Seed-OSS's dropout; pairs beside
bitsandbytes' weights under autocast take their input as it is.

What seeds 3 and 4 showed. DoRA beside 4-bit and 8-bit weights under autocast hands on float32; gpt-oss's code holds
scores and chances by names of their own; MPT's scores are float32 from its bias on; OPT-350m's unembedding reads 512
values; T5's decoder fills a cache of keys and values; Python's GELU widens under autocast; what comes before the
first layer of GPT-2's kind is kept where its result needs a gradient; GPT-Neo, CodeGen, BioGPT, XGLM, Persimmon, Jais
2, HyperCLOVA X, VaultGemma, MVP, MPNet, RemBERT, Megatron-BERT, GPT-NeoX Japanese and encoders that predict the next
token have code of their own. Left without a figure: BigBird-Pegasus, TrOCR, CTRL, Kimi Linear (no rule covers
its scan's kernel).

What seeds 6 and 7 showed. Llama 4 runs every expert on every token, by products whose weights autocast lowers and
holds; Gemma 4's small models keep embeddings for every layer, whose table may be shorter than the vocabulary, and its
routed experts have norms of their own; XGLM floors its scores, and keeps them; dropout that is a function, or rates
that attention asks of a module, under preferences; no logits are held under TRL's tiled loss; one table's gradient is
added in place where a loss makes the unembedding's itself; rows of folded experts are in the weights' type.
Of the simulation seed 8 showed that KTO under autocast took weights lowered by the pass without
gradients, and so made none for them.

What seed 9 showed. TRL's tiled loss copies the unembedding's tiles where their type is not the hidden states', wider
ones too, and holds two of them at a time (Falcon Mamba, 7 %); pairs that are folded into bare weights beside
quantised ones are as wide as these (Qwen3-VL in FP8, 17 %); of the simulation, that a reference's pass beside 4-bit
weights left their adapter on (FLOPs of KTO with DoRA, 24 %).

Mended before seed 10, by comparing every model type that has a builder, each in three set-ups: Zamba's and Zamba 2's
shared transformers (12 %), ALBERT (11 %), Doge (7 %), GPT-Neo's masks (3 %), folded pairs under autocast (1.5 %),
sinks under autocast (2.5 %), the indexer of DeepSeek V3.2. After it: nanochat, BitNet, OLMo Hybrid, clamps in float16
(Whisper's FLOPs among them), and of the simulation a cache that Idefics 3 and SmolVLM filled.

What seed 10 showed, mended since: products of a tower that DoRA makes again of what dropout leaves (16 % of FLOPs of
Gemma 3 with an image), and of the simulation that a mask of padded text was given to towers too (SmolVLM, 6 % too
much). Left of it: Nemotron 3's experts in a latent space (3 %), Qwen3.6's images (2 %), Zamba with checkpointing
offloaded (2 %), and FLOPs of RoBERTa's kind under preferences, whose dropout is switched off (3 %).

Mended before seeds 11 and 12: no fused kernel runs DeepSeek V4's attention, so that scores are kept whatever
kernel is asked for (5 %); logits that a loop holds are as wide as they were made, float32 where accelerate
widened them (T5 beside FP8 6 %, InternVL 5 %, ModernBERT 4 %); a reentrant checkpoint whose input needs no
gradient passes none to what is trained inside (InternVL), and a tower whose patches' biases train hands one on.
Of StarCoder's kind under the older loss the comparison leaves out the cache that transformers filled before 4.50,
which an estimate holds and the simulation of today's code does not (12 %).

What seeds 11 to 14 showed, mended since: trained in full, Nemotron-H's norm keeps float32 on both sides of its
weight, and Falcon-H1 multiplies what attention and the scan read, each anew (3 % both); the gradient of a squared
ReLU holds two copies beside it (Persimmon, 13 %); pairs on what makes write strengths and decays of the delta rule
keep what they read, and its gated norm is as wide as its weight (Olmo Hybrid 5 %, Qwen3.5 and Qwen3.6 2 %, of which
images had been blamed); layers that read keys and values of an earlier one take them as wide as the stream (Gemma 4
beside 4 bits, 4 %). A look at Gemma 4's images beside them showed that the memory-efficient kernel accumulates the
gradient of queries in float32, that masks whose rows are no multiple of 16 bytes are copied (30 % of a tiny model
with 70 soft tokens), and that what a node of the graph was given and kept is gone when what it makes meets another
gradient (4 % of a tower beside 4 bits).

What was known to remain then, mended since. Of the simulation: what bitsandbytes' products keep of their inputs (8
bits, and 4 before 0.43.2) is an attribute of a node, which no checkpoint sees: without reentrance it stays of every
layer until the graph goes (LLM.int8 under checkpointing: Pythia 410m 10.4 GiB where 3.6 were said), and a checkpoint
stops before a last such product (FLOPs of Gemma 3 and LLaVA-NeXT Video 4 and 6 %, of Qwen2-VL 3 %, Mistral 4 2 %,
Persimmon 9 %). fsdp_qlora's README asks for reentrant checkpoints for that reason, and its published peaks agree. Of
the equations: a bias of logits that is a buffer is as wide as the weights were loaded (Marian, 30 %); probabilities
that layers hand on get zeros for a gradient under reentrant checkpoints and wait in the model's loop while the next
layer runs (BLOOM 11 %, MPT 12 %, GPT-J 5 %, Falcon 6 %).

What a look at seed 21 showed, which stands in no record (39 points that ran; 95th percentile 9 %, most
20 %), mended since: Llama 4's eager softmax stays in 16 bits (20 %); autocast makes weights of Apertus' activation
float32, and with them what they multiply (8 %). Left of it: images of Qwen2.5-VL under autocast beside float16 in 4
bits (9 %).

What seed 31 showed, mended since: of long sequences Doge's queries meet so many keys, which a tensor of ones picks
out (29 %); biases of convolutions that are trained alone have what follows kept (Granite 4.0 H, 10 %); MiMo-V2-Flash
has no SDPA, and sinks in layers with windows alone (7 %); of images, DoRA on positions keeps rows, a trained bias has
the pixels kept, and what dropout left of what DoRA reads has a name until its module is left (SmolVLM, 4 %); what
Falcon-H1 projects for its scan is multiplied by a buffer as wide as the weights were loaded (2 %).

What seed 41 showed, mended since: an evaluation drops nothing, holds the embedding's result and masks no longer than
layers run, and passes its own images through their tower (2, 1 and 4 %); the norms of DoRA stay until its parts are
added up (so did Pythia's in seed 2, 4 %); what layers of Gemma 4's small models add to is not there before the last
of them has run backward (3 %). Of the simulation: the pieces of logits of a loss that a loop has a name for were let
go (66 %). FLOPs under selective checkpoints, which are modelled for fused kernels alone, were compared under eager
attention (4 %), and are left out.

Mended with them, of what had been left of earlier seeds: a loss of preferences that has all logits is made of what
the model returned, whose hidden states are gone by then (0.3 to 1.3 % of 25 points), and Falcon from 40B on keeps
what both norms of a layer make (2 %).

Mended after it, of what had been known to remain and by a look at every model type: a matrix between the embedding
and the layers (RoCBert, ELECTRA, RemBERT, OPT-350m) keeps rows of its own width; Zamba's layers keep a copy of the
embedding's result and, under checkpoints, what a second checkpoint inside of them is called with (beside DoRA 5 %),
and scans of heads what B and C are parts of; FalconMamba norms these in float32; flash attention of values narrower
than queries pads and cuts them; Nemotron-H squares a ReLU, as does Nemotron, whose norm is LayerNorm; keys and
queries whose norm has a float32 weight are float32 under autocast. Pairs beside the table that two stacks share meet
nothing (FLOPs 4 %, memory 2 %); cross attention's keys have the encoder's length (Whisper, eager, 2 %); what comes
out of Nemotron 3's latent space is added, not kept (3 %); the identity of DoRA's norm is there beside its copy under
autocast, where BERT's and BART's kin drop probabilities in float32 (BioGPT, 4 %).

What seed 53 showed, mended since: Megatron's loss of logits that are float32 already makes one copy less (13 %); a
classifier of sequences keeps hidden states only where a trained matrix reads one of them (2 %); while logits are
scored what BERT's kin made for the product alone is gone, and the last layer's result is not (an evaluation, 1 %).
Beside it: T5's layers keep masks of padding under checkpoints (2 %), values of a latent are lowered without what keys
were made of (Youtu, 2 %), TRL's tiled loss passes by a head's dense matrix (1 %), masks of eager attention are as
wide as the weights under autocast, Apertus' activation makes a copy more on its way back (2 %), StarCoder, M2M100 and
XGLM hold tables, ModernBERT and XLM-RoBERTa XL drop what attention adds (1 %).

What seeds 61 and 71 showed, mended since: CodeGen has no flash attention (3 %); evaluations under autocast, where
cosines widen queries and keys and probabilities of eager attention have a name until the layer ends (20 %; every type
was then compared in an evaluation, about forty of them were 2 to 22 % off); Phi's mixture sends a token to two
experts whatever its config says (47 %, and FLOPs 28 %); what comes back for the second run of an offloaded layer goes
with it (4 %); Qwen3-VL's positions are float32 (2 %); FLOPs of encoders under the tiled loss (0.4 %). Two points, of
seeds 1 and 61, `simulate` refuses, and are no points any more: PEFT reaches shared experts of GLM 4.5 and ERNIE 4.5
as bare weights alone, whose pairs get no gradient where these are quantised.

What seed 73 showed, mended since: attention by operations goes image by image in towers (48 %); FLOPs of towers that
are left as they are (15 %); the mask of an offloaded tower (2 %); what a tower's layers begin with has a name (1 %);
MPT's scores, and a dropout that its config has elsewhere (1 %). Every type was compared then with 16-bit weights
under autocast: routers whose logits it lowers (10 % of DeepSeek V3's and GLM 4.5's kind), norms behind
embeddings (2 to 6 % of BERT's and BART's). One point is refused now: PEFT's pairs on experts in FP8 get no gradient.

What seeds 83 to 86 showed, mended since: logits of a product with a bias are divided through a view (23 % of verl's
GRPO of an encoder), which is scored with entropies before the step, as `simulate` has it now too (33 %); DoRA takes
a bias off the logits of an adapted unembedding in evaluations too (20 %); KTO by TRL 1.14 logs the longer half of
an odd number of sequences (9 %); a base in 16 bits of the other kind is copied for the norm of DoRA's unembedding
(7 %), and where the adapter is of its kind it is not (6 %); pairs on Qwen3-VL's positions, which DoRA takes of four
corners (3 %); attention by operations has float32 copies of what it is given (evaluations, 3 %); a sequence's log-
softmax of the reference of TRL 0.29 to 1.5 (2 %).

What is known to remain: Megatron's loss of float32 logits in full (4 %), masks of attention by operations in
evaluations (1 %), routed experts of Flex-OLMo (3 %), Zamba, under DoRA in float16 (9 %), in evaluations (6 %) and
where a head's width contradicts the others of its config (3 %); a norm that makes float32 logits of 16-bit weights
under losses of KTO (4 %); T5 with reentrant checkpoints that are offloaded, under autocast (3 %); DeepSeek V3.2's
indexer in evaluations under autocast; of the simulation, that Granite's logits are widened before they are scaled
under the older losses (1 %).

"""


def _numbers(errors: Sequence[float]) -> str:
    if not errors:
        return "- | - | -"
    sizes = [abs(error) for error in errors]
    return f"{statistics.median(sizes):.2%} | {quantile(sizes, 0.95):.2%} | {max(sizes):.1%}"


def today(rows: Iterable[Drawn]) -> list[Compared]:
    """Every row that ran, beside today's estimate; without those that are left without a figure now, that `simulate`
    refuses, or whose simulation is not of today."""
    found = []
    for each in rows:
        if each.row.simulated_bytes and not each.stale and refusal(each.row.point) is None:
            try:
                found.append(Compared(each.row, *analytic(each.row.point)))
            except UnsupportedArchitectureError:
                continue
    return found


def _worst(seed: int, found: Sequence[Compared]) -> Iterator[str]:
    yield f"The ten largest errors of seed {seed} today:"
    yield ""
    yield "| error | model | changed | set-up | simulated | analytic |"
    yield "|---|---|---|---|---|---|"
    for each in sorted(found, key=lambda c: -abs(c.error))[:10]:
        changed = ", ".join(f"{name} {value}" for name, value in each.row.point.changes.items()) or "-"
        yield (
            f"| {each.error:+.1%} | {each.row.point.model} | {changed} | {described(each)} | "
            f"{(each.row.simulated_bytes or 0) / GIB:.2f} GiB, {each.row.moment} | "
            f"{each.analytic_bytes / GIB:.2f} GiB, {each.estimate.peak.name} |"
        )
    yield ""


def page(rows: Sequence[Drawn]) -> str:
    """The section."""
    seeds = sorted({row.seed for row in rows})
    found = {seed: today([row for row in rows if row.seed == seed]) for seed in seeds}
    table = (
        "| seed | points | refused | when first run: median | 95th percentile | most | today: median | "
        "95th percentile | most |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    for seed in seeds:
        own = [row for row in rows if row.seed == seed]
        first = [row.first_error for row in own if row.first_error is not None]
        refused = sum(row.row.simulated_bytes is None for row in own)
        table += (
            f"| {seed} | {len(own) - refused} | {refused} | {_numbers(first)} | "
            f"{_numbers([each.error for each in found[seed]])} |\n"
        )
    flops = "\n".join(_of_flops(rows, seeds))
    stale = sum(row.stale for row in rows)
    return (
        HEAD.format(table=f"{table}\n{flops}", stale=stale)
        + CAUSES
        + "\n".join(_worst(seeds[-1], found[seeds[-1]]))
    )


def _of_flops(rows: Sequence[Drawn], seeds: Sequence[int]) -> Iterator[str]:
    yield "| seed | FLOPs | when first compared: equal | 95th percentile | most | today: equal | 95th | most |"
    yield "|---|---|---|---|---|---|---|---|"
    for seed in seeds:
        own = [row for row in rows if row.seed == seed and row.first_flops is not None]
        now = [error for _, error in errors(own)]
        if own:
            first = [row.first_flops for row in own if row.first_flops is not None]
            yield f"| {seed} | {len(own)} | {_shares(first)} | {_shares(now)} |"
    yield ""


def _shares(found: Sequence[float]) -> str:
    sizes = [abs(error) for error in found]
    same = sum(size == 0 for size in sizes)
    return f"{same / len(sizes):.0%} | {quantile(sizes, 0.95):.2%} | {max(sizes):.1%}"


def write_page(rows: Sequence[Drawn]) -> None:
    """Write the section between its marks, behind the others where it is new."""
    text = PAGE.read_text(encoding="utf-8")
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(
        f"{before}{BEGIN}\n{page(rows).rstrip()}\n{END}{rest.partition(END)[2]}", encoding="utf-8"
    )

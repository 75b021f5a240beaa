"""docs/speed.md: gatherings of published steps, each predicted first; a new one is a text and a row of `SECTIONS`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tools.speed_later import (
    EIGHTH,
    ELEVENTH,
    FURTHER,
    LATER,
    LATEST,
    NEWEST,
    NINTH,
    SEVENTH,
    SIXTH,
    TENTH,
    UNSEEN,
    Later,
    Said,
    blind,
    later,
    said_of,
)
from tools.speed_widths import by_shipped, by_then, held_said, sets_left_out, share_of

LATER_TEXT = """\
{n} further steps of {sources} sources ([speed_later.csv](../data/measured/speed_later.csv): each with its source and
the command of a user), collected when the constants stood and predicted before they were fitted again: "blind" are
those first predictions ([as they were](../data/measured/speed_later_blind.csv)), "now" those of today. No
rate was fitted on them; widths of intervals rest on the first predictions. Of litgpt's and Unsloth's rows the lengths
are guesses; where a trainer checkpoints some layers or operations, none is taken. torchtitan's H100s were held to 500
W of 700.
"""
LATEST_TEXT = """\
{n} steps of {sources} sources that nobody had looked at ([speed_latest.csv](../data/measured/speed_latest.csv)), most
of them LoRA and QLoRA on accelerators without a fitted run (L4, A10G, Gaudi 2 and 3, MI300X, TPU v6e). Predicted, and
[the predictions kept](../data/measured/speed_latest_blind.csv), before anything below was changed.

What they taught, no rate being fitted on them: an accelerator's large products reach what others measured of its peak
(a T4 of 70 W a third, taken for the L4 too, a Gaudi 2 nearly all); dequantising waits for integer units, not for
memory; cards in machines of their own do not share an adapter; ZeRO-2 and 3 reduce gradients in every micro-step.
That intervals held 52% of them where 90% was stated led to [sources left out](#sources-left-out) and
[widths](#widths).
"""
NEWEST_TEXT = """\
{n} steps of {sources} sources ([speed_newest.csv](../data/measured/speed_newest.csv)), gathered when products by
whole tiles, NCCL's latencies, gathering behind computing and intervals by sources left out stood, and predicted
([kept](../data/measured/speed_newest_blind.csv)) before anything was changed: LoRA, QLoRA and full fine-tuning on one
to sixteen A6000, RTX 4080, RTX 6000 Ada, A100, H100, H200, H20, B200 and MI300X.

What they taught, again no rate being fitted on them: the processors' optimizer step is bound by their memory, 0.26 ns
a parameter, not by 2.5 ns as one gist has it; AdamW fused moves 7 tensors, PyTorch's multi-tensor code 20, in the
width that the states have; flash attention 2 keeps an A100's pace a clock on newer chips (a third of an H100's peak,
a sixth of a B200's), while PyTorch's own has cuDNN's kernels there, as flash attention 3 has, so that steps with that
are read as sdpa now; bitsandbytes of 2023 undid its layout of the weights in every backward pass in 8 bits; ZeRO-3
gathers experts that run one after another each apart; short sums fill a tile's pipeline badly.
"""
FURTHER_TEXT = """\
{n} steps of {sources} sources that nobody had looked at ([speed_further.csv](../data/measured/speed_further.csv)),
predicted once ([kept](../data/measured/speed_further_blind.csv)) when the three sets above had been learnt from: a
repository's tables on H100, A100 and RTX PRO 6000, a paper's baselines on eight RTX 4090 and eight A800, NVIDIA's
recipes of NeMo on 8 to 128 H100, VectorLM on one to four A100, QLoRA on A10s, and DeepSpeed's offloading on A100s of
40 GB.

What is marked as stated was marked before predicting. Mended since, no rate being fitted on them: GeForce cards
reach each other through their host's memory, at what others' nccl-tests show in the middle (6.0 GB/s through PCIe
4, where 22.9 were taken; this source's steps imply 3), which intervals know to differ tenfold; over padded batches
PyTorch's own attention gets a mask, and the kernel that takes one computes all pairs at half the pace (the first
source's code keeps masks where its sequences are whole: its rows are read as padded since); scores that are capped,
as Gemma 2's, go through three passes more; without autocast all but QLoRA's quantised products is float32,
attention among it; ZeRO-3's hooks run in every pass and around each expert's matrices and factors; DeepSpeed's step
on the processors scales and copies beside Adam, and its ZeRO-1 and 2 all-reduce gradients; an A10 is held down by
its 150 W. Widths of intervals rest on the first predictions of what it states, as on the other sets'.
"""
UNSEEN_TEXT = """\
{n} steps of {sources} publishers that no other set has ([speed_unseen.csv](../data/measured/speed_unseen.csv)), each
set-up written down from its source alone, then predicted ([kept](../data/measured/speed_unseen_blind.csv)): LoRA and
QLoRA of Llama 2 on an A100 (optimum-benchmark), DeepSpeed, Megatron and FlagScale on 8 to 440 A800, H800 and H100
(FlagPerf), PaddleNLP's and Vertex AI's tables of PEFT, FSDP on 32 H100 (AWS), nanoGPT, and articles, issues and model
cards of A100, H100, L40S, RTX 3090 and 4090. "Again" are the predictions
([kept](../data/measured/speed_unseen_again.csv)) when the fourth set had been learnt from, by whoever had not seen
these. No rate rests on them; widths of intervals rest on the first predictions of
what they state, as on the other sets', since they judged those of the four sets before (82% of their 3 sources were
held).

{far} lay outside of the first interval and {again} of the second, for reasons that nobody has checked: FSDP over
machines that also copies what checkpoints keep to the host (AWS), or reads and tokenises data meanwhile (AWS, and
StarCoder and Llama 2 70B of the articles, whose hours hold validations too); ring attention over a slow network
(L40S); experts of 4 bits under FSDP, one by one; and model cards whose lengths are guessed.
What is stated of one GPU lies within all intervals: QLoRA of 256 tokens a sequence at 1.0 to 1.7 of what was
measured, the more the smaller the batch, LoRA at 0.8. LoRA in float32 (FlagPerf), predicted at 7 times, ran as TF32,
which NVIDIA's container switches on: `--tf32` says so since.
"""
SIXTH_TEXT = """\
{n} steps of {sources} publishers that no other set has ([speed_sixth.csv](../data/measured/speed_sixth.csv)), each
set-up and whether it is stated written down from its source alone, then predicted
([kept](../data/measured/speed_sixth_blind.csv)) by the program of c46ee25. Meanwhile others, who had not seen these
steps, made the rule of [widths](#widths): **of these first predictions its intervals hold {stated} where
everything is stated, {guessed} where something is guessed**. {far} lay outside of the intervals of then. Neither
rates nor widths rest on them.

Of what is stated five lie outside of the new intervals. Chinese-Vicuna's 8-bit runs (three) were predicted at 1.75 to
2.6 times what was measured. Mended since, no rate being fitted on them: int8 units of GeForce cards run at four times
their 16-bit rate, not at twice, and what undoes the weights' layout waits for integer units, not for memory, so that
its RTX 4090 is at 1.0 and 1.15 now and its RTX 3090 at 1.5 and 1.8. What is left may be its table's: the RTX 2080 Ti
in it takes 720 s for 10,000 samples of 256 tokens, for which its units would need 930 at their peaks, so that
samples were shorter than the length to which the script pads, or cards several. Baize and Huatuo, on an A100, are at
0.7 to 1.2.
Float16 under DeepSpeed on a V100 (Xirider) was typed as bf16-master, for which a V100 has no units: with `--precision
fp16` 0.76 results. GPT-2 in float32 (rasbt), predicted at 2.8 times, ran as TF32, which an option says since
(`--tf32`: 0.77). Furthest the other way lie padded batches and ZeRO-3 with 256 to 768 tokens a pass (gdGPT, 0.5):
whatever the length, 0.41 to 0.47 s of its micro-steps are left beside computing, which is what its links (0.16),
hooks (0.13), launches (0.06) and passes over gradients (0.02) take one after the other. Nothing hides there, as
DeepSpeed's host waits once more than two gathers or reductions are under way (partitioned_param_coordinator.py,
__max_ongoing_fetch_events; stage3.py, __max_param_reduce_events); the formula has it hide host time whole, and of
communication what it does elsewhere.
"""
SEVENTH_TEXT = """\
{n} steps of {sources} publishers ([speed_seventh.csv](../data/measured/speed_seventh.csv)), each set-up and whether
it is stated written down from its source alone and read once more, then predicted once
([kept](../data/measured/speed_seventh_blind.csv)) by the program of 229d4c8. Rows of a publisher that a set before
has, with another page, say so ("again"). **Of these first predictions the intervals, in which they have no part,
hold {stated} where everything is stated, {guessed} where something is guessed**; {far} lie outside. Neither rates
nor widths rest on them, and two rules were mended after them.

Why those outside lie there, as far as their sources tell. Of what is stated, one: Gemma 2B on a T4 by Axolotl, in
float32, predicted at 1.5 times what was measured, as dvgodoy's Phi-3 there at 1.4. The share of its peak that a T4
reaches had been measured on products in float16, where its 70 W hold it down (24 of 65 TFLOP/s), and was taken for
its float32 units too. **Mended since**, with what others measured of those (4.2 of 8.1 TFLOP/s:
zzc0721/torch-performance-test-data, chsasank/device-benchmarks): 1.12 and 1.04.

Of what is guessed: lengths (ms-swift's benchmark leaves out samples longer than 2,048 tokens, of a dataset of which
a mean and a deviation are told: 1.7 to 1.8 times; LLaMA-Factory's issue and BELLE, where 1,024 and 200 are guesses:
0.2 to 0.4), and tensor parallelism over 8 GPUs with 4,096 tokens a step (a pull request's figures, its optimizer
unknown: 0.5): an eighth of each product a GPU waits for launches.

Inside, but more than 1.5 times off where everything is stated, all in the wide intervals: ZeRO-3 over 16 machines
of four V100 each (0.4, runs of two steps); fully sharded pretraining in JAX over eight RTX 6000 Ada that reach each
other through PCIe (0.3: 1.2 of 25 seconds are predicted as communication, and products at 350 of 364 TFLOP/s);
Llama 2 7B in 8 bits on an A100 (0.3, with the layout of the weights that bitsandbytes of 2023 undid in every backward
pass counted; the rest is not explained); GPT-J on eight Gaudi 2
(0.5); Falcon 7B over two machines of A100s with checkpoints copied to
the host (0.65); TeleChat's 12B under ZeRO-3 at 1,024 tokens (0.66, where 2,048 and 4,096 are at 0.86 and 0.88). Why
these lie there was not looked into further. **Mended since**, too: workstation cards were taken to reach 0.96 of
their peak, as GeForce cards do, whose tensor cores are halved; others' single products
(zzc0721/torch-performance-test-data) reach 0.78 and 0.88 of it on RTX PRO 6000s and 0.74 on an L40S, the RTX 6000
Ada's chip at more power. So the 0.3 of JAX is 0.46, Exxact's 0.8 is 0.9, and the fourth gathering's 0.38 to 0.50 on
such cards are 0.44 to 0.59. Other workstation cards of these generations, which nobody measured, take the median of
the table. RTX A6000s, where 0.79 was measured but torchtune's steps imply all of it, are as they
were.
"""
EIGHTH_TEXT = """\
{n} steps of {sources} publishers ([speed_eighth.csv](../data/measured/speed_eighth.csv)), most of them people's own
benchmarks with the script beside the figures, written down, marked and read once more, then predicted once
([kept](../data/measured/speed_eighth_blind.csv)) by the program of 89aee55. **Of these first predictions the
intervals, in which they have no part, hold {stated} where everything is stated, {guessed} where something is
guessed**; {far} lie outside. Of the sixth, seventh and eighth gathering together they hold {together} where
everything is stated ({share}, where 90% are stated: less than a tenth of one source is missing, and the rule stayed
as it was until the ninth), {together_guessed} where something is guessed. No rate rests on them.

Why what is stated and more than a quarter off lies there. **Qwen3.6-35B-A3B on four H800** (1.8 to 2.8 times, three
of its five outside): 15 of 20 predicted seconds are the host's, which starts the products of 256 experts one after
another. That it did so here, though transformers 5 groups them by itself (integrations/moe.py; which version it was
is not told), is what its own steps point to: 64 samples over and over take 7.1 s where as many tokens of others
take 10.3, as a loop over experts that are chosen would. An expert then takes 83 microseconds a pass, not 121.
**Llama 3 8B over two and four RTX PRO 6000** of a rented machine (0.5 to 0.65; 0.8 with 16 sequences a GPU): 47
GB/s through PCIe 5 were taken, a part of them hidden; what its steps take beyond the same source's on one GPU is 20
to 22 GB/s, alike in DDP and FSDP, and nothing hidden. **A T4 under float16** (0.4 to 0.5, 0.7 with PyTorch's
attention, and 0.98 once compiled): layers of the repository's own, whose scores go through a mask and a softmax
written out, and float32 weights that autocast casts in every pass. **TinyLlama with 512 tokens a micro-step on
Colab's A100** (0.4): 56 ms are predicted, nearly half of them the host's, and 130 measured, starting within; not
explained further. **LLM.int8 of March 2023** on an RTX 4090 (0.36), as others of that time. **An RTX 5080 of a
laptop** (1.27): its listed clock makes 46 TFLOP/s, where another's products reach 77. **Mended since**: laptops'
cards run at what their owners measured (zzc0721/torch-performance-test-data, seven of them, 0.99 to 1.74 times the
peak at the listed clock, which is that of the least power a maker may give them): 0.97.

Of what is guessed: full fine-tuning of LLaMA 7B whose states go through the host (0.1, of a rented machine, whose
user asks what is wrong), and lengths of Alpaca on an L4 (1.5). A GB10 is at 0.80 to 0.87 where everything is stated
(six steps of two publishers; QLoRA 0.99): its products are taken at the median of what others reach of their peaks,
for want of a measurement.
"""
NINTH_TEXT = """\
{n} steps of {sources} publishers that no other set has ([speed_ninth.csv](../data/measured/speed_ninth.csv)), most
of them people's own runs whose logs lie in their repository, written down and marked, then predicted once
([kept](../data/measured/speed_ninth_blind.csv)) by the program of fa971af; forty were sought. Where logs tell no
lengths, the padded ones follow from Trainer's `total_flos`, 6 FLOPs a position and parameter but embeddings, which
gives 512.0 where 512 is set and 890,369 tokens where 890,240 were counted. **Of these first predictions the
intervals of then, in which they have no part, hold {then} where everything is stated, {then_guessed} where
something is guessed**; of the sixth to the ninth gathering together {together}: {share}, less than is stated. So
the rule was made again ([widths](#widths)), from the first eight sets and the first table. Of the ninth, which had
no part in it, it holds {stated}, and {guessed} where something is guessed. With each of the sixth to the ninth left
out of the widths in turn {left} of them together are held ({left_share}; the sixth to the eighth had a part in
choosing the rule's one number). No rate rests on them, and no rule of the estimate was changed after them.

Why what is stated and more than a quarter off lies there, as far as was looked. **An RTX 4060 of 8 GB** (0.43 and
0.46): Mistral 7B in 4 bits that keeps every activation takes 10.0 GiB by the estimate of its memory, so that
Windows, under which it ran, moved some to the host's, which is not modelled. **GPT-2 in float32 on eight V100**
(1.65, the one that lay outside): nobody measured what a V100's products reach, and in float32 as in float16 the
median of what others do is taken, 0.64 of the peak. **An RTX PRO 6000** under a program of its own in CUDA (1.31,
where its RTX 4090 and H100 are at 1.18 to 1.23): of others' steps that card made half of what is predicted.
**Adapters on Mistral's embedding and unembedding too**, on an RTX A6000 (0.73), **Qwen2.5 1.5B by TRL** on an A100
(0.62), **Gemma in 4 bits** with 78 and 177 tokens a sequence (0.71 and 0.69), **Unsloth's 4 bits** on an RTX 5090
and an H100 (1.37 and 1.27) and **its 16 bits on a B200** (0.73) are not explained. What was open before stays so:
bases in 8 bits of 2023 lie at 0.3 to 1.8, on both sides on the same card, and ZeRO-3 with few tokens at 0.5, where
hooks and collectives that nothing hides, added as they are counted, would put FlagPerf's steps of 4,096 tokens, at
0.97 and 1.08 now, at 1.2.
"""
TENTH_TEXT = """\
{n} steps of {sources} publishers that no other set has ([speed_tenth.csv](../data/measured/speed_tenth.csv)), written
down and marked, then predicted once ([kept](../data/measured/speed_tenth_blind.csv)) by the program of ba12258f.
Three publishers state everything, one of them a program on twenty kinds of GPU, the others a full run on machines
each; of all five steps of adapters something is guessed. **Of these first predictions the intervals that ship, in
which they have no part, hold {stated} where everything is stated, {guessed} where
something is guessed** (those of five sets {then} and {then_guessed}); {far} lie outside of
those that shipped then.

What it taught: the twenty GPUs, one GPT-2 of 124M, compiled, lay at 0.95 to 1.63, in the middle at 1.28, on nearly
every one too slow, so that it was not the GPUs. A fifth of the predicted second was the loss, 48 bytes an element of
the logits as PyTorch's own passes move them, whatever was compiled. **Mended since**, from Inductor's kernels: a loss
that is compiled with its model moves 8 (logits read twice, again for the gradient, which is written), in the middle
at 0.99. No rate was fitted on it. Four steps of other publishers, all GPT-2 compiled on several GPUs, became worse:
tyler-romero 1.00 to 0.79, KellerJordan 0.93 to 0.71, jprobichaud 0.75 to 0.63 and one of nanoGPT's; two of them ran
PyTorch before 2.5, whose compiled gradient still moves 16 bytes, which explains a small part. **Tried and left**:
each backward product with the length of its own sum (the judged steps of the first table 8.1% to 8.8%), and
autocast's casts of float32 weights
(nothing changed by more than three hundredths but one step, for the worse).

Furthest off, all with something guessed: ZeRO-3 of DeepSpeed on A100s with few tokens (0.4 to 0.6, as in the sets
before, their lengths guessed) and Llama 2 13B there with 16,384 a GPU (0.37); the Hugging Face Trainer under FSDP on
two machines of Polaris (0.22, whose network is not told); Megatron on 64 V100 (0.22 and 0.35, the two programs 1.6
times apart); four RTX 3090 under FSDP (3.0). stas00's float32 on TITAN RTX (2.0) would need products above the
card's peak beside the passes over memory that are predicted, so that batch or card may be guessed wrongly.
Stated and far off: LLaMA 13B on 24 V100 with everything in
the hosts' memory (0.39), whose moving of weights and of states nobody has measured there. Steps of Apple's chips,
which were found too, have no prediction, as their peaks are not known.
"""
ELEVENTH_TEXT = """\
{n} steps of {sources} publishers that no other set has ([speed_eleventh.csv](../data/measured/speed_eleventh.csv)),
gathered with [the thirteenth set of memory](memory-published.md#a-thirteenth-set-predicted-blind). Commands were
typed twice, by two readers who did not see each other's nor the figures, and their differences settled from the
sources; then they were predicted once ([kept](../data/measured/speed_eleventh_blind.csv)) by the program of ef8afa9e.

**Of these first predictions the intervals that ship, in which they have no part,
hold {stated} where everything is stated,
{guessed} where something is guessed** (those of five sets {then} and {then_guessed}); {far} lie outside of those that
shipped then. Nothing was changed after them.

Outside lie two steps of DeepSpeed's Ulysses over two machines (0.27 and 0.29, whose network is not told; within one
machine 0.72 and 0.83). Stated and a quarter off or more:
Qwen2.5 7B by LLaMA-Factory on four L4 (1.65), and torchtune's Llama 3.2 1B on one and four H100 (0.71 and 0.67, where
an A100 is at 0.84 and 0.79), which are not explained; Ulysses on four GPUs (0.72).
"""
AGAIN = "again"  # predictions of UNSEEN by the program that had learnt from the sets before it


def _later(pairs: Sequence[tuple[Later, Said]]) -> str:
    errors = [said.error for _, said in pairs]
    held = sum(said.inside for _, said in pairs) / len(pairs)
    return f"{np.median(errors):.1%} | {np.quantile(errors, 0.9):.1%} | {held:.0%}"


def section(name: str, text: str, again: str = "", **said: str) -> Iterable[str]:
    """A gathering that was predicted first: then, perhaps `again`, and now; `said` is filled in too."""
    kept, cases = {"blind": blind(name)}, later(name)
    if again:
        kept[again] = blind(name, again)
    out = [sum(not one.inside for one in known.values()) for known in kept.values()]
    kept["now"] = {case.number: said_of(case) for case in cases}
    sources = {case.source for case in cases}
    yield text.format(n=len(cases), sources=len(sources), far=out[0], again=out[-1], **said)
    shown = (f" {when}: median error | 90th percentile | within interval |" for when in kept)
    yield f"| steps | runs |{''.join(shown)}"
    yield "|---|" + "---|" * (1 + 3 * len(kept))
    rows: list[tuple[str, list[Later]]] = [
        ("all", cases),
        ("everything stated", [c for c in cases if c.stated]),
        ("of these, full fine-tuning and pretraining", [c for c in cases if c.stated and c.method == "full"]),
        ("of these, LoRA and QLoRA", [c for c in cases if c.stated and c.method != "full"]),
        ("something not stated", [c for c in cases if not c.stated]),
    ]
    if again:
        rows += [
            ("LoRA and QLoRA", [c for c in cases if c.method != "full"]),
            ("full fine-tuning and pretraining", [c for c in cases if c.method == "full"]),
            ("one GPU", [c for c in cases if c.gpus == 1]),
            ("several GPUs", [c for c in cases if c.gpus > 1]),
        ]
    rows += [(source, [c for c in cases if c.source == source]) for source in sorted(sources)]
    for label, chosen in rows:
        if not chosen:
            continue
        cells = [_later([(c, said[c.number]) for c in chosen]) for said in kept.values()]
        yield f"| {label} | {len(chosen)} | {' | '.join(cells)} |"


@dataclass(frozen=True)
class Gathering:
    """A gathering on the page: `again` names predictions between the first and today's; `judges`: of intervals."""

    title: str
    name: str
    text: str
    again: str = ""
    judges: bool = False


SECTIONS = (
    Gathering("Collected afterwards", LATER, LATER_TEXT),
    Gathering("Collected after that", LATEST, LATEST_TEXT),
    Gathering("Collected last", NEWEST, NEWEST_TEXT),
    Gathering("A fourth gathering", FURTHER, FURTHER_TEXT),
    Gathering("A fifth gathering", UNSEEN, UNSEEN_TEXT, AGAIN),
    Gathering("A sixth gathering", SIXTH, SIXTH_TEXT, judges=True),
    Gathering("A seventh gathering", SEVENTH, SEVENTH_TEXT, judges=True),
    Gathering("An eighth gathering", EIGHTH, EIGHTH_TEXT, judges=True),
    Gathering("A ninth gathering", NINTH, NINTH_TEXT, judges=True),
    Gathering("A tenth gathering", TENTH, TENTH_TEXT, judges=True),
    Gathering("An eleventh gathering", ELEVENTH, ELEVENTH_TEXT, judges=True),
)


def _of_then(name: str) -> dict[str, str]:
    """How much of a gathering the intervals of then hold, which five sets made, and of it and those before it."""
    judges = [each.name for each in SECTIONS if each.judges]
    judges = judges[: judges.index(name) + 1]
    together = [pair for one in judges for pair in by_then(one)]
    return {
        "stated": held_said(by_then(name)),
        "guessed": held_said(by_then(name, False)),
        "together": held_said(together),
        "share": f"{share_of(together):.1%}",
        "together_guessed": held_said([pair for one in judges for pair in by_then(one, False)]),
    }


def _judged(name: str) -> dict[str, str]:
    """The same; of the ninth and later, on which nothing rests, also what the intervals that ship hold."""
    found, judges = _of_then(name), [each.name for each in SECTIONS if each.judges]
    if judges.index(name) < judges.index(NINTH):
        return found
    left = sets_left_out(tuple(judges[: judges.index(NINTH) + 1]))
    return {
        **found, "then": found["stated"], "then_guessed": found["guessed"], "stated": held_said(by_shipped(name)),
        "guessed": held_said(by_shipped(name, False)), "left": held_said(left), "left_share": f"{share_of(left):.1%}",
    }  # fmt: skip


def gatherings() -> Iterable[str]:
    """Their sections, in the order they were gathered."""
    for each in SECTIONS:
        said = _judged(each.name) if each.judges else {}
        yield from (f"## {each.title}", "", *section(each.name, each.text, each.again, **said), "")

"""Why single published measurements lie further than a quarter from what is predicted, row by row, so that a row that
is far off tomorrow needs words of its own. Nothing is computed from these words.

Each says what the trainer's source does, with the file and version, or what the figure's own source leaves open, and
the bytes that follow. `GIVEN` is by row of data/measured/memory.csv, `COLLECTED` by row of memory_later.csv,
`OF_SETS` by row of it too, of the sets that were collected last."""

from __future__ import annotations

ORDERS = (
    "the order of lengths, which is not known: of torch 2.1's allocator, run on the benchmark's lengths in {} orders "
    "(tools/reserved_by_lengths.py), {} GB are reserved at the least, {} at the most, half of the orders up to {}"
)
GIVEN: dict[int, str] = {
    273: "the order of lengths, which is not known: 3.7 times what grows with the length would give the figure, "
    "where 1.9 is taken of all; the allocator by itself keeps 1.1 to 5.0 times of lengths that are spread evenly",
    277: ORDERS.format(300, 47.7, 84.2, 80.9) + "; one in twenty lies below the figure",
    282: ORDERS.format(300, 23.6, 84.1, 49.9)
    + " (run on a micro-step of the model's own code, modeling_chatglm.py, of which 20.9 GB are allocated, as "
    "predicted: at batch 1 it hands SDPA no mask, so that no scores are held); one in thirty lies above the figure",
    299: "what loading left in the allocator's cache (3.72 GiB are reserved before the first step) serves the step, "
    "where the rule takes what is kept to come on top: LoRA's figures are the same at 512 and at 2,048 tokens; what "
    "is allocated, 5.2 GB, is 0.92 of the figure",
    384: "3.2 GB are missing; the logits that the fused loss does without would be 3.9 (12.9 GB, 1.07). The "
    "figure came with 372f664c6, whose installer pins "
    "242b245 of the plugin with the recipe's fused loss; that one's cce_patch hands three arguments to patch_olmo3, "
    "which takes two, so that the recipe as pinned stops before its first step",
}
ALPACA = (
    "the cap of 2,048 tokens was typed; the samples (500 each of alpaca-gpt4-data-zh and -en, 500 short ones) are "
    "shorter: with {} tokens as the longest the figure would result"
)
NO_STATES = (
    "neither gradients nor states of Adam are in what was measured, though the recipe has AdamW (with which Phi-3 "
    "and Llama-3.2-3B cannot run on an A10G): without both {} would be predicted"
)
NO_MEASUREMENT = (
    "no measurement: the README calls its table estimates, by a rule of thumb, and what stands here as QLoRA is LoRA "
    "there"
)
FULL_CARD = (
    "the figure is the card's size, which the allocator fills with expandable segments: {} GB are predicted to be "
    "allocated, and nothing in the source says what was"
)
CAPPED = "the notebook's cap was typed, and {}: with {} tokens as the longest the figure would result"
A100 = "neither batch nor lengths on the A100 are stated: with 4 to 8 sequences of 2,048 in place of 2 {} GB "
"are predicted"
FSDP_1 = (
    "half explained: of {} GB nothing is known. Length is not it, as was said: the recipe cuts samples at 512 tokens "
    "(fef3ed10d, torchtune/datasets/_alpaca.py, max_seq_len)"
)
COLLECTED: dict[int, str] = {
    350: "not explained: 22 GB are missing of the fullest of four GPUs, as the driver shows it; another has 5 GB "
    "less, and what lengths that vary leave is taken at its usual share",
    14: NO_STATES.format("0.88"),
    17: NO_STATES.format("0.96"),
    22: NO_STATES.format("1.05"),
    38: "the README has the kernel of xIELU's authors installed first, for less memory (axolotl c51d6b06c), "
    "which keeps "
    "its input alone (nickjbrowning/XIELU 6856ca9, xielu_impl.cu, XIELUAutograd); the formula has transformers' "
    "Python form. With --kernels fused, of which norms are fused too, 10.1 GB are predicted (1.08)",
    40: "not explained: 2.4 GB are missing. The plugin that the recipe installs (c6a32c5) takes its loss in "
    "training and "
    "evaluation alike, so that no logits are made (transformers/hunyuan_v1.py, utils.use_lce); with them 7.2 GB, "
    "without checkpointing 10.7, without 4 bits 3.1. The figure was taken on a model still in review (the plugin's "
    "file says transformers' pull request 39606), whose code is not to be had: if its attention held scores "
    "(--attention-kernel eager), 4.1 GB would be predicted (0.88)",
    47: NO_MEASUREMENT,
    52: "a README of 2023, when checkpoints were reentrant, past which 8-bit products hold nothing of what they "
    "read: with these 15.7 GB are predicted (0.78)",
    51: "the batch is not stated, and the recipe has changed since: with 3 sequences of 4,096 16.1 GB would be "
    "predicted, with 4 19.9",
    65: ALPACA.format(735),
    66: ALPACA.format(167) + " (735 in row 65, of the same samples: what the allocator keeps depends on their order)",
    67: ALPACA.format(463),
    245: "what was measured is not stated: what is allocated is 1.10 of it",
    246: "what was measured is not stated: what is allocated is 0.97 of it",
    247: "cannot be of the 2 packed sequences of 2,048 that the README states for all rows: a GPU's share of the "
    "weights (26.9 GB), checkpoints of 126 layers (16.9) and what FSDP 2's root gathers, embedding and unembedding "
    "in bfloat16 (8.4), are 52 GB. The recipe of the commit that brought the model (27d103b) has 1 sequence, not "
    "packed: with 512 to 1,024 tokens 43.6 to 46.2 GB are predicted (0.97 to 1.03)",
    255: FSDP_1.format("5.7"),
    267: FULL_CARD.format(49),
    268: ALPACA.format(415),
    269: ALPACA.format(447),

    274: "the cap of 2,048 tokens was typed; with 1,134 tokens as the longest the figure would result",
    284: FULL_CARD.format(47),
    286: FULL_CARD.format(46),
    288: "the cap of 2,048 tokens was typed; with 583 tokens as the longest the figure would result",
    289: "the cap of 8,192 tokens was typed: with 8 samples of 2,669 tokens a GPU the figure would result",
    290: "the cap of 8,192 tokens was typed: with 8 samples a GPU padded to 2,030 tokens the figure would result",
    294: "no peak of a step: the figure falls from 22.5 to 19.4 GB where GPUs and each one's sequences double; "
    "it is that "
    "of weights, sharded gradients and a constant",
    305: "not explained: 20.2 GB are missing, and more: the recipe (05b398a07) runs alpaca_2k_test unpadded, whose "
    "samples are far shorter than the 4,096 tokens taken. What an earlier text had, a scan without kernels, "
    "it is not: the model's own code stops without those of mamba-ssm, which the recipe's requirements name. Two "
    "copies of the 4-bit weights would be 54.8 GB, the figure; nothing was found that makes a second",
    307: "the script is newer than the figure: 64 GB would be needed for the 32 sequences of the LoRA script without "
    "checkpointing, of which a 3090 has 24",
    308: "the script is newer than the figure: the README has 4 GPUs, the script beside it 2, with 14 sequences "
    "each and "
    "no checkpointing",
    310: "lengths are not stated: 64 tokens are taken of short tweets; with 23 the figure would result",
    311: "lengths are not stated: 64 tokens are taken of short tweets; with 175 the figure would result",
    366: "half explained: its 4-bit checkpoint (unsloth-bnb-4bit) leaves some layers in 16 bits, and 0.4 GB more "
    "than that and the pairs are reserved before the first step (1.457 GiB), as much as a second table of "
    "embeddings; micro-batches may have at most 1,024 tokens, of which Unsloth 2025.4 makes logits",
    367: CAPPED.format("Alpaca's samples are shorter", 879),
    370: CAPPED.format("Alpaca's samples are shorter", 599),
    371: CAPPED.format("Alpaca's samples are shorter", "1,246"),
    377: "the notebook's cap was typed, and FineTome's samples are shorter: with 1,194 tokens as the longest the "
    "figure would result. The run is older than the notebook's header (it prints a warning that Unsloth 2025.3.18 "
    "hides): up to 2025.3.14 Gemma 3's loss is transformers' own, of all logits, and on a T4 everything is float32 "
    "(unsloth/models/vision.py, FORCE_FLOAT32); with today's loss 0.45",
    379: CAPPED.format("the longest sample is not known", "1,222"),
    381: CAPPED.format("no image is counted, of samples that are one small image and a formula", 128)
    + " within 2% (7.1 GB)",
    388: CAPPED.format("the samples are not named", 831),
    390: A100.format("16.8 to 27.9"),
    391: A100.format("10.4 to 15.8"),
    428: "a list of least sizes, not a measurement",
}  # fmt: skip
WORKSPACE = (
    "a fault of torch 2.1 (by the log's warnings) that no formula has: memory-efficient attention, which a 3090 then "
    "took for heads of 128 dimensions, could split the keys without bound on the way back (attention_backward.cu, "
    "num_splits_key = keys / 64), and its workspace then has 2 x 64 + 1 float32 copies of the queries: 129 x 32 "
    "heads x 4,096 x 128 x 4 bytes = 8.06 GiB. In the same notes two sequences fail for twice that, 16.13 GiB, with "
    "15.59 allocated: of these 7.05 do not grow with the batch; half of the rest and 8.06 more are 19.4, as printed. "
    "The runs under FSDP had no such block"
)
UNITS = (
    "not explained: 10 GB are missing; the source's two Gemmas, run alike, are at 0.90. Every matrix is a unit of "
    "FSDP here (size_based, min_num_params 10000), as the profile has it since"
)
OTHERWISE = (
    "the source contradicts it: its v13, the same set-up a day later, has 18.2 GB, its v15, with flash attention, "
    "14.5. All logits are made (TRL 0.23, trl/trainer/sft_trainer.py, compute_loss): 4 x 1,024 x 151,936 x 12 bytes "
    "= 7.5 GB on the way back, more than all that the figure leaves beside the weights (2.8 GB) and the context"
)
WHOLE = (
    "the model is not built under zero.Init, so that DeepSpeed puts it whole onto every GPU before it is split "
    "(deepspeed 0.11.1, runtime/engine.py, _configure_distributed_model), 12.6 GB, which is counted; nothing empties "
    "the allocator then where parameters are offloaded (zero/stage3.py, defragment, does where they are not), and a "
    "step's blocks are larger than those that it left (scores of 623 MB, weights of 224 MB), which is not: with both "
    "28.8 GB (1.03)"
)
ONE_BY_ONE = (
    "what is to be had of a card, so that what the allocator keeps counts: samples are run one at a time, unpadded, "
    "of many lengths (train.py, DataCollatorForSeq2Seq and per_device_train_batch_size 1), with which {} GB would be "
    "taken ({})"
)
MANY_LENGTHS = (
    "the cap of 10,240 tokens was typed; samples are run one at a time, unpadded, of many lengths, of which the "
    "allocator keeps most: with {} tokens as the longest the figure would result. Of a step the order cannot be: "
    "QLoRA's base takes 11.7 GB less than LoRA's, and its figure is 6 GB higher"
)
SIXTH: dict[int, str] = {
    523: UNITS, 536: WORKSPACE, 537: WORKSPACE,
    552: OTHERWISE, 561: WHOLE,
    562: CAPPED.format("Alpaca's samples are shorter", 589),
    566: ONE_BY_ONE.format("33.2", "1.04"), 567: ONE_BY_ONE.format("20.9", "0.74"),
    572: MANY_LENGTHS.format("5,115"),
}  # fmt: skip
SEVENTH: dict[int, str] = {
    590: "512 tokens of prompt were typed, whose length is not said: with 64 tokens 1.13",
    592: "the figure is of two to four samples, whose lengths are not said: with four of 1,024 tokens 1.01",
    597: CAPPED.format("the samples' lengths are not said", 344),
    616: "the least that it is said to need, with which a paged optimizer's states may be in the host's memory: "
    "without them 1.21",
}  # fmt: skip
CACHED_UNITS = (
    "what the allocator is taken to keep of gathered weights was not kept: {} GB are needed of {} reserved, to which "
    "{} are added"
)
EIGHTH: dict[int, str] = {
    625: "GPT-2 of transformers was typed, whose GELU is seven operations; the script has torch's, one kernel: 0.99",
    631: CACHED_UNITS.format("22.6", "24.7", "10.9"), 632: CACHED_UNITS.format("29.8", "32.2", "12.1"),
    638: "norms, attention and perceptrons are checkpointed each by itself (36044ad3, components/distributed/"
    "activation_checkpointing.py), so that a layer keeps four hidden states, 3.2 GB more, and runs less at once",
    655: "not explained: 12 GB are missing, of a LoRA run of which 512 tokens, as typed, are the cap",
    669: "lengths are capped at 2,048 and not told: with 530 tokens as the longest the figure would result",
}  # fmt: skip
CUT = "lengths are cut at 2,048 and not stated: with {} tokens as the longest the figure would result"
BERT = (
    "128 tokens were typed; batches are padded to their longest, which is not said: with 74 the figure would "
    "result"
)
NINTH: dict[int, str] = {
    690: "half explained: 14 GB are missing, of which 4.8 are the norms' results, gathered from the tensor-parallel "
    "GPUs, that the A of a pair keeps (Megatron-Bridge's pull request 4581 frees them: 4.7 GB less)",
    708: "the table calls its figure an average over the run; the same run has a peak of 46.7 GB in the project's "
    "later table, 1.17",
    719: CUT.format(444), 722: CUT.format(458),
    723: "not explained: lengths are cut at 2,048 and not stated, but of 18 GB the base takes 15.4, so that 73 "
    "tokens alone would give the figure",
    732: "half explained: 3.0 GB are missing, 1.8 of them allocated (row 731). By its code of then the last layer is "
    "not recomputed, and pieces of the loss go through torch.func.grad_and_value, which makes a graph of the "
    "gradient, so that nothing of a piece is freed until its end, and returns its logits, which stay beside the next "
    "(626bfffa5, model/dense/dense.py, loss/chunk_loss.py)",
    733: BERT,
}  # fmt: skip
DELTA = (
    "without flash-linear-attention, which its requirements do not have, transformers runs the delta rule as torch "
    "operations in float32: of 5.23's own a layer keeps 255 kB a token, with which {}; the older one keeps more"
)
EARLIER = (
    "what is missing is 2.8 GB in each of the four runs, as much as the 4-bit model takes that the same notebook "
    "makes first, so that an earlier one seems to lie beside"
)
MEGATRON_DEEPSPEED = (
    "not explained: 32,768 tokens are the script's, which the issue names, and a shape of 7b is assumed; the same "
    "table has 9 to 13 GB more under ZeRO-3 than under ZeRO-2, and what it keeps more without recomputation is 19 "
    "bytes a hidden value and layer, of which Megatron's code keeps 34, so that sequences may have been shorter"
)
TENTH: dict[int, str] = {
    747: DELTA.format("0.82"),
    758: "not explained: 11 GB are missing of the run with LoRA, which has 6 GB more than full fine-tuning (row 757, "
    "1.04): what the issue asks about",
    761: "not explained: 7 GB are missing, twice the float32 logits; autocast is the profile's, and the command "
    "asks for none",
    762: MEGATRON_DEEPSPEED, 765: MEGATRON_DEEPSPEED,
    769: EARLIER, 770: EARLIER, 771: EARLIER, 772: EARLIER,
    773: "its own attention has a softmax of operations (amax, exp and a division), each of which keeps its float32 "
    "scores, 0.1 GB a layer; with torch's attention 0.98 and 1.00 (rows 777 and 778)",
}  # fmt: skip
FULL_CAP = (
    "lengths that vary up to the cap of 1,024 were typed, which are not said; with every sample as long as the cap, "
    "as Hindi text may be, {}"
)
ELEVENTH: dict[int, str] = {
    798: FULL_CAP.format("1.14; the figure is what loading left, which training did not raise"),
    799: FULL_CAP.format("0.98"),
    819: "the cap of 65,536 was typed for four of LongAlpaca's samples, whose lengths are not said: with 8,900 "
    "tokens the figure would result",
}  # fmt: skip
NOT_RECOMPUTED = (
    "not explained: the script switches recomputation on, but the figure, about {} GB of a tool that is not named, "
    "is that of a run without, with which {}"
)
QUANTISED_MIXED = (
    "what is quantised how is not said; mixed precision was typed, with which litgpt refuses bitsandbytes "
    "(finetune/lora.py): in float16 alone {}"
)
TWELFTH: dict[int, str] = {
    839: "0.8 GB are taken for CUDA's context, as of all programs, and 0.3 held beside what is allocated (row 838)",
    840: QUANTISED_MIXED.format("0.61"), 841: QUANTISED_MIXED.format("1.38"),
    842: NOT_RECOMPUTED.format(20, "0.91"), 843: NOT_RECOMPUTED.format(12, "0.84"),
    850: "the cap of 512 tokens was typed; with 196 tokens as the longest the figure would result",
    865: "lengths are guessed to vary up to 220 tokens; with one length 0.98",
    863: "lengths are guessed, 220 tokens; what many leave in the allocator's cache is taken at its usual share",
}  # fmt: skip
DEQUANTISED = (
    "bitsandbytes before 0.50 keeps every expert in 16 bits too from the first backward pass on, 12.9 GB, which the "
    "estimate names and does not count: with them {}"
)
LENGTH = "float32 scores of every pair of positions, whose number is guessed (310 tokens): with 512 tokens {}"
THIRTEENTH: dict[int, str] = {
    871: LENGTH.format("1.13"),
    873: LENGTH.format("1.04"),
    889: DEQUANTISED.format("1.00"), 890: DEQUANTISED.format("1.02"), 891: DEQUANTISED.format("1.00"),
    869: "not explained: 13 GB of 38 sequences at a time, which blocks of many lengths would be, though Unsloth sets "
    "expandable segments",
}  # fmt: skip
FEW_LENGTHS = "--lengths-vary was typed; there are nine samples, of which each batch has two: without it 0.87"
FOURTEENTH: dict[int, str] = {
    906: "the cap of 16,384 tokens was typed for lengths that are not said; at their mean, 2,816, 0.88",
    907: FEW_LENGTHS, 908: FEW_LENGTHS,
    914: "not explained: 4.5 GB are missing, as much as float32 weights under autocast would take (0.97), where "
    "litgpt's default is bfloat16; neither the kind of memory nor the machine is told",
    927: "attention alone was typed as adapted; with the experts too, as one of two readers had it, 0.79",
}  # fmt: skip
FUSED = (
    "the loss: ten bytes a logit by the profile; by one kernel over the logits (--loss fused), for which what was "
    "measured has room, {}, and {} of what is allocated (segments are expandable)"
)
FIFTEENTH: dict[int, str] = {
    935: "half explained: 7.9 GB are missing of GRPO by Unsloth on an AMD card, of a version that is not told; it "
    "raises a GPU's batch to the group's size, and takes log-probabilities of as many sequences at once as 80% of "
    "the free memory hold, by its own count (unsloth_zoo 2026.9.5, rl_replacements.py, autotune_batch_and_chunks)",
    946: "autocast over FSDP without its mixed precision, which no option says: one unit of float32, and what a "
    "pass under autocast keeps; the run by DDP, that so computes, holds 1.43 GB more, as buckets and states would be",
    956: FUSED.format("1.37", "1.08"), 957: FUSED.format("1.44", "1.11"),
}  # fmt: skip
SIXTEENTH: dict[int, str] = {
    979: "the cap of 2,048 tokens was typed, which 1,600 samples need not reach, and what many lengths leave in the "
    "allocator's cache is taken at its usual share: without any of that 1.15",
    983: "what was offloaded is not told: states in the host's memory would be 45 GB less",
    984: "micro-batch, recomputation and optimizer are cut off in what could be read",
}  # fmt: skip
SEVENTEENTH: dict[int, str] = {}
STEPPED = (
    "as much as weights, gradients, states and the logits that are held come to in the optimizer's step, {} GB; with "
    "gradients that stay a step has 2.08 GiB more on its way, by the repository's own other probe too"
)
EIGHTEENTH: dict[int, str] = {
    1024: STEPPED.format("5.25"), 1025: STEPPED.format("3.28"),
}  # fmt: skip
GATHERED = (
    "not explained: 16 GB more than the formula has, and 31 GB less than without recomputation; 25 steps of the "
    "same script in full stay below the formula's backward pass"
)
RECOMPUTED = "as if layers ran again, TRL's default, though the source's configuration says not: {}"
NINETEENTH: dict[int, str] = {
    1058: GATHERED, 1059: GATHERED,
    1062: "the longest of 25 steps is not told; with what the optimizer's step holds, 27.4 GB, the figure is met "
    "(1.02), so that the backward pass is told too high",
    1073: "which counter is told is not said: what is allocated, with the context, is 57 GB",
    1075: "not explained: neither TRL's version nor FSDP's nor the counter is told; by layers alone as units 1.42",
    1086: RECOMPUTED.format("1.00"), 1087: RECOMPUTED.format("1.09"),
    1098: "logits that TRL copies for its accuracy and entropy, which no rule has; simulated 0.79",
}  # fmt: skip
MAPPED = (
    "as if segments were expandable, {}, of which the script says nothing: without, the allocator by itself keeps "
    "10.6 to 16.6 GB of 300 samples of 560 to 982 tokens in four orders"
)
TWENTIETH: dict[int, str] = {
    1107: MAPPED.format("0.95"), 1108: MAPPED.format("1.01"),
    1110: "the longest sample is not told: of the cap, 2,048 tokens, 1.00",
    1111: "the longest sample is not told: of the cap, 2,048 tokens, 0.91",
    1135: "a dynamic 4-bit checkpoint (unsloth-bnb-4bit), whose config was not read: as if none of it stood in 16 "
    "bits; the longest sample is not told either",
}  # fmt: skip
SPREAD = "neither the optimizer, nor the counter, nor how what is outside of the experts lies is told: {}"
TWENTYFIRST: dict[int, str] = {
    1152: "whose figure it is, the optimizer, packing and the longest example are not told, nor whether embedding "
    "and head, 11 GB with gradients and states, were trained in it",
    1153: "not explained: 13.5 GB more, as if the keys and values that the cache holds stood three times",
    1187: SPREAD.format("states of 8 bits would be 15 GB less"),
    1188: SPREAD.format("states of 8 bits would be 20 GB less"),
}  # fmt: skip
OF_SETS = {
    "sixth": SIXTH, "seventh": SEVENTH, "eighth": EIGHTH, "ninth": NINTH, "tenth": TENTH, "eleventh": ELEVENTH,
    "twelfth": TWELFTH, "thirteenth": THIRTEENTH, "fourteenth": FOURTEENTH, "fifteenth": FIFTEENTH,
    "sixteenth": SIXTEENTH, "seventeenth": SEVENTEENTH, "eighteenth": EIGHTEENTH, "nineteenth": NINETEENTH,
    "twentieth": TWENTIETH, "twentyfirst": TWENTYFIRST,
}  # fmt: skip

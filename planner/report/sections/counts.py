"""Sections that are counted: parameters and FLOPs."""

from __future__ import annotations

from ..document import Block, Paragraph, Row, Run, Section, Table, Text, para
from ..numbers import Material
from ..wording import clean
from . import choice

SETS = ("attention", "mlp", "unembedding", "all", "all-linear")


def _by_rank(root: Material) -> Table:
    own = str(root.get("plan/adapter/rank"))
    rows = tuple(
        Row(
            (
                (root.number(f"ranks/{rank}/adapter/rank"),),
                *((root.number(f"ranks/{rank}/adapter/layer_sets/{name}"),) for name in SETS),
            ),
            strong=rank == own,
        )
        for rank in root.get("ranks")
    )
    return Table("Trainable parameters by rank and layer set", ("Rank", *SETS), rows, "rrrrrr", basis="exact")


def _adapter(m: Material) -> Table:
    rows = [
        Row(
            (
                ("This adapter",),
                (m.number("adapter/params"),),
                (m.quotient("adapter/params", "model/params"),),
            ),
            True,
        )
    ]
    for role in (role for role, held in (m.get("adapter/params_by_role") or {}).items() if held):
        path = f"adapter/params_by_role/{role}"
        rows.append(Row(((f"of these in {role}",), (m.number(path),), (m.quotient(path, "model/params"),))))
    if m.get("adapter/params_saved"):
        saved = "adapter/params_saved"
        rows.append(
            Row((("of these, copies of modules",), (m.number(saved),), (m.quotient(saved, "model/params"),)))
        )
    rows.append(Row((("Each unit of rank adds",), (m.number("adapter/params_per_rank"),), ("",))))
    if m.get("adapter/expert_rank") is not None:
        rows.append(Row((("Rank of an expert’s pair",), (m.number("adapter/expert_rank"),), ("",))))
    sizes = m.get("adapter/bytes_by_dtype") or {}
    rows += [
        Row(((f"Size in {d}",), (m.number(f"adapter/bytes_by_dtype/{d}", "bytes"),), ("",))) for d in sizes
    ]
    return Table(
        "The adapter", ("", "Number", "Of the model"), tuple(rows), "lrr", basis=choice.basis(m, "adapter")
    )


def _model(m: Material) -> Table:
    rows = [
        Row((("Parameters",), (m.number("model/params"),))),
        Row((("Parameters that a token meets",), (m.number("model/params_active"),))),
        Row((("Layers",), (m.number("model/n_layers"),))),
        Row((("Hidden size",), (m.number("model/hidden_size"),))),
        Row((("Vocabulary",), (m.number("model/vocab_size"),))),
    ]
    if m.get("model/weight_bytes") is not None:
        rows.append(Row((("Weights as stored",), (m.number("model/weight_bytes", "bytes"),))))
    return Table("The model", ("", "Number"), tuple(rows), "lr", basis=choice.basis(m, "model"))


def parameters(root: Material) -> Section:
    """Parameters by layer set and rank."""
    m = root.within("plan")
    blocks: list[Block] = [
        para(
            "A pair of factors on a matrix of d_in inputs and d_out outputs adds r (d_in + d_out) parameters at "
            "rank r. The sums below run over the matrices of the model’s inventory."
        ),
        _by_rank(root),
    ]
    line = m.get("adapter/peft_line")
    if line:
        blocks.append(Paragraph(("PEFT prints of this adapter: ", clean(line)), "note"))
    return Section("Parameters", (*blocks, _adapter(m), _model(m)))


def _flops_table(m: Material) -> Table:
    def row(label: str, path: str, share: Run, strong: bool = False, style: str = "flops") -> Row:
        number: Run = m.number(path, style) if path else ""
        return Row(((label,), (number,), (share,)), strong)

    rows = [
        row("Full fine-tuning, a token", "flops/full_per_token", ""),
        row("This adapter, a token", "flops/lora_per_token", m.number("flops/ratio", "percent"), True),
        row("Forward alone", "flops/forward_per_token", ""),
        row("Full, masked half skipped", "flops/masked/full_per_token", ""),
        row(
            "This adapter, masked half skipped", "flops/masked/lora_per_token",
            m.number("flops/masked/ratio", "percent"),
        ),
        row("A step, full", "flops/step/full", ""),
        row("A step, this adapter", "flops/step/lora", ""),
    ]  # fmt: skip
    if m.get("flops/totals/full") is not None:
        rows.append(row("Whole run, full", "flops/totals/full", ""))
        rows.append(row("Whole run, this adapter", "flops/totals/lora", m.number("flops/ratio", "percent")))
    if m.get("flops/rule_ratio") is not None:
        rows.append(row("Bare rule (2N² + 6NR) / 3N²", "", m.number("flops/rule_ratio", "percent")))
    rows.append(
        row(
            "Attention’s scores and values, of this adapter’s",
            "",
            m.number("flops/attention_share", "percent"),
        )
    )
    return Table(
        "Training FLOPs", ("", "FLOPs", "Of full"), tuple(rows), "lrr", basis=choice.basis(m, "flops")
    )


def _ratio_table(root: Material) -> Table | None:
    lengths, own = root.get("lengths") or {}, str(root.get("plan/adapter/rank"))
    if not lengths:
        return None
    ranks = list(next(iter(lengths.values())))
    rows = tuple(
        Row(
            (
                (root.number(f"ranks/{rank}/adapter/rank"),),
                *((root.number(f"lengths/{length}/{rank}", "percent"),) for length in lengths),
            ),
            strong=rank == own,
        )
        for rank in ranks
    )
    header = ("Rank", *(f"{int(length):,} tokens" for length in lengths))
    caption = "This adapter’s FLOPs over full fine-tuning’s, by rank and sequence length"
    return Table(caption, header, rows, "r" * len(header), basis="exact")


def flops(root: Material) -> Section:
    """FLOPs against full fine-tuning."""
    m = root.within("plan")
    if m.get("flops") is None:
        return Section(
            "Compute", (Paragraph(("There is no exact FLOP count for this architecture or choice.",)),)
        )
    tokens: Text = (
        m.number("flops/step/seq_len"), " tokens a sequence, ", m.number("flops/step/batch"),
        " sequence" if m.get("flops/step/batch") == 1 else " sequences", " a step",
    )  # fmt: skip
    assumed = "" if m.get("workload/seq_len_given") else " (length assumed)"
    blocks: list[Block] = [
        para(
            "A multiply-add is 2 FLOPs. A frozen matrix still needs its forward pass and its input gradient; what "
            "LoRA saves is the weight gradient. Counted at ", *tokens, assumed, ".",
        ),
        _flops_table(m),
    ]  # fmt: skip
    if m.get("flops/break_even_rank") is not None:
        blocks.append(
            para(
                "From rank ",
                m.number("flops/break_even_rank"),
                " on, a step costs at least as much as a full one.",
            )
        )
    ratio = _ratio_table(root)
    wall = "Wall time does not follow FLOPs: the low-rank products are small and bound by memory bandwidth."
    blocks.append(para(wall, style="note"))
    return Section("Compute", (*blocks, ratio) if ratio else tuple(blocks))

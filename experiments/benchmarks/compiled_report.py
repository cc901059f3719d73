"""What the report says of programs that were compiled for machines that were not here."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

from experiments.benchmarks.compiled_models import MODELS
from experiments.benchmarks.compiled_steps import GRADIENTS, SOMETIMES, VARIANTS
from experiments.benchmarks.timing import Record
from experiments.reporting import style
from experiments.reporting.summaries import Section, commands
from experiments.reporting.tables import grouped, markdown
from experiments.training import result_lines

KIND = "compiled"
TITLE = "On machines that were not here"


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of a chip: what a bound is made from."""

    name: str
    flops: float  # bfloat16, dense, a second
    bandwidth: float  # bytes a second of its memory
    links: float  # bytes a second that it sends over all its links together
    source: str


CHIPS = {
    "v5e": Chip("TPU v5e", 197e12, 819e9, 200e9, "https://cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip("TPU v5p", 459e12, 2765e9, 600e9, "https://cloud.google.com/tpu/docs/v5p"),
    "h100": Chip(
        "H100 SXM", 989e12, 3350e9, 450e9, "https://www.nvidia.com/en-us/data-center/h100"
    ),
}


def bound(record: Record) -> dict[str, float]:
    """Seconds that a step takes at the least, by what it waits for."""
    chip = CHIPS[record["topology"].partition(":")[0]]
    return {
        "FLOPs": max(record["flops"], record["product_flops"]) / chip.flops,
        "memory": record["bytes"] / chip.bandwidth,
        "links": record["sent_bytes"] / chip.links,
    }


def least(record: Record, base: Record) -> tuple[float, str]:
    """The largest of the three, and which; the mean where only every fourth step perturbs."""
    times = bound(record)
    slowest = max(times, key=times.__getitem__)
    if record["variant"] in SOMETIMES:
        return (times[slowest] + 3 * max(bound(base).values())) / 4, slowest
    return times[slowest], slowest


def _count(record: Record, kind: str, what: str = "count") -> int:
    return record["collectives"].get(kind, {}).get(what, 0)


def targets(of: dict[str, Record]) -> list[tuple[str, str, float, float]]:
    """(what, its unit, the target, what was reached) for the steps of one model and topology."""
    made = []
    if "eps" in of and "two gradients" in of:
        leaves, two = of["eps"]["leaves"], of["two gradients"]["kernels"]
        added = {name: (line["kernels"] - two) / leaves for name, line in of.items()}
        most = 1.7
        if of["eps"]["topology"].startswith("h100"):
            most = added.get("plain formula", math.nan) + 0.3
        made.append(("kernels that eps adds", "for each parameter array", most, added["eps"]))
    base, exact = of.get("base"), of.get("exact")
    if base is None or exact is None or base["model"] == "small":  # its steps are no work
        return made
    for what, name in (("FLOPs of products", "product_flops"), ("FLOPs by XLA's count", "flops")):
        made.append((what, "times the base optimizer's", 2.001, exact[name] / base[name]))
    for kind, more in (("all-reduce", 1), ("all-gather", 0)):
        most = 2 * _count(base, kind) + more
        made.append((f"{kind}s", "in the program", most, _count(exact, kind)))
    if base["model"] != "transformer_1b":
        return made
    ratio = exact["temporary_bytes"] / base["temporary_bytes"]
    made.append(("temporaries", "times the base optimizer's", 1.002, ratio))
    ratio = exact["peak_bytes"] / base["peak_bytes"]
    made.append(("memory at the peak", "times the base optimizer's", 1.002, ratio))
    for name in ("every 4", "friendly", "gsam", "wsam", "decoupled", "looksam", "stable"):
        if name in of:
            beside, ours = (r["peak_bytes"] - r["argument_bytes"] for r in (of[name], exact))
            what = "parameter shards more than exact ASAM at the peak, beside the arguments"
            made.append((name, what, 1.1, (beside - ours) / exact["shard_bytes"]))
    return made


def _row(record: Record, base: Record) -> list[str]:
    time, slowest = least(record, base)
    gathers, reduces = (
        f"{_count(record, kind)} ({_count(record, kind, 'bytes') / 1e6:,.1f} MB)"
        for kind in ("all-gather", "all-reduce")
    )
    counts = [row["count"] for row in record["collectives"].values()]
    others = sum(counts) - _count(record, "all-gather") - _count(record, "all-reduce")
    ratios = [
        f"{record[name] / base[name]:.3f}" if base[name] else "-" for name in ("flops", "bytes")
    ]
    return [
        record["variant"],
        f"{record['argument_bytes'] / 1e6:,.1f}",
        f"{record['temporary_bytes'] / 1e6:,.1f}",
        f"{record['peak_bytes'] / 1e6:,.1f}",
        *ratios,
        gathers,
        reduces,
        str(others),
        str(record["kernels"]),
        f"{record['compile_seconds']:.0f}",
        f"{1e3 * time:.2f} ({slowest})",
    ]


def table(records: list[Record]) -> str:
    """A row for each step of one model on one topology."""
    base = next((one for one in records if one["variant"] == "base"), records[0])
    header = ["step", "arguments, MB a chip", "temporaries", "peak", "FLOPs / base"]
    header += ["bytes / base", "all-gathers", "all-reduces", "other collectives", "kernels"]
    header += ["compiled in, s", "at least, ms"]
    return markdown(header, [_row(record, base) for record in records])


def sections(workdir: Path) -> list[Section]:
    """One part of the report for all topologies and models."""
    lines = result_lines.read_kind(workdir, KIND)
    if not lines:
        return []
    order = [*MODELS, *VARIANTS, *GRADIENTS].index
    lines.sort(key=lambda r: (order(r["model"]), r["chips"], order(r["variant"])))
    found = grouped(lines, lambda r: (r["model"], r["topology"]))
    body, reached = [], []
    for (model, topology), records in found.items():
        name = f"{MODELS[model][0]}, {topology}"
        body += [f"{name} ({records[0]['chips']} chips):", table(records)]
        for what, unit, most, got in targets({record["variant"]: record for record in records}):
            met = "yes" if got <= most else "no"
            reached.append([name, f"{what}, {unit}", f"{most:.4g}", f"{got:.4g}", met])
    if reached:
        header = ["program", "what", "at most", "reached", "met"]
        body = ["Targets:", markdown(header, reached), *body]
    figures = "; ".join(
        f"{chip.name}: {chip.flops / 1e12:.0f} TFLOP/s, {chip.bandwidth / 1e9:,.0f} GB/s, links "
        f"{chip.links / 1e9:.0f} GB/s out ({chip.source})"
        for chip in CHIPS.values()
    )
    versions = ", ".join(sorted({line["versions"]["jax"] for line in lines}))
    said = f"{_SAID} JAX {versions}. Figures of the chips: {figures}."
    body = "\n\n".join([said, *body, commands(workdir, *_words(found))])
    drawn = {key: {record["variant"]: record for record in of} for key, of in found.items()}
    drawn = {key: of for key, of in drawn.items() if "base" in of and key[0] != "small"}
    return [Section(TITLE, body, (("compiled.png", partial(_picture, drawn)),) * bool(drawn))]


def _words(found: dict[tuple[str, str], list[Record]]) -> list[list[str]]:
    """A command for all TPUs, or GPUs, that the same steps of a model are compiled for."""
    steps = {key: tuple(line["variant"] for line in lines) for key, lines in found.items()}
    alike = grouped(steps, lambda key: (key[0], key[1].startswith("h100"), steps[key]))
    called = []
    for (model, _, names), keys in alike.items():
        called.append(["benchmark", "compiled", "--topology", *(topology for _, topology in keys)])
        called[-1] += ["--model", model, "--variant", *names]
    return called


_SAID = (
    "Compiled without the machines, by their compilers; nothing ran. The last column is a bound "
    "and not a measurement: the largest of FLOPs over the chip's peak, bytes over its memory's "
    "bandwidth, and bytes sent over its links. XLA's FLOPs and bytes count the body of a loop "
    "once, so that layers in a scan weigh less in them than in the step, and eps more; products "
    "and collectives count as often as they run. Of a condition the costliest branch counts, and "
    "where every fourth step perturbs, the bound is the mean with three of the base optimizer's. "
    "For a GPU, XLA gives neither: there FLOPs are those of the products alone. The peak is what "
    "must fit; the sum of temporaries has more in it than is alive at once. Two gradients gather "
    "little more than twice what one does and hold w + eps beside w, optax.contrib.sam's as well."
)


def _picture(drawn: dict[tuple[str, str], dict[str, Record]], path: Path) -> None:
    """Bound and memory of each variant beside the base optimizer's, model by model."""
    models = grouped(drawn, lambda key: key[0])
    canvas, panels = style.panels(len(models), 2, (8.6, 0.6 + 2.3 * len(models)))
    topologies = list(dict.fromkeys(topology for _, topology in drawn))
    for row, (model, keys) in enumerate(models.items()):
        names = [name for name in VARIANTS if any(name in drawn[key] for key in keys)]
        pair = panels[2 * row : 2 * row + 2]
        for key in keys:
            of, base = drawn[key], drawn[key]["base"]
            look = topologies.index(key[1])
            marked: Any = dict(marker="osDv^<>pP*X"[look], color=f"C{look}", ms=5, ls="", alpha=0.7)
            rows = [names.index(name) for name in of]
            times = [least(line, base)[0] / least(base, base)[0] for line in of.values()]
            pair[0].plot(times, rows, label=key[1], **marked)
            peaks = [line["peak_bytes"] / base["peak_bytes"] for line in of.values()]
            pair[1].plot(peaks, rows, **marked)
        for panel in pair:
            panel.set_yticks(range(len(names)), names if panel is pair[0] else [], fontsize=8)
            panel.invert_yaxis()
        pair[0].set_title(MODELS[model][0], fontsize=8, loc="left")
    panels[-2].set_xlabel("bound on the time of a step / base's")
    panels[-1].set_xlabel("memory at the peak / base's")
    most = max(panels[::2], key=lambda panel: len(panel.lines))
    canvas.legend(handles=most.lines, loc="outside upper center", ncols=4, frameon=False)
    style.save(canvas, path)

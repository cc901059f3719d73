"""What the report says of the accuracies of finished runs, in the paper's order."""

import re
from functools import partial

from experiments.config import paper, run_config
from experiments.config.defaults import default_rho
from experiments.reporting import curves, opening
from experiments.reporting.summaries import (
    NOISE_FOOTNOTE,
    Section,
    commands,
    digits_summary,
    measured_on,
    paper_summary,
)
from experiments.reporting.tables import Group, differing, noise_table, said_of

# What the digits' sections tell apart by themselves; by anything else they are cut into settings.
_TOLD = ("model", "method", "label_noise", "rho", "epochs", "eta", "adapt", "p", "normalization")


def sections(found: list[Group]) -> list[Section]:
    """The digits by label noise, then Tables 1 to 3, as far as there are runs."""
    return [*_digits(found), *_tables(found)]


def _is_default(group: Group) -> bool:
    """Whether a run on the digits has the method's own settings, the label noise aside."""
    radius = default_rho("digits", group["method"])
    return group["rho"] == radius and _is_plain(group)


def _is_plain(group: Group) -> bool:
    """Whether nothing but the radius is other than the method's default."""
    own = run_config.make(group["dataset"], group["method"])
    names = ("p", "normalization", "eta", "adapt")
    return all(group[name] == getattr(own, name) for name in names)


def _digits(found: list[Group]) -> list[Section]:
    """A part for each setting: runs that differ in dtype, say, stand under headings that say so."""
    digits = [g for g in found if g["dataset"] == "digits"]
    names = differing(digits, (*_TOLD, "dataset"))
    settings: dict[str, list[Group]] = {}
    for group in digits:
        words = [f"{name.replace('_', ' ')} {said_of(name, group)}" for name in names]
        settings.setdefault(", ".join(words), []).append(group)
    return [part for words, rows in settings.items() for part in _of_setting(rows, words)]


def _of_setting(digits: list[Group], setting: str) -> list[Section]:
    made = []
    said = f", {setting}" if setting else ""
    file = "_" + re.sub(r"[^\w.]+", "_", setting) if setting else ""
    for model in sorted({g["model"] for g in digits}):
        rows = [g for g in digits if g["model"] == model and _is_plain(g)]
        if len({g["epochs"] for g in rows}) > 1:  # a cell of this table has room for one
            rows = [g for g in rows if g["epochs"] == run_config.make("digits").epochs]
        if len({g["label_noise"] for g in rows}) > 1:
            body = f"{noise_table(rows)}\n\n{NOISE_FOOTNOTE}"
            made.append(Section(f"Digits, {model}, by label noise{said}", body))
    for noise in sorted({g["label_noise"] for g in digits}):
        level = [g for g in digits if g["label_noise"] == noise]
        for model in sorted({g["model"] for g in level}):
            rows = [g for g in level if g["model"] == model]
            defaults = [g for g in rows if _is_default(g)]
            name = f"{100 * noise:g}% label noise"
            tag = f"{model}_noise{100 * noise:g}{file}"
            pictures = []
            if defaults:
                pictures.append(
                    (
                        f"digits_{tag}.png",
                        partial(curves.accuracy_curves, defaults, title=f"Digits, {name}"),
                    )
                )
            if len(rows) > len(defaults):
                title = f"Digits, {name}: each radius"
                pictures.append(
                    (f"digits_{tag}_rho.png", partial(curves.rho_curves, rows, title=title))
                )
            body = [digits_summary(rows), measured_on(rows), commands(rows)]
            title = f"Digits, {model}, {name}{said}"
            outcomes = _outcomes(f"digits, {model}, {name}{said}", defaults)
            made.append(Section(title, "\n\n".join(body), tuple(pictures), outcomes))
    return made


def _outcomes(problem: str, found: list[Group]) -> tuple[opening.Outcome, ...]:
    """One, at the paper's radii, where the base optimizer has runs."""
    of_method = {
        g["method"]: g
        for g in found
        if g["method"] != "sgd"
        and g["rho"] == default_rho(g["dataset"], g["method"])
        and _is_plain(g)
    }
    plain = {g["epochs"]: g for g in found if g["method"] == "sgd"}
    if not plain:
        return ()
    epochs = min(g["epochs"] for g in (of_method or plain).values())
    base, twice = plain.get(epochs), plain.get(2 * epochs)
    if base is None and twice is None:
        return ()
    sam, asam = of_method.get("sam"), of_method.get("asam")
    return (opening.Outcome(problem, "the paper", base, twice, sam, asam),)


def _tables(found: list[Group]) -> list[Section]:
    cifar10 = [g for g in found if g["dataset"] == "cifar10"]
    noisy_models = {g["model"] for g in cifar10 if g["label_noise"] > 0} | {paper.TABLE3_MODEL}
    noisy = [g for g in cifar10 if g["model"] in noisy_models]
    tables = {
        "Table 1: CIFAR-10": [
            g for g in cifar10 if g["label_noise"] == 0 and g["model"] != paper.TABLE3_MODEL
        ],
        "Table 2: CIFAR-100": [g for g in found if g["dataset"] == "cifar100"],
        "Table 3: CIFAR-10 with label noise": noisy if any(g["label_noise"] for g in noisy) else [],
    }
    made = []
    for title, rows in tables.items():
        if rows:
            said = _unfitted(rows)
            body = [paper_summary(rows), said, measured_on(rows), commands(rows)]
            outcomes = [one for words, g in _problems(rows) for one in _outcomes(words, g)]
            title = f"{title}, labels not fitted" if said else title
            made.append(Section(title, "\n\n".join(filter(None, body)), (), tuple(outcomes)))
    return made


def _problems(rows: list[Group]) -> list[tuple[str, list[Group]]]:
    """The rows by what they were trained on, in words."""
    found: dict[str, list[Group]] = {}
    for group in rows:
        words = f"{group['dataset']}, {group['model']}, {100 * group['label_noise']:g}% label noise"
        if group["subset"] is not None:
            words += f", {group['subset']:,} images"
        words += ", augmented" if group["augment"] else ""
        found.setdefault(words, []).append(group)
    return list(found.items())


def _unfitted(rows: list[Group]) -> str:
    """What must be said where SGD, in fewer epochs than the paper's, does not fit the labels."""
    fit = [r["metrics"]["train_accuracy"][-1] for g in rows if g["method"] == "sgd" for r in g.runs]
    if not fit or max(fit) >= opening.FITTED or not all(group.reduced for group in rows):
        return ""
    return (
        f"This is not the paper's regime. SGD's training accuracy in its last epoch is "
        f"{min(fit):.1f} to {max(fit):.1f}%: the network has no capacity to spare, which is what "
        "sharpness-aware training takes. Where the same network fits its labels the order is "
        "another; see the table of fitted labels."
    )

"""Rows of a table: two that differ in a setting never look alike, nor do two kinds of devices."""

import dataclasses
import pathlib
import re

import jax
import pytest

from experiments.config import run_config
from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig
from experiments.reporting import accelerator, precision, readme, sections, tables
from experiments.training import result_lines

EVIDENCE = pathlib.Path(__file__).parent.parent / "experiments" / "evidence"
OTHER = dict(dataset="cifar100", model="mlp", method="sam", normalization="filterwise", adapt="all")
OTHER |= dict(dtype="bfloat16", perturb="device", batch_norm="device", variant="every4")
OTHER |= dict(precision="highest", augment=True, nesterov=True, subset=100, p=1.5, validation=0.1)
FIELDS = [field.name for field in dataclasses.fields(RunConfig) if field.name != "seed"]


def line(config, *, platform="cpu", fingerprint="x"):
    """What a run of that configuration left, with accuracies that do not tell."""
    kind = {"platform": platform, "kind": platform, "processors": 1}
    return config.as_json() | dict(
        test_accuracy_final=90.0,
        test_accuracy_max=91.0,
        wall_seconds=1.0,
        metrics={"test_accuracy": [90.0] * config.epochs},
        dataset_fingerprint=fingerprint,
        train_images=1297 if config.subset is None else config.subset,
        versions={"jax": "0", "flax": "0"},
        device=kind,
        command="python -m experiments",
    )


def pairs():
    made = run_config.make("digits", "asam")
    for name in FIELDS:
        old = getattr(made, name)
        new = OTHER.get(name, old + 1 if isinstance(old, int) else 0.1234567)
        assert new != old, name
        yield name, line(made), line(dataclasses.replace(made, **{name: new}))
    yield "fingerprint", line(made), line(made, fingerprint="y")
    yield "platform", line(made), line(made, platform="gpu")
    near = dataclasses.replace(made, rho=0.50000001)
    yield "rho, the seventh digit", line(made), line(near)


@pytest.mark.parametrize(("name", "one", "other"), [pytest.param(*p, id=p[0]) for p in pairs()])
def test_two_settings_never_look_alike(name, one, other):
    found = tables.groups([one, other])
    assert len(found) == 2
    for table in (tables.digits_table, tables.paper_table):
        _, _, *rows = table(found).splitlines()
        assert len(rows) == 2 and rows[0] != rows[1], (name, table.__name__)
    made = sections.sections(found)
    texts = [part.title + part.body for part in made]
    for part in made:  # a cell of a table of many runs never hides one of two
        cells = [row for row in part.body.splitlines() if row.startswith("| ASAM")]
        assert len(set(cells)) == len(cells)
    assert len(set(texts)) == len(texts)
    pictures = [picture for part in made for picture, _ in part.pictures]
    assert len(set(pictures)) == len(pictures)


def test_rows_that_agree_have_no_more_columns():
    made = [run_config.make("digits", method, seed=s) for method in ("sgd", "asam") for s in (0, 1)]
    table = tables.digits_table(tables.groups([line(one) for one in made]))
    assert [cell.strip() for cell in table.splitlines()[0].split("|")][-2:] == ["runs", ""]


@pytest.mark.parametrize(
    ("platform", "values", "words"),
    [
        ("cpu", {}, "float32"),
        ("gpu", {}, "float32 (products and convolutions in TF32)"),
        ("gpu", {"precision": "highest"}, "float32"),
        ("gpu", {"dtype": "bfloat16"}, "bfloat16"),
        ("tpu", {}, "float32 (products and convolutions in bfloat16)"),
    ],
)
def test_the_arithmetic_is_said_as_the_device_has_it(platform, values, words):
    record = line(run_config.make("digits", "asam", **values), platform=platform)
    assert precision.in_words(record) == words


def test_a_run_of_two_kinds_of_devices_counts_on_each_and_is_never_mixed(tmp_path):
    made = run_config.make("digits", "asam", label_noise=0.4)
    for platform in ("gpu", "cpu"):
        record = line(made, platform=platform) | dict(run_id=made.run_id("x"))
        result_lines.append(tmp_path, record)
        result_lines.append(tmp_path, record)
    runs, _ = result_lines.read(tmp_path)
    found = tables.by_platform(runs)
    assert list(found) == ["cpu", "gpu"] and [len(rows) for rows in found.values()] == [1, 1]
    assert [len(group.runs) for group in tables.groups(runs)] == [1, 1]


def test_the_accelerators_part_is_made_of_its_own_lines():
    runs, problems = result_lines.read(EVIDENCE)
    assert not problems
    elsewhere = tables.by_platform(runs)["gpu"]
    assert {result_lines.platform(run) for run in elsewhere} == {"gpu"}
    (part,) = accelerator.sections(EVIDENCE, elsewhere)
    assert f"## {part.title}\n\n{part.body}" in (EVIDENCE / "RESULTS.md").read_text()
    assert "NVIDIA H200" in part.body and "AMD EPYC" not in part.body
    (run,) = [run for run in elsewhere if run["dataset"] == "cifar10"]
    assert re.search(rf"\| {run['test_accuracy_final']:.2f} +\| 1 +\| 93.82 ± 0.17", part.body)
    for note in result_lines.read_kind(EVIDENCE, accelerator.NOTE):
        assert re.search(rf"\| {note['name']} .* {note['ms_step_seed']:.2f} ", part.body)
    assert "H200" not in readme.table(EVIDENCE)


def test_what_is_known_of_a_difference_is_of_the_line_itself():
    """Nothing is said of cutout or bfloat16 where a run had neither; nor above the paper's."""
    made = run_config.make("cifar10", "asam", cutout=0)
    copy = dict(fingerprint=accelerator._JPEG, platform="gpu")
    record = line(made, **copy)
    record |= {"metrics": {"test_accuracy": [90.0] * made.epochs, "train_accuracy": [88.0]}}
    (group,) = tables.groups([record])
    known = accelerator._difference(group)
    assert known is not None and "2.82 points below" in known and "JPEG" in known
    assert "cutout" not in known and "computed in" not in known
    (above,) = tables.groups([record | dict(test_accuracy_max=95.0)])
    assert accelerator._difference(above) is None


def test_what_jax_is_set_to_is_the_precision_of_a_run():
    """Under JAX's own names for it, as the environment may have them; an option comes first."""
    assert run_config.make().precision == "default"
    with jax.default_matmul_precision("tensorfloat32"):
        assert run_config.make().precision == "high"
        assert run_config.make(precision="highest").precision == "highest"
    with jax.default_matmul_precision("BF16_BF16_F32"):
        record = line(run_config.make(), platform="gpu")
    assert precision.in_words(record) == "float32 (products by BF16_BF16_F32)"
    with pytest.raises(ConfigError, match="unknown precision 'float32'; the known ones are: def"):
        run_config.make(precision="float32")

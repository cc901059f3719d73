"""A run's settings: the paper's values by data set and method, its id, and what is refused."""

import json
import re

import pytest

from experiments.config.errors import ConfigError
from experiments.config.registry import collect
from experiments.config.run import FIELDS, LATER, Run
from experiments.training import result_lines
from experiments.training.resolve import resolve
from experiments.training.runner import name_of
from tests.runs import EVIDENCE, made


@pytest.mark.parametrize(
    ("dataset", "method", "rho", "epochs", "smoothing"),
    [
        ("cifar10", "sgd", 0.0, 400, 0.1),
        ("cifar10", "sam", 0.05, 200, 0.1),
        ("cifar10", "asam", 0.5, 200, 0.1),
        ("cifar100", "sgd", 0.0, 400, 0.1),
        ("cifar100", "sam", 0.1, 200, 0.1),
        ("cifar100", "asam", 1.0, 200, 0.1),
        ("digits", "sam", 0.05, 30, 0.0),
        ("digits", "asam", 0.5, 30, 0.0),
    ],
)
def test_the_papers_settings(dataset, method, rho, epochs, smoothing):
    run = made(dataset, method)
    assert (run.rho, run.epochs, run.label_smoothing) == (rho, epochs, smoothing)
    assert (run.batch_size, run.lr, run.momentum, run.weight_decay) == (128, 0.1, 0.9, 5e-4)
    assert run.eta == (0.01 if method == "asam" else 0.0)
    assert run.adapt == ("not_bias" if method == "asam" else "none")
    assert run.normalization == {"sgd": "none", "sam": "identity", "asam": "elementwise"}[method]
    cifar = dataset != "digits"
    assert (run.augment, run.cutout, run.nesterov) == (cifar, 0, cifar)
    assert resolve(run) == run


def test_other_optimizers_have_values_of_their_own():
    for name, values in (("adamw", (0.9, 0.05, False)), ("muon", (0.95, 0.05, True))):
        run = made("cifar10", optimizer=name)
        assert (run.lr, run.momentum, run.weight_decay, run.nesterov) == (1e-3, *values)
        given = made("cifar10", optimizer=name, lr=0.02, nesterov=True)
        assert (given.lr, given.nesterov) == (0.02, True)


def test_a_line_is_strict_and_whole_and_an_id_names_the_settings_and_the_data():
    values = made(p=float("inf")).as_json()
    assert values["p"] == "inf" and set(values) == set(FIELDS)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    run = made()
    ids = {run.run_id("a"), run.run_id("b"), made(seed=1).run_id("a"), made(rho=0.4).run_id("a")}
    assert len(ids) == 4 and all(len(i) == 12 for i in ids)
    assert made(rho=0.5, parameterization="as is").run_id("a") == run.run_id("a")
    assert made(parameterization="layer").run_id("a") != run.run_id("a")


def test_stored_lines_are_the_runs_that_their_ids_say():
    """Those from before a field came, too."""
    lines = result_lines.read(EVIDENCE)[0]
    for kind in collect("experiments.studies", "STUDIES"):
        lines += result_lines.read(EVIDENCE, f"{kind}_run")[0]
    assert len(lines) > 1000
    for line in lines:
        values = {name: line.get(name, LATER.get(name)) for name in FIELDS}
        run = Run(**values | {"p": float(values["p"])})
        assert run.run_id(line["dataset_fingerprint"]) == line["run_id"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "mnist"}, "unknown dataset 'mnist'; the known ones are: cifar10"),
        ({"method": "adam"}, "unknown method 'adam'; the known ones are: sgd, sam, asam"),
        ({"model": "lenet"}, "unknown model 'lenet'; the known ones are: densenet121"),
        ({"variant": "lazy"}, "unknown variant 'lazy'; the known ones are: exact, every4"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; the known ones are: sgd, adamw, muon"),
        ({"warmup": 1.0}, "warmup=1.0 must be from 0 to 0.9"),
        ({"rho": -0.1}, "rho=-0.1 must be at least 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"p": 0.9}, "p=0.9 must be at least 1"),
        ({"epochs": 0}, "epochs=0"),
        ({"method": "sgd", "eta": 0.1}, "eta=0.1 means nothing to method 'sgd'"),
        ({"method": "sam", "normalization": "filterwise"}, "means nothing to method 'sam'"),
        ({"devices": 3}, "batch_size=128 is not a multiple of the 3 devices"),
        ({"perturb": "device"}, "perturb='device' means nothing on one device"),
        ({"devices": 2, "variant": "part4"}, "means nothing on several devices; leave --variant"),
        ({"cutout": 8}, "cutout=8 means nothing without augmentation"),
        (
            {"variant": "last-friendly", "optimizer": "muon"},
            "means nothing to optimizer 'muon'; leave --variant out",
        ),
        ({"parameterization": "ntk", "optimizer": "adamw"}, "means nothing to optimizer 'adamw'"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        made(**values)


def test_only_what_a_step_computes_is_compiled_into_it():
    """Seeds, radii and rates are arguments or data: they compile nothing anew."""
    run = made()
    other = made(seed=3, rho=2.0, lr=0.3, label_noise=0.4, epochs=7, data_seed=1)
    assert run.program() == other.program() != made(eta=0.0).program()


def test_a_run_is_named_by_what_tells_it_from_the_others():
    values = dict(variant="part16", rho=1.0, label_noise=0.4, parameterization="layer", seed=3)
    name = "digits cnn asam variant part16 rho 1.0 parameterization layer label noise 0.4 seed 3"
    assert name_of(made(**values).as_json()) == name
    other = made(model="vit", optimizer="muon", method="sgd").as_json()
    assert name_of(other) == "digits vit sgd optimizer muon seed 0"

"""A run's settings: the paper's values by data set and method, and what is refused."""

import json

import pytest

from experiments.commands.train import Configuration
from experiments.config import plans, run_config
from experiments.config.errors import ConfigError
from experiments.figures import figure2, figure4
from experiments.training.progress import name_of


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
    made = run_config.make(dataset, method)
    assert (made.rho, made.epochs, made.label_smoothing) == (rho, epochs, smoothing)
    assert (made.batch_size, made.lr, made.momentum, made.weight_decay) == (128, 0.1, 0.9, 5e-4)
    assert made.eta == (0.01 if method == "asam" else 0.0)
    assert made.adapt == ("not_bias" if method == "asam" else "none")
    assert made.normalization == {"sgd": "none", "sam": "identity", "asam": "elementwise"}[method]
    cifar = dataset != "digits"
    assert (made.augment, made.cutout, made.nesterov) == (cifar, 0, cifar)


@pytest.mark.parametrize(
    ("optimizer", "values"),
    [("adamw", (1e-3, 0.9, 0.05, False)), ("muon", (1e-3, 0.95, 0.05, True))],
)
def test_another_optimizer_has_values_of_its_own(optimizer, values):
    made = run_config.make("cifar10", "asam", optimizer=optimizer)
    assert (made.lr, made.momentum, made.weight_decay, made.nesterov) == values
    given = run_config.make("cifar10", "asam", optimizer=optimizer, lr=0.02, nesterov=True)
    assert (given.lr, given.nesterov) == (0.02, True)
    assert made.as_json()["optimizer"] == optimizer and "warmup" not in made.as_json()


def test_the_authors_script_is_options_away():
    made = run_config.make("cifar10", "asam", recipe="script")
    assert (made.eta, made.cutout, made.nesterov, made.augment) == (0.0, 0, False, True)
    assert run_config.make("cifar10", "sgd", recipe="script").nesterov is False
    assert run_config.make("cifar10", "asam", recipe="script", eta=0.01).eta == 0.01


def test_appendix_b_keeps_its_cutout():
    figures = [
        *figure2.plan("cifar10", None, "sgd", epochs=None, label_noise=None),
        *figure4.plan(
            "cifar10",
            None,
            None,
            label_noise=None,
            seeds=1,
            epochs=None,
            subset=None,
            dtype="float32",
        ),
    ]
    assert {made.cutout for made in figures} == {16}
    table = plans.table("cifar10", ["resnet20"], methods=None, noise=[0.0], cutout=16)
    assert {made.cutout for made in table} == {16}


def test_the_command_without_options_trains_what_make_makes_of_nothing():
    assert Configuration().of_each_seed(devices=1) == [run_config.make()]


def test_json_is_strict_and_whole():
    values = run_config.make("digits", "asam", p=float("inf")).as_json()
    assert values["p"] == "inf"
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert {"dataset", "model", "method", "rho", "eta", "p", "normalization", "label_noise"} <= set(
        values
    )


def test_an_id_names_the_settings_and_the_data():
    made = run_config.make("digits", "asam")
    ids = {
        made.run_id("a"),
        made.run_id("b"),
        run_config.make("digits", "asam", seed=1).run_id("a"),
        run_config.make("digits", "asam", rho=0.4).run_id("a"),
    }
    assert len(ids) == 4 and all(len(i) == 12 for i in ids)
    assert run_config.make("digits", "asam", rho=0.5).run_id("a") == made.run_id("a")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "mnist"}, "unknown dataset 'mnist'"),
        ({"method": "adam"}, "unknown method 'adam'"),
        ({"model": "lenet"}, "unknown model 'lenet'"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; the known ones are: sgd, adamw, muon"),
        ({"warmup": 1.0}, "warmup=1.0: the share of the steps"),
        (
            {"dataset": "cifar10", "recipe": "script", "optimizer": "adamw"},
            "recipe='script' trains by SGD without a warm-up",
        ),
        (
            {"dataset": "cifar10", "recipe": "script", "warmup": 0.1},
            "leave --optimizer and --warmup out, or --recipe",
        ),
        (
            {"variant": "last-friendly", "optimizer": "muon"},
            "variant='last-friendly' takes a share of SGD's momentum",
        ),
        ({"dtype": "float16"}, "unknown dtype 'float16'; the known ones are: float32, bfloat16"),
        ({"normalization": "layerwise"}, "unknown normalization 'layerwise'"),
        ({"adapt": "kernels"}, "unknown adapt 'kernels'"),
        ({"rho": -0.1}, "rho=-0.1: the radius"),
        ({"eta": -1.0}, "eta=-1.0: the stabilizer"),
        ({"p": 0.9}, "p=0.9: the order"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"momentum": 1.5}, "momentum=1.5"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0"),
        ({"cutout": -1}, "cutout=-1"),
        ({"method": "sgd", "eta": 0.1}, "eta=0.1 means nothing to method 'sgd'"),
        ({"method": "sam", "normalization": "filterwise"}, "means nothing to method 'sam'"),
        ({"devices": 3}, "batch_size=128 is not a multiple of the 3 devices"),
        ({"cutout": 8}, "cutout=8 is a part of augmentation"),
        ({"recipe": "theirs"}, "unknown recipe 'theirs'; the known ones are: paper, script"),
        ({"recipe": "script"}, "the authors' script for CIFAR on one device; leave --recipe out"),
        (
            {"dataset": "cifar10", "recipe": "script", "variant": "part4"},
            "recipe='script' has no form 'part4'",
        ),
        ({"test_every": 0}, "test_every=0: the number of epochs between two tests"),
        ({"perturb": "device"}, "means nothing on one device; leave --perturb out"),
        ({"devices": 2, "batch_norm": "none"}, "unknown batch_norm 'none'"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ConfigError) as error:
        run_config.make(**values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("method", "settings", "name"),
    [
        ("sgd", {}, "digits cnn sgd seed 3"),
        ("sgd", dict(model="vit", optimizer="adamw"), "digits vit adamw seed 3"),
        ("asam", dict(model="vit", optimizer="muon"), "digits vit asam on muon rho 0.5 seed 3"),
        (
            "asam",
            dict(variant="part16", rho=1.0, label_noise=0.4),
            "digits cnn asam part16 rho 1 noise 40% seed 3",
        ),
    ],
)
def test_progress_names_a_run_by_what_tells_it_from_the_others(method, settings, name):
    made = run_config.make("digits", method, seed=3, **settings)
    assert name_of(made.as_json()) == name

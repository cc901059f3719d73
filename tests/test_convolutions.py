"""`benchmark convolutions`: which a network has, each part against loops, and what is summed."""

import json
from collections import Counter

import jax
import numpy as np
import pytest

from experiments.benchmarks import convolution_cost, convolutions, torch_convolutions, torch_step
from experiments.benchmarks.convolution_cost import EIGEN, STEP, TORCH, YNNPACK
from experiments.benchmarks.convolutions import PARTS, Convolution
from experiments.config.errors import ConfigError

pytestmark = pytest.mark.usefixtures("flax_promotes")

CASES = [
    Convolution(batch=2, side=6, inputs=3, outputs=4, window=3, stride=1, padding=1),
    Convolution(batch=2, side=6, inputs=3, outputs=4, window=3, stride=2, padding=1),
    Convolution(batch=2, side=7, inputs=2, outputs=3, window=3, stride=2, padding=1),
    Convolution(batch=2, side=6, inputs=3, outputs=4, window=1, stride=2, padding=0),
]


def by_loops(one):
    """The three parts, entry of the window by entry of the window, in float64."""
    images, kernel, back = (array.astype(float) for array in convolutions.arrays(one))
    sides = ((0, 0), (one.padding,) * 2, (one.padding,) * 2, (0, 0))
    padded, reach = np.pad(images, sides), one.stride * (one.side_out - 1) + 1
    forward, of_input, of_kernel = np.zeros(back.shape), np.zeros(padded.shape), kernel * 0
    for i in range(one.window):
        for j in range(one.window):
            rows, columns = slice(i, i + reach, one.stride), slice(j, j + reach, one.stride)
            forward += padded[:, rows, columns] @ kernel[i, j]
            of_input[:, rows, columns] += back @ kernel[i, j].T
            of_kernel[i, j] = np.einsum("bhwi,bhwo->io", padded[:, rows, columns], back)
    inner = slice(one.padding, one.padding + one.side)
    return dict(zip(PARTS, (forward, of_input[:, inner, inner], of_kernel), strict=True))


@pytest.mark.parametrize("one", CASES, ids=str)
def test_each_part_equals_the_loops(one):
    expected = by_loops(one)
    for part, (function, arguments) in convolutions.parts(one).items():
        found = np.asarray(function(*arguments))
        if part == PARTS[2]:
            found = found.transpose(1, 2, 0, 3)  # XLA's program puts the channels first
        np.testing.assert_allclose(found, expected[part], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("one", CASES, ids=str)
def test_each_part_of_pytorchs_equals_the_loops(one):
    pytest.importorskip("torch", reason="needs PyTorch, which this project does not")
    expected = by_loops(one)
    for part, function in torch_convolutions.parts(torch_step.Machine(), one).items():
        order = (2, 3, 1, 0) if part == PARTS[2] else (0, 2, 3, 1)
        found = function().permute(*order).numpy()
        np.testing.assert_allclose(found, expected[part], rtol=1e-4, atol=1e-4)


def test_a_network_has_those_that_its_name_says():
    found = convolutions.of_network("resnet20", 2)
    windows = Counter()
    for one, count in found.items():
        windows[one.window] += count
    assert windows == {3: 19, 1: 2}  # and the dense layer is the twentieth
    assert found[Convolution(2, 32, 16, 16, window=3, stride=1, padding=1)] == 6
    assert found[Convolution(2, 32, 16, 32, window=3, stride=2, padding=1)] == 1
    with pytest.raises(ConfigError, match="has grouped ones; choose another"):
        convolutions.of_network("resnext29_32x4d", 1)


def test_they_are_timed_in_both_of_xlas_libraries_beside_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(convolutions, "of_network", lambda *_: Counter({CASES[1]: 2, CASES[3]: 1}))
    convolution_cost.run(tmp_path, "mlp", 4, repeats=1)
    (path,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    # Nothing asks for the gradient of what has the channels of an image.
    forms = Counter(line["form"] for line in lines)
    assert forms == {PARTS[0]: 2, PARTS[2]: 2, STEP: 1}
    assert all(line["seconds"].keys() == {EIGEN, YNNPACK} for line in lines[:-1])
    (section,) = convolution_cost.sections(tmp_path)
    assert section.title == "Convolutions of a step on a CPU: mlp, batch 4"
    assert "| all convolutions" in section.body and "PyTorch" not in section.body


def test_what_the_sums_say():
    def line(form, count, **seconds):
        device = {"kind": "A", "processors": 2, "platform": "cpu"}
        versions = {"jax": jax.__version__, "torch": "2"}
        run = dict(model="m", batch_size=8, repeats=3, versions=versions, device=device)
        return dict(form=form, convolution="c", count=count, seconds=seconds, **run)

    records = [
        line(PARTS[0], 2, **{EIGEN: 0.010, YNNPACK: 0.020, TORCH: 0.005}),
        line(PARTS[0], 1, **{EIGEN: 0.030, YNNPACK: 0.010, TORCH: 0.005}),
        line(PARTS[2], 5, **{EIGEN: 0.020, YNNPACK: 0.040, TORCH: 0.017}),
        line(STEP, 1, **{EIGEN: 0.300, TORCH: 0.200}),
    ]
    sums = convolution_cost.totals(records)
    assert sums[PARTS[0]]["the faster"] == pytest.approx(2 * 0.010 + 0.010)
    assert sums[PARTS[2]][YNNPACK] == pytest.approx(0.2)
    text = convolution_cost.describe(records)
    assert "| all convolutions       | 150.0      | 250.0        | 130.0      | 100.0   |" in text
    assert "takes 1.30 times as long for the convolutions as PyTorch's" in text
    assert "They alone are 0.65 of PyTorch's whole step" in text
    assert "left of it is 100.0 ms in PyTorch and 150.0 ms in XLA." in text


def test_an_accelerator_is_shown_another_command(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ConfigError, match="run benchmark loop --trace"):
        convolution_cost.measure("resnet8", 2, 1, torch=False)

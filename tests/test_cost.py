"""What a step of exact ASAM costs at ResNet-20 and batch 128, as XLA counts it."""

import jax
import pytest

from experiments.benchmarks import compared_steps
from experiments.training import cpu


@pytest.fixture(scope="module")
def compiled():
    """The whole training steps, compiled as training does and never run."""
    options = cpu.compiler_options(compared_steps.IMAGE_SHAPE)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        made = {
            step.name: step
            for step in compared_steps.exact_steps(
                compared_steps.problem("resnet20", 128, "float32")
            )
        }
        return {
            name: jax.jit(made[name].calls[0], donate_argnums=0)
            .lower(made[name].state)
            .compile(options)
            for name in ("SGD", "ASAM, element-wise")
        }


def ratio(compiled, cost):
    return cost(compiled["ASAM, element-wise"]) / cost(compiled["SGD"])


def test_two_gradients_and_nothing_else(compiled):
    """One gradient's FLOPs are 1 - 6e-5 of SGD's, so that what eps costs shows, too."""
    assert 1.99 < ratio(compiled, lambda program: program.cost_analysis()["flops"]) <= 2.01


def test_temporary_memory_is_that_of_one_gradient(compiled):
    """Neither eps nor T_w is kept beside it, which are half a percent each."""
    assert ratio(compiled, lambda program: program.memory_analysis().temp_size_in_bytes) <= 1.02

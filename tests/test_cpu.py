"""What makes the CPU faster: the options of XLA, and the restart with huge pages."""

import os
import platform
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training import cpu

CIFAR = (32, 32, 3)
CODE = """
import os, sys
from experiments.training import allocator
print("started", flush=True)
allocator.restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.utf8_mode)
"""


def test_no_convolution_goes_to_the_slow_library():
    """The kernel's gradient of a 3x3 convolution without padding, against loops.

    Smaller ones do not go to the slow library in the first place.
    """
    rng = np.random.default_rng(0)
    images, cotangent = rng.normal(size=(128, 32, 32, 16)), rng.normal(size=(128, 30, 30, 16))
    expected = np.zeros((3, 3, 16, 16))
    for row in range(3):
        for column in range(3):
            window = images[:, row : row + 30, column : column + 30]
            expected[row, column] = window.reshape(-1, 16).T @ cotangent.reshape(-1, 16)

    def gradient(images, cotangent):
        def convolve(kernel):
            numbers = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(
                images, kernel, (1, 1), "VALID", dimension_numbers=numbers
            )

        return jax.vjp(convolve, jnp.zeros((3, 3, 16, 16)))[1](cotangent)[0]

    arguments = (jnp.asarray(images, jnp.float32), jnp.asarray(cotangent, jnp.float32))
    jitted = jax.jit(gradient, compiler_options=cpu.compiler_options(CIFAR))
    compiled = jitted.lower(*arguments).compile()
    computations = (compiled.as_text() or "").split("\n\n")
    (entry,) = [part for part in computations if re.search(r"^ENTRY", part, re.MULTILINE)]
    assert " convolution(" in entry and "ynn_fusion" not in entry
    np.testing.assert_allclose(compiled(*arguments), expected, rtol=1e-4, atol=1e-2)


def test_small_images_and_an_xla_without_the_options_get_its_defaults(monkeypatch):
    assert cpu.compiler_options((8, 8, 1)) is None and cpu.compiler_options(CIFAR)
    for options in ("_LIBRARY", "_PRESET"):
        monkeypatch.setattr(cpu, options, {"xla_cpu_of_some_other_version": 1})
    assert cpu.compiler_options(CIFAR) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("tunables", "starts", "becomes"),
    [
        (None, 2, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", 2, "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", 1, "glibc.malloc.hugetlb=0"),  # the user's own stands
    ],
)
def test_restarts_once_with_the_same_arguments(tunables, starts, becomes):
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    command = [sys.executable, "-X", "utf8", "-c", CODE, "--rho", "0.5 or so"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said = [*["started"] * starts, f"{becomes} ['--rho', '0.5 or so'] 1"]
    assert done.stdout.splitlines() == said

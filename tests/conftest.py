"""Settings under which the whole suite runs: strict promotion and eight CPU devices."""

import importlib.metadata
import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAGS = {"--xla_force_host_platform_device_count": "8"}
if importlib.metadata.version("jax").startswith("0.10."):
    # Of XLA's two emitters of kernels the newer one, by default, is half of compilation. Later
    # versions have no other.
    _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
for _flag, _value in _FLAGS.items():
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}={_value}".strip()

# Most of the suite's time is LLVM's, on programs that run a few times or never, and what the tests
# assert does not depend on the last bits. Those that compare bits with processes that they start
# find the same programs there; XLA's own passes are the same in both.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

# What takes long to compile is compiled once for both workers and the processes that they start,
# anew in every run of the suite.
_COMPILED = "JAX_COMPILATION_CACHE_DIR"
if _COMPILED not in os.environ:
    _folder = tempfile.TemporaryDirectory(prefix="asam_jax_compiled_")
    os.environ[_COMPILED] = _folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Two workers share the files; the long ones go first, so that neither waits for the other at last.
LONG = ("resume", "notebooks", "docs", "processes", "theorem1", "cost", "examples", "figures")
LONG += ("recipes", "loop", "replay")

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="module")
def free_programs():
    """Those of a file are of no use to the next."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def strict_promotion():
    """Our own code neither promotes dtypes nor ranks by accident."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def flax_promotes(strict_promotion):
    """Flax and optax mix Python numbers and arrays of several dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def small_mlp():
    """One hidden layer, of 16 units, under the name of the network with two of 128."""
    from experiments.models.plain import Mlp
    from tests.runs import narrow

    with narrow(Mlp, 16):
        yield


def pytest_collection_modifyitems(items):
    """Sorts whole files; the order within a file stays."""
    items.sort(key=lambda item: item.path.stem not in {f"test_{name}" for name in LONG})

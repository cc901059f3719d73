"""What a step costs: in time here, and by compilers on machines that are not here."""

from experiments.benchmarks.compiled import Compiled
from experiments.benchmarks.leaves import Leaves
from experiments.benchmarks.loop import Loop
from experiments.benchmarks.sharpness import Sharpness
from experiments.benchmarks.step import Step

# By name, the options of `benchmark NAME`; its module runs it and makes its part of the report.
BENCHMARKS: dict[str, type] = {
    "step": Step,
    "loop": Loop,
    "leaves": Leaves,
    "sharpness": Sharpness,
    "compiled": Compiled,
}

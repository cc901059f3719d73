"""What a step costs."""

BENCHMARKS: dict[str, type] = {}

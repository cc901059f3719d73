"""Mean and sample standard deviation, as numbers and as text."""

import numpy as np


def mean_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def format_mean_std(values: list[float]) -> str:
    """'92.94 ± 0.31', or '92.94' for a single value."""
    mean, std = mean_std(values)
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"

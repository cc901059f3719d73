"""Lists of runs: the embedded default, and the paper's tables."""

from experiments import config, paper
from experiments.config import ConfigError, RunConfig

DIGITS_NOISE = 0.4
DIGITS_SEEDS = 5


def digits(seeds: int = DIGITS_SEEDS, label_noise: float = DIGITS_NOISE) -> list[RunConfig]:
    """The default experiment: noisy digits, three methods, the same epochs for each."""
    return [
        config.make("digits", method, label_noise=label_noise, seed=seed)
        for method in paper.METHODS
        for seed in range(seeds)
    ]


def table(
    dataset: str,
    models: list[str],
    *,
    methods: list[str] | None = None,
    noise: list[float] | None = None,
    seeds: int = 5,
    epochs: int | None = None,
    subset: int | None = None,
    dtype: str = "float32",
) -> list[RunConfig]:
    """Rows of a table, seed by seed, so that a stopped command has some of every row.

    `epochs` are SAM's and ASAM's; SGD gets twice as many, as in the paper, since each of its steps
    costs half.
    """
    methods = list(paper.METHODS) if methods is None else methods
    return [
        config.make(
            dataset,
            method,
            model=model,
            label_noise=level,
            seed=seed,
            epochs=None if epochs is None else epochs * (2 if method == "sgd" else 1),
            subset=subset,
            dtype=dtype,
        )
        for seed in range(seeds)
        for model in models
        for level in ([0.0] if noise is None else noise)
        for method in methods
    ]


def noise_levels(text: str | None) -> list[float]:
    """'0,0.4' as [0.0, 0.4]; without a text the paper's five levels."""
    if text is None:
        return list(paper.NOISE_LEVELS)
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"noise={text!r} must be probabilities with commas between, such as 0,0.4."
        ) from error

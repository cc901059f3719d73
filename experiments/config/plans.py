"""Lists of runs: the embedded default, and the paper's tables."""

from experiments.config import paper, run_config
from experiments.config.run_config import RunConfig

DIGITS_NOISE = 0.4
DIGITS_SEEDS = 5
# Around each method's default, a factor of about two apart.
RADII = {"sam": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0), "asam": (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)}


def digits(levels: list[float], seeds: int = DIGITS_SEEDS) -> list[RunConfig]:
    """Noisy digits, three methods, the same epochs for each."""
    return [
        run_config.make("digits", method, label_noise=level, seed=seed)
        for level in levels
        for method in paper.METHODS
        for seed in range(seeds)
    ]


def digits_sweep(levels: list[float], seeds: int = DIGITS_SEEDS) -> list[RunConfig]:
    """The same, and SAM and ASAM at other radii than their own."""
    swept = [
        run_config.make("digits", method, rho=rho, label_noise=level, seed=seed)
        for level in levels
        for method, radii in RADII.items()
        for rho in radii
        for seed in range(seeds)
    ]
    return list(dict.fromkeys([*digits(levels, seeds), *swept]))


def table(
    dataset: str,
    models: list[str],
    *,
    methods: list[str] | None,
    noise: list[float],
    seeds: int = 5,
    epochs: int | None = None,
    subset: int | None = None,
    dtype: str = "float32",
    cutout: int = 0,
    recipe: str = "paper",
) -> list[RunConfig]:
    """Rows of a table, seed by seed, so that a stopped command has some of every row.

    `epochs` are SAM's and ASAM's; SGD gets twice as many, as in the paper, since each of its steps
    costs half.
    """
    methods = list(paper.METHODS) if methods is None else methods
    return [
        run_config.make(
            dataset,
            method,
            model=model,
            label_noise=level,
            seed=seed,
            epochs=None if epochs is None else epochs * (2 if method == "sgd" else 1),
            subset=subset,
            dtype=dtype,
            cutout=cutout,
            recipe=recipe,
        )
        for seed in range(seeds)
        for model in models
        for level in noise
        for method in methods
    ]

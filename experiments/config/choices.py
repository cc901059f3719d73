"""The words that settings of a run can have."""

DATASETS = ("digits", "cifar10", "cifar100")
METHODS = ("sgd", "sam", "asam")
OPTIMIZERS = ("sgd", "adamw", "muon")
NORMALIZATIONS = ("elementwise", "filterwise")
ADAPTS = ("not_bias", "all")
DTYPES = ("float32", "bfloat16")
PRECISIONS = ("default", "high", "highest")
PERTURBS = ("all", "device")
RECIPES = ("paper", "script")
BATCH_NORMS = ("averaged", "device")
RADIUS_RULES = ("fixed", "rise", "relative", "linear", "departure")

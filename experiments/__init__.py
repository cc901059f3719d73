"""The paper's tables and figures, run from a checkout: `python -m experiments`."""

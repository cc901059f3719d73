"""What an optimizer's state remembers of each parameter, under the name of a field."""

import jax
import jax.numpy as jnp
import optax

from asam_jax._checks import PyTree
from asam_jax._containers import Name, readings

Fields = dict[Name, dict[Name, jax.Array]]


def _fields(params: dict[Name, jax.Array], state: dict[Name, jax.Array]) -> Fields:
    """The parts of a state that hold a leaf for each parameter, or for some, by their places.

    A place ends where a parameter's own name begins: a parameter named mu is no field mu.
    """
    fields: Fields = {}
    for path, leaf in state.items():
        cut = next((n for n in range(len(path) + 1) if path[n:] in params), None)
        if cut is not None and jnp.shape(leaf) == jnp.shape(params[path[cut:]]):
            fields.setdefault(path[:cut], {})[path[cut:]] = leaf
    return fields


def _merged(name: str, parts: list[dict[Name, jax.Array]]) -> dict[Name, jax.Array]:
    """All that is held under a field's name; optax.partition has one field for each label."""
    merged = {leaf: value for part in parts for leaf, value in part.items()}
    if len(merged) < sum(map(len, parts)):
        raise ValueError(
            f"opt_state holds {len(parts)} fields named {name!r}; put asam_jax.remember(decay) "
            "into the chain, which says what to climb along, and give it one momentum."
        )
    return merged


def remembered(params: PyTree, opt_state: optax.OptState, names: tuple[str, ...]) -> PyTree:
    """The field of the first of the names that there is, like params; 0 where it has no leaf."""
    for wanted in readings(params):
        for held in readings(opt_state):
            fields = _fields(wanted, held)
            kinds = {
                name: [f for place, f in fields.items() if place[-1:] == (name,)] for name in names
            }
            present = [name for name in names if kinds[name]]
            if not present:
                continue
            direction = _merged(present[0], kinds[present[0]])
            for other in present[1:]:
                if any(part.keys() - direction.keys() for part in kinds[other]):
                    raise ValueError(
                        f"opt_state holds {present[0]!r} for some parameters and {other!r} for "
                        "others, which differ in scale; put asam_jax.remember(decay) in front of "
                        "what divides the parameters, which says what to climb along."
                    )
            leaves = [
                direction[name].astype(jnp.result_type(leaf))
                if name in direction
                else jnp.zeros_like(leaf)
                for name, leaf in wanted.items()
            ]
            return jax.tree.structure(params).unflatten(leaves)
    raise ValueError(
        f"opt_state holds no momentum (none of {', '.join(names)}) of the parameters' shapes: give "
        "the optimizer one (optax.sgd(lr, momentum=0.9)), or put asam_jax.remember() into the "
        "chain to climb along the last gradient."
    )

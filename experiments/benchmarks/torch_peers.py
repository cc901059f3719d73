"""The SAM family of `pytorch_optimizer` on the network of `torch_step`, where it is installed."""

import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks.compared_steps import (
    LEARNING_RATE,
    MOMENTUM,
    RHO_ASAM,
    RHO_SAM,
    WEIGHT_DECAY,
)

LOOK_EVERY = 4
_BASE = dict(lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def library() -> Any:
    """The module, or None where it is not installed."""
    try:
        import pytorch_optimizer  # pyright: ignore[reportMissingImports] (optional)
    except ImportError:
        return None
    return pytorch_optimizer


def steps(machine, new_network: Callable[[], Any], images, labels) -> dict[str, Callable]:
    """For each peer a function that takes one step and returns its seconds; {} without them."""
    peers = library()
    if peers is None:
        return {}
    torch = machine.torch
    sgd, step = torch.optim.SGD, _Stepper(machine, images, labels)

    def around(make, closures: int = 1, makes: int = 1) -> Callable[[], float]:
        network = new_network()
        return step.of(network, make(network), closures, makes)

    class Radius:
        """GSAM asks a scheduler for its radius."""

        def step(self) -> float:
            return RHO_SAM

    def gsam(network):
        base = sgd(network.parameters(), **_BASE)
        made = peers.GSAM(network.parameters(), base, network, Radius())
        made.set_closure(torch.nn.functional.cross_entropy, images, labels)
        return made

    made = {
        "SAM": around(lambda n: peers.SAM(n.parameters(), sgd, rho=RHO_SAM, **_BASE)),
        "SAM, adaptive": around(
            lambda n: peers.SAM(n.parameters(), sgd, rho=RHO_ASAM, adaptive=True, **_BASE)
        ),
        "LookSAM": around(
            lambda n: peers.LookSAM(n.parameters(), sgd, rho=RHO_SAM, k=LOOK_EVERY, **_BASE),
            makes=LOOK_EVERY,
        ),
        "GSAM": around(gsam, closures=0),
        "WSAM": around(
            lambda n: peers.WSAM(n, n.parameters(), sgd, rho=RHO_SAM, **_BASE), closures=2
        ),
        "FriendlySAM": around(
            lambda n: peers.FriendlySAM(n.parameters(), sgd, rho=RHO_SAM, **_BASE)
        ),
    }
    return {f"pytorch_optimizer, {name}": one for name, one in made.items()}


class _Stepper:
    """Calls a peer as its documentation does."""

    def __init__(self, machine, images, labels):
        self.machine, self.images, self.labels = machine, images, labels
        self.loss = machine.torch.nn.functional.cross_entropy

    def of(self, network, optimizer, closures: int, makes: int) -> Callable[[], float]:
        """`closures`: 1, the first gradient is the caller's; 2, both are step's; 0, it has one."""

        def closure():
            optimizer.zero_grad()
            with self.machine.autocast():
                value = self.loss(network(self.images), self.labels)
            value.backward()
            return value

        def run() -> float:
            started = time.perf_counter()
            for _ in range(makes):
                if closures == 1:
                    closure()
                optimizer.step(closure) if closures else optimizer.step()
            self.machine.synchronize()
            return (time.perf_counter() - started) / makes

        return run

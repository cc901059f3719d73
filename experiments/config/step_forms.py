"""The cheap and the refined forms of a sharpness-aware step, by name, as data."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class StepForm:
    """What a form does differently from exact ASAM (or SAM)."""

    text: str
    every: int = 1  # climbs at every so many steps
    during: tuple[float, float] = (0.0, 1.0)  # and in this share of the training only
    reuses_direction: bool = False  # climbs as the last ascent did for as long as that is good
    part: int = 1  # climbs along the gradient of 1 / part of the batch
    steady: float | None = None  # decay of the average of the ascent's gradients
    remembers: float | None = None  # decay of the average of last gradients, alone or with a part
    contrast: float = 0.0  # how much of the momentum is taken away from the direction
    momentum: int = 0  # one gradient a step, along sign * the optimizer's momentum
    descent: str | None = None  # a rule of asam_jax by name, with the run's weight
    friendly: bool = False  # climbs along the batch's own part of the gradient

    @property
    def one_gradient(self) -> bool:
        """Whether a step takes no gradient at w."""
        return self.momentum != 0 or (self.remembers is not None and self.part == 1)

    @property
    def gradients(self) -> float:
        """Gradients of a whole batch that a step costs, at most."""
        if self.one_gradient:
            return 1.0
        start, end = self.during
        return 1.0 + (end - start) / (self.part * self.every)

    @property
    def step_varies(self) -> bool:
        """Whether there is no one step, or round of k steps, that the training consists of."""
        return self.reuses_direction or self.during != (0.0, 1.0)

    @property
    def weighs(self) -> str | None:
        """What the run's weight is for, where the form has one."""
        return "cosine" if self.reuses_direction else self.descent

    def climbs(self, step, total):
        """Whether a step, counted from 0, of so many takes a second gradient; may be traced."""
        if self.every == 1 and not self.step_varies:
            return True
        start, end = self.during
        return (step % self.every == 0) & (start * total <= step) & (step < end * total)


EXACT = "exact"
STEP_FORMS = {
    EXACT: StepForm("two gradients"),
    "every4": StepForm("climbs at every 4th step", every=4),
    "every16": StepForm("climbs at every 16th step", every=16),
    "early": StepForm("climbs in the first quarter", during=(0.0, 0.25)),
    "late": StepForm("climbs in the last quarter", during=(0.75, 1.0)),
    "early4": StepForm(
        "climbs at every 4th step of the first quarter", every=4, during=(0.0, 0.25)
    ),
    "late4": StepForm("climbs at every 4th step of the last quarter", every=4, during=(0.75, 1.0)),
    "stale": StepForm(
        "climbs along a stale direction, anew at a low cosine", reuses_direction=True
    ),
    "look4": StepForm("LookSAM, k = 4", every=4, descent="look"),
    "look16": StepForm("LookSAM, k = 16", every=16, descent="look"),
    "part4": StepForm("climbs along 1/4 of the batch", part=4),
    "part16": StepForm("climbs along 1/16 of the batch", part=16),
    "part16-steady": StepForm("climbs along 1/16 of the batch, averaged", part=16, steady=0.5),
    "part16-last": StepForm(
        "climbs along 1/16 of the batch plus the last gradient", part=16, remembers=0.0
    ),
    "part16-last-friendly": StepForm(
        "climbs along 1/16 of the batch plus the last gradient, less the momentum",
        part=16,
        remembers=0.0,
        contrast=0.1,
    ),
    "momentum": StepForm("climbs along the momentum", momentum=1),
    "momentum-ahead": StepForm("looks ahead along the momentum (momentum-SAM)", momentum=-1),
    "last": StepForm("climbs along the last gradient", remembers=0.0),
    "last-friendly": StepForm(
        "climbs along the last gradient less the momentum", remembers=0.0, contrast=0.1
    ),
    "remember": StepForm("climbs along an average of the last gradients", remembers=0.7),
    "gsam": StepForm("GSAM", descent="gsam"),
    "wsam": StepForm("WSAM", descent="wsam"),
    "friendly": StepForm("Friendly SAM", friendly=True),
}


def gradients_per_step(method: str, variant: str = EXACT) -> float:
    """Gradients of a whole batch that a step of a method costs."""
    return 1.0 if method == "sgd" else STEP_FORMS[variant].gradients

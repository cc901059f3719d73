"""Bytes of the text that every Python ships: `pydoc_data.topics`, English and code.

The text differs between versions of Python, so results name its fingerprint. Topics repeat each
other's paragraphs; each is kept once, so that what is held out was not trained on.
"""

import hashlib
from typing import NamedTuple

import numpy as np


class Text(NamedTuple):
    """uint8 bytes: the first 80%, the next 10% to choose by, and the last 10% to test on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fingerprint: str


def load() -> Text:
    """The topics in the order of their names, cut into three."""
    from pydoc_data.topics import topics

    paragraphs = [part for _, text in sorted(topics.items()) for part in text.split("\n\n")]
    once: dict[str, str] = {}
    for part in paragraphs:
        once.setdefault(" ".join(part.split()), part)
    text = np.frombuffer("\n\n".join(once.values()).encode(), np.uint8)
    train, validation, test = np.split(text, [len(text) * 8 // 10, len(text) * 9 // 10])
    return Text(train, validation, test, hashlib.sha256(text.tobytes()).hexdigest()[:16])

"""Bytes of the text that every Python ships: `pydoc_data.topics`, English and code.

The text differs between versions of Python, so results name its fingerprint.
"""

import hashlib

import numpy as np


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """uint8 bytes to train on, 10% to choose by, the last 10% to test on; the fingerprint.

    Topics repeat each other's paragraphs. Each is kept once, so that none is held out and trained
    on.
    """
    from pydoc_data.topics import topics

    once: dict[str, str] = {}
    for _, topic in sorted(topics.items()):
        for part in topic.split("\n\n"):
            once.setdefault(" ".join(part.split()), part)
    text = np.frombuffer("\n\n".join(once.values()).encode(), np.uint8)
    train, validation, test = np.split(text, [-2 * (len(text) // 10), -(len(text) // 10)])
    return train, validation, test, hashlib.sha256(text.tobytes()).hexdigest()[:16]

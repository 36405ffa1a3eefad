"""What there is to train on wherever gpuopt's benchmark is installed: nothing is made up or fetched."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Text:
    """Text as codes: int64 indices into the vocabulary, in reading order.

    Attributes:
        characters: The vocabulary: all characters that occur, sorted.
        train: The first nine tenths.
        held_out: The last tenth.
        source: Where it comes from.
        sha256: Of the text as UTF-8.
    """

    characters: str
    train: Array
    held_out: Array
    source: str
    sha256: str


@dataclass(frozen=True)
class Images:
    """Grey images, float32 in [0, 1] of shape (n, 1, height, width), and their int64 labels, of shape (n,).

    Attributes:
        train: To train on: four fifths, drawn once and for all.
        train_labels: What they show.
        held_out: The others.
        held_out_labels: What these show.
        source: Where they come from.
        sha256: Of all pixels and labels as shipped.
    """

    train: Array
    train_labels: Array
    held_out: Array
    held_out_labels: Array
    source: str
    sha256: str


@cache
def text() -> Text:
    """Python's own manual: the chapters of the language reference that ``help()`` shows, in alphabetical order.

    Other versions of Python ship other text, so losses compare only between runs with the same ``sha256``.
    """
    from pydoc_data.topics import topics

    manual = "\n\n".join(topics[name].strip() for name in sorted(topics))
    characters = "".join(sorted(set(manual)))
    code_of = {character: code for code, character in enumerate(characters)}
    codes = np.array([code_of[character] for character in manual], dtype=np.int64)
    split = len(codes) * 9 // 10
    return Text(
        characters,
        codes[:split],
        codes[split:],
        f"pydoc_data.topics of Python {platform.python_version()}",
        hashlib.sha256(manual.encode()).hexdigest(),
    )


@cache
def digits() -> Images:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships."""
    import sklearn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels, labels = np.ascontiguousarray(bunch.images), bunch.target.astype(np.int64)
    images = (pixels / 16).astype(np.float32)[:, np.newaxis]
    order = np.random.default_rng(0).permutation(len(images))
    held_out, train = order[::5], np.delete(order, np.s_[::5])
    return Images(
        images[train],
        labels[train],
        images[held_out],
        labels[held_out],
        f"load_digits of scikit-learn {sklearn.__version__}",
        hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest(),
    )

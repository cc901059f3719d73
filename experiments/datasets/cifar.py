"""CIFAR-10 and CIFAR-100 as arrays, through tensorflow_datasets but without TensorFlow.

A prepared copy is read by `tfds.data_source`. Where the folder holds none, a subclass of tfds' own
builder downloads the binary batches and prepares them: the original opens files and encodes images
with TensorFlow, this one does so with NumPy and Pillow. Decoding 60,000 images takes a while, so
the arrays are kept in the user's cache.
"""

import json
import os
import sys
import tarfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np

from experiments.config.errors import ConfigError
from experiments.datasets.source import Source

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def arrays(name: str, data_dir: Path | None = None) -> Arrays:
    """Training images and labels, test images and labels, in the order of the prepared files.

    Args:
      name: 'cifar10' or 'cifar100' (its 100 fine labels).
      data_dir: tfds' folder; None is TFDS_DATA_DIR, or tfds' own default.

    Returns:
      Images uint8 (count, 32, 32, 3), labels int32 (count,), twice.

    Raises:
      ConfigError: there is no prepared copy and none could be made.
    """
    # As tfds would find it, without the second that importing it takes.
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = _prepared(root / name) or prepare(name, root)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    seen = [(file, status.st_size, status.st_mtime_ns) for file, status in files]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "asam_jax"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written costs time and no result
        return _decode(name, folder, seen)
    decode: Any = joblib.Memory(cache, verbose=0).cache(_decode)
    return decode(name, folder, seen)


def _prepared(folder: Path) -> Path | None:
    """The newest version that is prepared, as array_record, under a data set's folder."""
    found = sorted(folder.glob("[0-9].[0-9].[0-9]/dataset_info.json"), reverse=True)
    for info in found:
        if json.loads(info.read_text()).get("fileFormat") == "array_record":
            return info.parent
    if found:
        raise ConfigError(
            f"the copy in {str(found[0].parent)!r} is not in the array_record format, and others "
            "need TensorFlow to be read; give another --data-dir, and one is prepared there."
        )
    return None


def prepare(name: str, root: Path) -> Path:
    """Downloads the binary batches, unless they lie there; returns their folder as array_record.

    Raises:
      ConfigError: no network, a damaged download, or a folder that cannot be written.
    """
    import tensorflow_datasets as tfds

    print(f"Preparing {name} in {root} (once).", file=sys.stderr)
    builder_class = _builder_class(name)
    (url,) = builder_class.url_infos
    try:
        builder = builder_class(data_dir=root, file_format="array_record")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
        return Path(builder.data_dir)
    except Exception as error:  # tfds raises requests', its own, and the file system's errors
        archive = root / "downloads" / "manual" / url.rsplit("/", 1)[-1]
        raise ConfigError(
            f"{name} is not prepared under {str(root)!r}, and preparing it there failed "
            f"({type(error).__name__}: {error}). Name the folder of a prepared copy with "
            f"--data-dir or TFDS_DATA_DIR; or, where the network is missing, download {url} "
            f"elsewhere, put it at {str(archive)!r} and run the same command again."
        ) from error


def _builder_class(name: str) -> Any:
    """The builder of that name that tfds has, reading with NumPy."""
    from PIL import Image
    from tensorflow_datasets.image_classification import cifar

    original = {"cifar10": cifar.Cifar10, "cifar100": cifar.Cifar100}[name]

    class Builder(original, skip_registration=True):  # pyright: ignore
        url_infos = original.url_infos  # the archive's size and digest

        def _split_generators(self, dl_manager):
            folder = Path(self.data_dir).parents[1] / "downloads" / "extracted" / self.name

            def untar(url: str) -> Path:
                with tarfile.open(dl_manager.download(url)) as archive:
                    archive.extractall(folder, filter="data")
                return folder

            return super()._split_generators(SimpleNamespace(download_and_extract=untar))

        def _generate_examples(self, split_prefix, filepaths):
            keys = self._cifar_info.label_keys
            # A record is one byte for each label (CIFAR-10 has one, CIFAR-100 the coarse and the
            # fine one), then 1,024 bytes of red, green and blue each, row by row.
            batches = [np.fromfile(path, np.uint8) for path in filepaths]
            records = np.concatenate(batches).reshape(-1, len(keys) + 3 * 32 * 32)
            images = records[:, len(keys) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy()
            labels = records[:, : len(keys)].tolist()
            for index, (numbers, image) in enumerate(zip(labels, images, strict=True)):
                record = dict(zip(keys, numbers, strict=True))
                record |= {"id": f"{split_prefix}{index:05d}", "image": Image.fromarray(image)}
                yield index, record

    Builder.name = original.name
    return Builder


def _decode(name: str, folder: Path, seen: list[tuple[str, int, int]]) -> Arrays:
    """Every image of both splits, in the files' order; anew where other files are seen."""
    import tensorflow_datasets as tfds

    del seen

    print(f"Decoding {name} from {folder} (once).", file=sys.stderr)
    result = []
    for split in ("train", "test"):
        source = tfds.data_source(
            f"{name}:{folder.name}", split=split, data_dir=folder.parent.parent, download=False
        )
        images = np.empty((len(source), 32, 32, 3), np.uint8)
        labels = np.empty((len(source),), np.int32)
        for index, example in enumerate(source):
            images[index], labels[index] = example["image"], example["label"]
        result += [images, labels]
    return tuple(result)


# The paper's values of section 6.2; its SGD cites Nesterov, which serves all three methods. Label
# smoothing, padded crop and flip; docs/reproducing.md says why no cutout.
DEFAULTS = dict(model="resnet20", label_smoothing=0.1, augment=True, nesterov=True)
SOURCES = {
    "cifar10": Source(
        num_classes=10,
        arrays=partial(arrays, "cifar10"),
        rho={"sam": 0.05, "asam": 0.5},
        defaults=DEFAULTS,
    ),
    "cifar100": Source(
        num_classes=100,
        arrays=partial(arrays, "cifar100"),
        rho={"sam": 0.1, "asam": 1.0},
        defaults=DEFAULTS,
    ),
}

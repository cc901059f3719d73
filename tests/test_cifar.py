"""CIFAR from the binary batches and from a prepared copy, the cache, and what failing says."""

import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import requests

from experiments.config.errors import ConfigError
from experiments.datasets import arrays, cifar
from tests.cli import needs_cifar10

IMAGES = 4  # in each file
BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)]
NAMES = {"coarse_label_names.txt": 20, "fine_label_names.txt": 100}
LAYOUTS = {
    "cifar10": ("cifar-10-batches-bin", BATCHES, ["test_batch.bin"], {"batches.meta.txt": 10}),
    "cifar100": ("cifar-100-binary", ["train.bin"], ["test.bin"], NAMES),
}


def write_archive(path, name):
    """An archive in the layout of the real one, and the images and labels in it, by split."""
    folder, train, test, names = LAYOUTS[name]
    rng = np.random.default_rng(0)
    truth = []
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as tar:

        def add(file, content):
            info = tarfile.TarInfo(f"{folder}/{file}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for files in (train, test):
            images = rng.integers(256, size=(IMAGES * len(files), 32, 32, 3), dtype=np.uint8)
            counts = list(names.values())  # CIFAR-100 has the coarse label first
            labels = np.stack([rng.integers(count, size=len(images)) for count in counts], axis=1)
            pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # channel by channel
            records = np.column_stack([labels, pixels]).astype(np.uint8)
            for file, part in zip(files, np.split(records, len(files)), strict=True):
                add(file, part.tobytes())
            truth.append((images, labels[:, -1]))
        for file, count in names.items():
            add(file, "\n".join(f"class{i}" for i in range(count)).encode())
    return truth


def hand_in(folder, name, monkeypatch):
    """Puts an archive where tfds looks for one, and makes its digest the right one."""
    from tensorflow_datasets.core.download import checksums

    builder = cifar._builder_class(name)
    (url,) = builder.url_infos
    archive = folder / "downloads" / "manual" / url.rsplit("/", 1)[-1]
    truth = write_archive(archive, name)
    builder.url_infos = {url: checksums.compute_url_info(archive)}
    monkeypatch.setattr(cifar, "_builder_class", lambda name: builder)
    return truth


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """tfds' folder, empty, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "tfds"


def by_content(images, labels):
    return sorted(zip((image.tobytes() for image in images), labels.tolist(), strict=True))


@pytest.mark.parametrize("name", list(LAYOUTS))
@pytest.mark.filterwarnings("ignore")  # of tfds and what it loads
def test_an_archive_is_prepared_without_tensorflow(folders, monkeypatch, name):
    (train, train_labels), (test, test_labels) = hand_in(folders, name, monkeypatch)
    loaded = arrays.load(name, folders)
    assert loaded.num_classes == {"cifar10": 10, "cifar100": 100}[name]
    assert by_content(loaded.train_images, loaded.train_labels) == by_content(train, train_labels)
    assert by_content(loaded.test_images, loaded.test_labels) == by_content(test, test_labels)
    assert loaded.train_images.dtype == np.uint8 and loaded.train_labels.dtype == np.int32
    assert "tensorflow" not in sys.modules

    # A second start reads the cache: the same bytes, in the same order.
    monkeypatch.setattr("tensorflow_datasets.data_source", None)
    again = arrays.load(name, folders)
    assert again.fingerprint == loaded.fingerprint
    np.testing.assert_array_equal(again.train_images, loaded.train_images)


@pytest.mark.filterwarnings("ignore")
def test_without_a_network_the_error_says_what_to_do(folders, monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests.Session, "send", refuse)
    with pytest.raises(ConfigError, match="no route to host") as error:
        cifar.arrays("cifar10", folders)
    text = str(error.value)
    assert "--data-dir or TFDS_DATA_DIR" in text
    assert str(folders / "downloads" / "manual" / "cifar-10-binary.tar.gz") in text


def test_a_copy_in_another_format_is_refused(folders):
    version = folders / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    with pytest.raises(ConfigError, match="not in the array_record format"):
        cifar.arrays("cifar10", folders)


@needs_cifar10
@pytest.mark.filterwarnings("ignore")
def test_the_real_images_and_a_second_start_without_tensorflow_datasets():
    code = (
        "import sys; from experiments.datasets import arrays; arrays.load('cifar10');"
        "print('tensorflow_datasets' in sys.modules)"
    )
    loaded = arrays.load("cifar10")  # which may have to decode
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    assert loaded.train_images.shape == (50_000, 32, 32, 3)
    assert loaded.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(loaded.train_labels).tolist() == [5000] * 10
    assert np.bincount(loaded.test_labels).tolist() == [1000] * 10
    # The channel means and deviations that the literature gives for CIFAR-10.
    np.testing.assert_allclose(loaded.mean, (0.4914, 0.4822, 0.4465), atol=2e-3)
    np.testing.assert_allclose(loaded.std, (0.2470, 0.2435, 0.2616), atol=2e-3)

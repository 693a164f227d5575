"""The sample that comes with the package, and the full sets from files of any place and form."""

import dataclasses
import gzip
import hashlib
import importlib
import socket
from importlib import resources

import numpy as np
import pytest

from tinycompress.data import (
    ChecksumError,
    DownloadError,
    IdxError,
    fashion_mnist,
    from_idx,
    locate,
    mnist,
    write_idx,
)
from tinycompress.data.idx import pack_idx
from tinycompress.data.sources import FASHION_MNIST, MNIST, IdxFile

module = importlib.import_module("tinycompress.data.mnist")  # the function has the same name

SAMPLE_SHA256 = {  # of the IDX bytes: the first 10,000 of the training files, the whole test files
    "train images": "2889698e6bc3614913e76901316712919d1998fc2b44512451bfe65bc1e668b1",
    "train labels": "651e38e2ac0632f5113ec18f1df4977117f953197819034009971a6675a0df78",
    "test images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


# ------------------------------------------------------------------------------------ the sample


@pytest.fixture(scope="module")
def sample():
    return mnist()


def test_the_sample_is_the_beginning_of_the_published_files(sample):
    found = {}
    for name, ds in zip(("train", "test"), sample, strict=True):
        pixels = np.rint(ds.images * 255).astype(np.uint8)[:, 0]
        found[f"{name} images"] = hashlib.sha256(pack_idx(pixels)).hexdigest()
        labels = ds.labels.astype(np.uint8)
        found[f"{name} labels"] = hashlib.sha256(pack_idx(labels)).hexdigest()
        np.testing.assert_array_equal(ds.images[:, 0], pixels / np.float32(255))
    assert found == SAMPLE_SHA256
    assert SAMPLE_SHA256["test images"] == MNIST.files[2].sha256
    assert SAMPLE_SHA256["test labels"] == MNIST.files[3].sha256


def test_the_sample_has_the_form_that_everything_relies_on(sample):
    for ds in sample:
        assert ds.images.shape == (10_000, 1, 28, 28)
        assert (ds.images.dtype, ds.labels.dtype) == (np.float32, np.int64)
        assert (ds.images.min(), ds.images.max()) == (0, 1)
        assert ds.images.flags.c_contiguous
        assert ds.classes == 10
        assert np.bincount(ds.labels).min() > 800
    assert [ds.name for ds in sample] == ["mnist-sample-train", "mnist-test"]


def test_the_sample_stays_small_and_says_whose_it_is():
    folder = resources.files("tinycompress.data")
    assert len((folder / module.SAMPLE).read_bytes()) < 4_000_000
    for text in (module.__doc__, (folder / "README.md").read_text()):
        text = " ".join(text.split())
        assert all(name in text for name in ("LeCun", "Cortes", "Burges"))
        assert "Attribution-ShareAlike 3.0" in text


def test_a_damaged_sample_is_refused(tmp_path, monkeypatch):
    whole = (resources.files("tinycompress.data") / module.SAMPLE).read_bytes()
    monkeypatch.setattr(module.resources, "files", lambda _: tmp_path)
    middle = len(whole) // 2
    damaged = [whole[:middle], whole[:middle] + b"xx" + whole[middle + 2 :], whole[:-40]]
    for data in [*damaged, whole[:-20] + b"x" + whole[-19:]]:
        (tmp_path / module.SAMPLE).write_bytes(data)
        with pytest.raises(IdxError, match="mnist_sample"):
            mnist()


def test_a_data_dir_is_not_silently_ignored(tmp_path):
    with pytest.raises(ValueError, match=r"mnist\(full=True, data_dir=…\)"):
        mnist(data_dir=tmp_path)


# ----------------------------------------------------------- full sets: small ones of the same form


def small_arrays(seed):
    generator = np.random.default_rng(seed)
    shapes = [(30, 5, 4), (30,), (10, 5, 4), (10,)]
    highs = [256, 10, 256, 10]
    return [generator.integers(0, h, s, np.uint8) for h, s in zip(highs, shapes, strict=True)]


def packed(array):
    return gzip.compress(pack_idx(array), mtime=0)


def small_source(source, arrays, mirrors=()):
    """``source`` with other files: the checksums it has, of the kind that it has."""
    files = []
    for file, array in zip(source.files, arrays, strict=True):
        sha256 = hashlib.sha256(pack_idx(array)).hexdigest() if file.sha256 else None
        md5 = hashlib.md5(packed(array)).hexdigest() if file.packed_md5 else None
        files.append(IdxFile(file.name, array.shape, sha256, md5))
    return dataclasses.replace(source, files=tuple(files), mirrors=tuple(mirrors))


@pytest.fixture
def digits():
    return small_arrays(1)


@pytest.fixture
def clothes():
    return small_arrays(2)


@pytest.fixture
def small(monkeypatch, digits, clothes, mirror, other_mirror):
    """Both sources made small, and served by two local mirrors (that have nothing yet)."""
    sources = importlib.import_module("tinycompress.data.sources")
    for name, source, arrays in (
        ("MNIST", MNIST, digits),
        ("FASHION_MNIST", FASHION_MNIST, clothes),
    ):
        urls = [mirror.url + source.name, other_mirror.url + source.name]
        made = small_source(source, arrays, urls)
        monkeypatch.setattr(module, name, made)
        monkeypatch.setitem(sources.SOURCES, source.name, made)


def serve(mirror, source, arrays):
    for file, array in zip(source.files, arrays, strict=True):
        mirror.answers[f"/{source.name}/{file.name}.gz"] = packed(array)


def put(folder, arrays, rename=lambda name: name + ".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(MNIST.files, arrays, strict=True):
        write_idx(folder / rename(file.name), array)


def assert_holds(datasets, arrays):
    for ds, pixels, labels in zip(datasets, arrays[::2], arrays[1::2], strict=True):
        np.testing.assert_array_equal(ds.images[:, 0], pixels / np.float32(255))
        np.testing.assert_array_equal(ds.labels, labels)
        assert ds.classes == 10


NAMES = {
    "packed": lambda name: name + ".gz",
    "plain": lambda name: name,
    "dotted": lambda name: name.replace("-idx", ".idx"),
    "dotted and packed": lambda name: name.replace("-idx", ".idx") + ".gz",
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_files_in_data_dir_are_found_under_any_of_their_names(
    small, tmp_path, digits, names, below
):
    put(tmp_path / "d" / below, digits, NAMES[names])
    datasets = mnist(full=True, data_dir=tmp_path / "d", download=False)
    assert_holds(datasets, digits)
    assert [ds.name for ds in datasets] == ["mnist-train", "mnist-test"]
    assert_holds(mnist(full=True, data_dir=str(tmp_path / "d"), download=False), digits)


def test_the_search_goes_from_data_dir_to_the_variable_to_the_cache(
    small, tmp_path, digits, monkeypatch
):
    monkeypatch.setenv("TINYCOMPRESS_DATA", str(tmp_path / "variable"))
    folders = {
        "cache": tmp_path / "cache" / "tinycompress" / "mnist",
        "variable": tmp_path / "variable" / "mnist",
        "data_dir": tmp_path / "given",
    }
    for folder in folders.values():  # each new one comes before all that were there
        put(folder, digits)
        assert_holds(mnist(full=True, data_dir=tmp_path / "given", download=False), digits)
        status = locate("mnist", tmp_path / "given")
        assert status.complete
        assert {file.path.parent for file in status.files} == {folder}
        assert folder in status.searched


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_an_unusable_cache_variable_is_ignored(monkeypatch, tmp_path, value):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("LOCALAPPDATA", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert locate("mnist").searched[0] == tmp_path / ".cache" / "tinycompress" / "mnist"


def test_a_data_dir_that_is_a_file_is_named(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"data_dir: .*f is not a folder"):
        mnist(full=True, data_dir=tmp_path / "f")


def test_missing_files_are_named_with_the_place_for_them(small, tmp_path, digits, mirror):
    put(tmp_path, digits)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        mnist(full=True, data_dir=tmp_path, download=False)
    text = str(caught.value)
    assert "MNIST: these files are missing:\n  t10k-images-idx3-ubyte.gz\nThey" in text
    assert f"packed or not, into {tmp_path / 'mnist'}" in text
    assert "data_dir=" in text
    assert "TINYCOMPRESS_DATA" in text
    assert "mnist()" in text
    assert mirror.asked == []


DAMAGE = {
    "truncated": lambda data: data[:-30],
    "wrong numbers": lambda data: gzip.compress(gzip.decompress(data)[:-1] + b"\xfe"),
    "wrong shape": lambda data: packed(np.zeros((10, 4, 4), np.uint8)),
    "not idx": lambda data: b"<html>not found</html>",
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_named_and_not_used(small, tmp_path, digits, how):
    put(tmp_path, digits)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.raises((IdxError, ChecksumError), match=r"t10k-images-idx3-ubyte\.gz: "):
        mnist(full=True, data_dir=tmp_path)
    status = locate("mnist", tmp_path)
    assert not status.complete
    assert [bool(file.checked) for file in status.files] == [True, True, False, True]
    assert "t10k-images" in status.files[2].problem


# ------------------------------------------------------------------------------------ downloading


def test_what_is_missing_is_downloaded_once(small, tmp_path, digits, mirror, capfd):
    serve(mirror, MNIST, digits)
    assert_holds(mnist(full=True), digits)
    folder = tmp_path / "cache" / "tinycompress" / "mnist"
    assert sorted(p.name for p in folder.iterdir()) == sorted(f.name + ".gz" for f in MNIST.files)
    assert_holds(mnist(full=True), digits)
    assert len(mirror.asked) == 4
    assert capfd.readouterr() == ("", "")


def test_only_what_is_missing_is_downloaded(small, tmp_path, digits, mirror):
    serve(mirror, MNIST, digits)
    put(tmp_path / "d", digits)
    (tmp_path / "d" / "train-labels-idx1-ubyte.gz").unlink()
    assert_holds(mnist(full=True, data_dir=tmp_path / "d"), digits)
    assert mirror.asked == ["/mnist/train-labels-idx1-ubyte.gz"]
    assert (tmp_path / "d" / "mnist" / "train-labels-idx1-ubyte.gz").is_file()


def test_another_packing_of_the_same_file_is_the_same_file(small, digits, mirror):
    serve(mirror, MNIST, digits)
    for path, array in zip(list(mirror.answers), digits, strict=True):
        mirror.answers[path] = gzip.compress(pack_idx(array), compresslevel=1)
    assert_holds(mnist(full=True), digits)


def test_a_file_with_another_checksum_sends_to_the_next_mirror(
    small, digits, clothes, mirror, other_mirror
):
    serve(mirror, MNIST, clothes)
    serve(other_mirror, MNIST, digits)
    assert_holds(mnist(full=True), digits)
    assert len(mirror.asked) == len(other_mirror.asked) == 4


def test_without_any_good_mirror_the_error_says_what_to_do(
    small, tmp_path, clothes, mirror, sleeps
):
    serve(mirror, MNIST, clothes)
    with pytest.raises(DownloadError) as caught:
        mnist(full=True)
    text = str(caught.value)
    assert "SHA-256 of the unpacked file is" in text
    assert "HTTP 404" in text
    assert all(f"\n  {file.name}.gz" in text for file in MNIST.files)
    assert str(tmp_path / "cache" / "tinycompress" / "mnist") in text
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_without_a_network_the_error_says_which_files_to_put_where(
    small, tmp_path, monkeypatch, sleeps
):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError) as caught:
        mnist(full=True, data_dir=tmp_path / "d")
    text = str(caught.value)
    assert "no network?" in text
    assert all(f"\n  {file.name}.gz" in text for file in MNIST.files)
    assert f"into {tmp_path / 'd' / 'mnist'}, or name the folder" in text
    assert sleeps == []


# ----------------------------------------------------------------------------------- Fashion-MNIST


def test_fashion_mnist_is_downloaded_and_checked_by_its_md5(
    small, tmp_path, clothes, digits, mirror, other_mirror
):
    serve(mirror, FASHION_MNIST, digits)
    serve(other_mirror, FASHION_MNIST, clothes)
    datasets = fashion_mnist()
    assert_holds(datasets, clothes)
    assert [ds.name for ds in datasets] == ["fashion-mnist-train", "fashion-mnist-test"]
    status = locate("fashion-mnist")
    assert status.complete
    assert {file.checked for file in status.files} == {"md5"}
    assert not locate("mnist").complete  # the names are the same, the folders are not


def test_fashion_mnist_that_comes_unpacked_cannot_be_checked(small, clothes, mirror, sleeps):
    serve(mirror, FASHION_MNIST, clothes)
    for path in mirror.answers:
        mirror.answers[path] = gzip.decompress(mirror.answers[path])
    with pytest.raises(DownloadError, match="only the packed file can be checked"):
        fashion_mnist()


def test_fashion_mnist_of_your_own_may_be_unpacked(small, tmp_path, clothes):
    put(tmp_path, clothes, NAMES["plain"])
    assert_holds(fashion_mnist(tmp_path, download=False), clothes)
    assert {f.checked for f in locate("fashion-mnist", tmp_path).files} == {"shape only"}


@pytest.mark.parametrize("names", ["plain", "packed"])
def test_mnist_does_not_pass_for_fashion_mnist(small, tmp_path, digits, names):
    put(tmp_path, digits, NAMES[names])
    with pytest.raises(ChecksumError, match="train-images"):
        fashion_mnist(tmp_path, download=False)


def test_mnist_beside_it_does_not_hinder_fashion_mnist(small, tmp_path, digits, monkeypatch):
    put(tmp_path / "data", digits)
    monkeypatch.setenv("TINYCOMPRESS_DATA", str(tmp_path / "data"))
    assert_holds(mnist(full=True, download=False), digits)
    with pytest.raises(FileNotFoundError, match="Fashion-MNIST: these files are missing"):
        fashion_mnist(download=False)


# ----------------------------------------------------------------------------------------- the rest


def test_data_of_ones_own_is_read_from_idx_files(tmp_path, digits):
    write_idx(tmp_path / "images", digits[0])
    write_idx(tmp_path / "labels.gz", digits[1])
    ds = from_idx(tmp_path / "images", tmp_path / "labels.gz", classes=10)
    np.testing.assert_array_equal(ds.images[:, 0], digits[0] / np.float32(255))
    np.testing.assert_array_equal(ds.labels, digits[1])
    with pytest.raises(IdxError, match=r"labels\.gz: holds uint8 of shape \(30,\), expected"):
        from_idx(tmp_path / "labels.gz", tmp_path / "images")


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="no data set 'cifar'; there is mnist and fashion-mnist"):
        locate("cifar")

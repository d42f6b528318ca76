"""store import: what is no [N, D] with a label a row is refused in one sentence, and a hostile file runs and fills nothing."""

import io
import os
import pickle
import resource
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sslk.cli import main
from sslk.features import ImportSettings, StoreError, store_import
from sslk.features.importing.objects import read_pickled

X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (X[0], r"must be \[N, D\], got \[4\] in features: one row per sample"),
        (np.zeros((5, 3, 4)), r"got \[5, 3, 4\] in features: choose a token or the mean over tokens first"),
        (np.zeros((5, 3, 4, 4)), r"got \[5, 3, 4, 4\] in features: pool the feature map first"),
        (np.zeros((0, 4)), r"must not be empty, got \[0, 4\]"),
        (np.zeros((4, 0)), r"must not be empty, got \[4, 0\]"),
        (X.astype(complex), "must be real numbers, got complex128"),
        (np.array([["a", "b"]]), "must be real numbers, got str"),
        (np.array([[1e39, 0]]), "do not fit float32"),
        (np.array([[2**24 + 1, 0]]), "whole numbers up to 16777217, which float32 cannot tell apart"),
        ({"x": X, "feats": X}, r"features could be x or feats of x \[20, 4\], feats \[20, 4\]: name one"),
        ({"a": X, "b": X}, r"features could be none or several of a \[20, 4\], b \[20, 4\]: name one"),
        ([X, X[:, :3]], r"must agree, got \[20, 4\] in features\[0\] and \[20, 3\] in features\[1\]"),
    ],
)
def test_features(tmp_path, features, message):
    with pytest.raises(ValueError, match=message):
        store_import(features, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("features", [None, {}, {"epoch": 3}, [object()], np.ma.masked_array(X), torch.eye(3).to_sparse()])
def test_no_arrays(tmp_path, features):
    with pytest.raises(TypeError, match="must"):
        store_import(features, tmp_path / "s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0] * 19}, "labels must be as many as the 20 rows of features, got 19"),
        ({"names": ["a"] * 21}, "names must be as many as the 20 rows of features, got 21"),
        ({"labels": [0.5] * 20}, "numbers of classes, from 0 on, or -1 for unlabelled, got 0.5"),
        ({"labels": [-100] * 20}, "or -1 for unlabelled, got -100"),
        ({"labels": [2**40] * 20}, "below 1000000, got 1099511627776"),
        ({"labels": np.eye(20)}, r"must be one value a row, \[N\], got \[20, 20\]"),
        ({"labels": ["cat"] * 20, "classes": ["dog"]}, "labels hold 'cat', which classes lack"),
        ({"labels": [3] * 20, "classes": ["dog", "cat"]}, "labels go up to 3, and classes names 2"),
        ({"labels": [0] * 20, "classes": ["dog", "dog"]}, "unique"),
        ({"labels": "nowhere"}, "labels must be a file that ends in"),
        ({"settings": ImportSettings(raw="float32")}, None),
    ],
)
def test_labels_and_names(tmp_path, options, message):
    if message is None:  # raw says nothing about an array in memory
        store_import(X, tmp_path / "s", **options)
        return
    with pytest.raises(ValueError, match=message):
        store_import(X, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_keys_and_folders(tmp_path):
    np.savez(tmp_path / "x.npz", a=X, labels=np.arange(20), targets=np.arange(20))
    for options, message in (
        ({}, "labels could be labels or targets"),
        ({"labels": "label"}, r"one of the keys a \[20, 4\], labels \[20\], targets \[20\], got 'label'"),
        ({"labels": f"{tmp_path}/x.npz:z"}, "there is no 'z' in"),
        ({"labels": "labels", "settings": ImportSettings(features_key="b")}, "there is no 'b' in"),
        ({"labels": "labels", "names": "no-*.txt"}, "no file matches no-"),
    ):
        with pytest.raises(ValueError, match=message):
            store_import(tmp_path / "x.npz", tmp_path / "s", **options)
    store = store_import(X, tmp_path / "s")
    with pytest.raises(ValueError, match="must not be a feature store"):
        store_import(store.path, tmp_path / "t")
    with pytest.raises(ValueError, match=r"a folder with one file features\.\*"):
        store_import(tmp_path, tmp_path / "t")
    with pytest.raises(StoreError, match="neither empty nor a feature store"):
        store_import(X, tmp_path)
    with pytest.raises(FileNotFoundError):
        store_import(tmp_path / "gone.npy", tmp_path / "t")
    assert main(["store", "import", str(tmp_path / "gone.npy"), "--out", str(tmp_path / "t"), "--quiet"]) == 1


class Marks:
    """Leaves a folder where a pickle that holds it is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def archive(path, pickled, **members):
    """A file as torch.save writes it, of any pickle and storages."""
    with zipfile.ZipFile(path, "w", members.pop("compression", zipfile.ZIP_STORED)) as file:
        for name, data in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", **members}.items():
            file.writestr(f"a/{name}", data)


def npy(array, shape=None, fortran=False):
    stream = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": fortran, "shape": shape or array.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


def hostile(tmp_path):
    """File -> what its refusal says; every one would run something, or fill memory or the disk."""
    executed = str(tmp_path / "executed")
    np.save(tmp_path / "object.npy", np.array([Marks(executed)], object), allow_pickle=True)
    np.savez(tmp_path / "object.npz", features=np.array([Marks(executed)], object))
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Marks(executed)))
    (tmp_path / "bare.pth").write_bytes(b"PK\3\4" + pickle.dumps(Marks(executed)))
    archive(tmp_path / "bytearray.pt", b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.")
    archive(tmp_path / "stack.pt", pickle.dumps(Marks(executed), 4))
    torch.save({"features": torch.zeros(1).expand(10**9, 10**4)}, tmp_path / "expanded.pt")
    archive(tmp_path / "deflated.pt", b"\x80\x02}.", **{"data/0": b"\0" * 10**7}, compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "huge.npy").write_bytes(npy(X, (10**12, 10**4)))
    (tmp_path / "negative.npy").write_bytes(npy(X, (-20, -4)))
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as file:
        file.writestr("features.npy", npy(X, (10**12, 10**4)))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("features.npy", npy(X, (2**40, 4)))
        file.filelist[0].file_size = 2**44 + 128
    header = b'{"features":{"dtype":"F32","shape":[1000000000000,10000],"data_offsets":[0,16]}}'
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    (tmp_path / "long.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    return {
        "object.npy": "Python objects",
        "object.npz": "Python objects",
        "bare.pt": "a pickle that torch.save did not write",
        "bare.pth": "not a zip file",
        "bytearray.pt": "made of no bytes",
        "stack.pt": "an object of .*mkdir",
        "expanded.pt": "repeats the",
        "deflated.pt": "keys \\(none\\) hold none",
        "huge.npy": "header says",
        "negative.npy": "header says",
        "huge.npz": "header says",
        "bomb.npz": "cannot be read",
        "huge.safetensors": "cannot be read as safetensors",
        "long.safetensors": "cannot be read as safetensors",
        "x.parquet": "cannot be read as Parquet",
        "folder.npy": "or a folder with one file",
        "pipe.csv": "regular file",
    }


def test_hostile_files_run_nothing_and_fill_nothing(tmp_path):
    files = hostile(tmp_path)
    usual = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), usual[1]))
    try:
        for name, said in files.items():
            if name.endswith("parquet"):
                pytest.importorskip("pyarrow")
            with pytest.raises(ValueError, match=said) as caught:
                store_import(tmp_path / name, tmp_path / "out")
            assert name in str(caught.value) and "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, usual)
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.safetensors", "x.csv"])
def test_truncated_files_are_refused_by_name(tmp_path, name):
    path = tmp_path / name
    {
        ".npy": lambda: np.save(path, X),
        ".npz": lambda: np.savez_compressed(path, x=X),
        ".csv": lambda: np.savetxt(path, X),
        ".pt": lambda: torch.save(torch.tensor(X), path),
        ".safetensors": lambda: save_file({"x": torch.tensor(X)}, path),
    }[path.suffix]()
    if name == "x.csv":
        path.write_text("1,2\n3\n")
    else:
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"x\."):
        store_import(path, tmp_path / "s")


@pytest.mark.parametrize("old", [False, True])
def test_what_stands_beside_the_features_is_not_run(tmp_path, old):
    executed = tmp_path / "executed"
    content = {"features": X, "labels": torch.arange(len(X)), "more": Marks(str(executed))}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
    store = store_import(tmp_path / "a.pt", tmp_path / "out")
    np.testing.assert_array_equal(store.load().features.numpy(), X)  # an array of NumPy in a file of torch
    assert not executed.exists()


def test_tensors_of_all_kinds_are_read(tmp_path):
    """What torch.save writes of tensors in containers."""
    content = {
        "features": torch.nn.Parameter(torch.eye(3)),
        "half": [torch.ones(2).half(), torch.ones(2).bfloat16()],
        "ints": (torch.arange(3), torch.ones(2, dtype=torch.uint8), torch.tensor([True])),
        "shape": torch.Size([1, 2]),
        "state": torch.nn.Linear(2, 2).state_dict(),
        "dtype": torch.float16,
    }
    torch.save(content, tmp_path / "a.pt")
    assert torch.equal(read_pickled(tmp_path / "a.pt", "features")["state"]["weight"], content["state"]["weight"])

"""store import: every format gives the numbers that NumPy has, under one identity, with labels, classes and names."""

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sslk.features import (
    FeatureStore,
    ImportSettings,
    StoreError,
    store_export,
    store_import,
    store_info,
    store_merge,
    store_verify,
)
from sslk.features.names import NAMES, names_of
from tests.features.small import store_bytes

RNG = np.random.default_rng(0)
X = RNG.standard_normal((103, 7)).astype(np.float32)
Y = RNG.integers(0, 5, 103)
NAMED = [f"img {i}.png" for i in range(103)]
pytestmark = pytest.mark.filterwarnings("ignore:.*(taken for|are the features|stored as)")


def parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path, row_group_size=20)


def written_csv(path, header, rows):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([*([header] if header else []), *rows])


def torch_file(path, content):
    torch.save(content, path)


T, L = torch.tensor(X), torch.tensor(Y)
FILES = {  # name of the file: how it is written, and whether it holds the labels too
    "c.npy": (lambda p: np.save(p, X), False),
    "fortran.npy": (lambda p: np.save(p, np.asfortranarray(X)), False),
    "double.npy": (lambda p: np.save(p, X.astype(np.float64)), False),
    "big-endian.npy": (lambda p: np.save(p, X.astype(">f4")), False),
    "stored.npz": (lambda p: np.savez(p, features=X, labels=Y, epoch=3), True),
    "deflated.npz": (lambda p: np.savez_compressed(p, x=np.asfortranarray(X), targets=Y.astype(np.float64)), True),
    "dictionary.pt": (lambda p: torch_file(p, {"embeddings": T, "labels": L, "epoch": 3, "settings": {"lr": 0.1}}), True),
    "pair.pth": (lambda p: torch_file(p, (T, L)), True),
    "batches.pt": (lambda p: torch_file(p, [(T[i : i + 30], L[i : i + 30]) for i in range(0, 103, 30)]), True),
    "tensor.pt": (lambda p: torch_file(p, torch.nn.Parameter(T)), False),
    "nested.pt": (lambda p: torch_file(p, {"test": {"feats": T.t().contiguous().t(), "y": L.tolist()}}), True),
    "tensors.safetensors": (lambda p: save_file({"features": T, "labels": L.to(torch.int32)}, p), True),
    "list.parquet": (lambda p: parquet(p, embedding=list(X), label=Y), True),
    "columns.parquet": (lambda p: parquet(p, **{f"f{j}": X[:, j] for j in range(7)}, label=Y, index=np.arange(103)), True),
    "plain.csv": (lambda p: np.savetxt(p, X, delimiter=",", fmt="%.9g"), False),
    "headed.csv": (
        lambda p: written_csv(p, ["id", "label", *"abcdefg"], [[i, Y[i], *map(float, X[i])] for i in range(103)]),
        True,
    ),
    "tabs.tsv": (lambda p: np.savetxt(p, X, delimiter="\t", fmt="%.9g"), False),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("shard_rows", [10, 103, None])
def test_every_format_gives_the_same_store(tmp_path, name, shard_rows):
    write, labelled = FILES[name]
    write(str(tmp_path / name))
    labels = None if labelled else Y
    found = store_import(str(tmp_path / name), tmp_path / "s", ImportSettings(shard_rows=shard_rows, data="d"), labels=labels)
    rows = found.load()
    np.testing.assert_array_equal(rows.features.numpy(), X)
    np.testing.assert_array_equal(rows.labels.numpy(), Y)
    assert rows.indices.tolist() == list(range(103))
    assert found.spec.identity == store_import(X, tmp_path / "array", ImportSettings(data="d"), labels=L).spec.identity
    assert store_verify(found.path) == found.spec.shard_count
    assert found.spec.signed and found.spec.imported


def test_shards_and_raw_numbers_are_read_in_a_row(tmp_path):
    for i in range(11):
        np.save(tmp_path / f"part-{i}.npy", X[10 * i : 10 * i + 10])
    pattern, files = str(tmp_path / "part-*.npy"), sorted(tmp_path.glob("part-*.npy"))
    assert np.array_equal(store_import(pattern, tmp_path / "s").load().features, X)
    with pytest.warns(UserWarning, match="read in the order given"):  # 0, 1, 10, 2: as a shell lists them
        there = store_import(files, tmp_path / "t").load().features
    assert np.array_equal(there, np.concatenate([np.load(file) for file in files]))
    X.tofile(tmp_path / "x.bin")
    assert np.array_equal(store_import(tmp_path / "x.bin", tmp_path / "r", ImportSettings(raw="float32:7")).load().features, X)


@pytest.mark.parametrize(
    ("given", "labels", "classes"),
    [
        ([2, -1, 0], [2, -1, 0], ()),
        ([2.0, float("nan"), 0.0], [2, -1, 0], ()),
        ([2, None, 0], [2, -1, 0], ()),
        (np.array([2, 0, 1], np.uint8), [2, 0, 1], ()),
        (np.array([[2], [0], [1]]), [2, 0, 1], ()),
        (["dog", "", "cat"], [1, -1, 0], ("cat", "dog")),
        (np.array([b"dog", b"cat", b"dog"]), [1, 0, 1], ("cat", "dog")),
        (["10", "9", "x"], [0, 1, 2], ("10", "9", "x")),
        (["10", "9", "2"], [10, 9, 2], ()),  # numbers that came as text
        (["007", "10", "9"], [0, 2, 1], ("007", "9", "10")),  # names that are numbers, by their value
        ([True, False, True], [1, 0, 1], ()),
    ],
)
def test_labels(tmp_path, given, labels, classes):
    store = store_import(X[:3], tmp_path / "s", labels=given)
    assert (store.labels().tolist(), store.spec.classes) == (labels, classes)


def test_classes_and_names_come_from_files_and_keys(tmp_path):
    written_csv(
        tmp_path / "list.csv", ["file", "class", "split"], [[n, "ab"[y % 2], "test"] for n, y in zip(NAMED, Y, strict=True)]
    )
    (tmp_path / "classes.txt").write_text("b\na\n")
    (tmp_path / "names.txt").write_text("\n".join(NAMED) + "\n")
    np.save(tmp_path / "x.npy", X)
    options = {"labels": f"{tmp_path}/list.csv", "classes": f"{tmp_path}/classes.txt"}
    first = store_import(tmp_path / "x.npy", tmp_path / "1", names=f"{tmp_path}/list.csv:file", **options)
    assert first.labels().tolist() == [1 - y % 2 for y in Y] and first.spec.classes == ("b", "a")
    assert list(names_of(first)) == NAMED
    second = store_import(tmp_path / "x.npy", tmp_path / "2", names=f"{tmp_path}/names.txt", **options)
    assert second.spec.identity == first.spec.identity
    np.savez(tmp_path / "k.npz", a=X, who=np.array(NAMED), what=Y)
    third = store_import(tmp_path / "k.npz", tmp_path / "3", ImportSettings(features_key="a"), names="who", labels="what")
    assert list(names_of(third)) == NAMED and third.labels().tolist() == Y.tolist()
    keyed = store_import({name: torch.tensor(row) for name, row in zip(NAMED, X, strict=True)}, tmp_path / "4")
    assert list(names_of(keyed)) == NAMED and np.array_equal(keyed.load().features, X)


@pytest.mark.parametrize(
    ("source", "dtype", "stored"),
    [
        (torch.float16, None, torch.float16),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float64, None, torch.float32),
        (torch.uint8, None, torch.float32),
        (torch.bool, None, torch.float32),
        (torch.float32, "float16", torch.float16),
        (torch.float16, "float32", torch.float32),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_dtypes(tmp_path, source, dtype, stored, array):
    values = (T * 3).to(source) if source.is_floating_point else (T > 0).to(source)
    if array and source == torch.bfloat16:
        pytest.skip("NumPy has none")
    given = values.numpy() if array else values
    found = store_import(given, tmp_path / "s", ImportSettings(dtype=dtype)).load().features
    assert found.dtype == stored and torch.equal(found, values.to(stored))


def test_what_is_odd_is_counted_and_said(tmp_path):
    x = X.copy()
    x[3, 2], x[5, 1], x[8] = np.nan, np.inf, 0
    with pytest.warns(UserWarning, match="taken as") as said:
        store = store_import(x.astype(np.float64)[:, :, None], tmp_path / "s", labels=[-1, *Y[1:]])
    text = "\n".join(str(warning.message) for warning in said)
    for part in (
        "[103, 7, 1], taken as [103, 7]",
        "float64 numbers, stored as float32",
        "1 of 103 rows are unlabelled",
        "2 of 103 rows of features hold a NaN",
        "1 of 103 rows of features are all zeros",
    ):
        assert part in text
    assert store_info(store.path).nonfinite_rows == 2
    with pytest.warns(UserWarning, match="no row has a label"):
        assert not store_import(X, tmp_path / "t", labels=[None] * 103).has_labels


def test_identity_is_the_content(tmp_path):
    first = store_import(X, tmp_path / "a", labels=Y, names=NAMED)
    before = store_bytes(first.path)
    assert store_bytes(store_import(X, tmp_path / "a", labels=Y, names=NAMED).path) == before
    other = X.copy()
    other[50, 3] = np.nextafter(other[50, 3], 9)
    for change in ({"labels": Y}, {"labels": Y, "names": NAMED[::-1]}, {"names": NAMED}, {"labels": Y[::-1], "names": NAMED}):
        with pytest.raises(StoreError, match="another extraction"):
            store_import(X, tmp_path / "a", **change)
    with pytest.raises(StoreError, match="content is"):
        store_import(other, tmp_path / "a", labels=Y, names=NAMED)
    assert store_bytes(first.path) == before
    same_images = store_import(other, tmp_path / "b", ImportSettings(model="later"), labels=Y, names=NAMED)
    assert same_images.spec.data_hash == first.spec.data_hash and same_images.spec.weights_hash != first.spec.weights_hash


def test_names_are_checked_and_merged(tmp_path):
    odd = ["é\udcff.png", "", "a,b\n.png", "=x"]
    first = store_import(X[:4], tmp_path / "a", ImportSettings(shard_rows=3), names=odd)
    assert list(names_of(first)) == odd
    second = store_import(abs(X[4:9]), tmp_path / "b", names=[*odd, "z"])
    merged = store_merge([first.path, second.path], tmp_path / "m")
    assert list(names_of(merged)) == [*odd, *odd, "z"] and merged.spec.signed and merged.complete
    assert np.array_equal(merged.load().features, np.concatenate([X[:4], abs(X[4:9])]))
    assert store_verify(merged.path) == 3
    (first.path / NAMES).write_bytes((second.path / NAMES).read_bytes())
    for check in (lambda: names_of(first), lambda: store_verify(first.path)):
        with pytest.raises(StoreError, match=r"names.safetensors in .*a is altered"):
            check()
    (first.path / NAMES).unlink()
    with pytest.raises(StoreError, match="is missing"):
        names_of(first)
    store_import(X[:4], tmp_path / "a", ImportSettings(shard_rows=3), names=odd)  # written anew
    assert list(names_of(FeatureStore(first.path))) == odd


@pytest.mark.parametrize("format", ["npy", "npz", "pt", "safetensors", "parquet", "csv"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("names", [True, False])
def test_export_and_import_give_the_store_again(tmp_path, format, dtype, names):
    x = X.copy()
    x[0, :4] = np.nan, np.inf, -0.0, np.float32(1e-42)
    labels = ["abc"[y] if y < 3 else None for y in Y]
    settings = ImportSettings("net", "birds/test", dtype=dtype, shard_rows=20)
    store = store_import(x, tmp_path / "s", settings, labels=labels, names=NAMED if names else None, classes=["b", "c", "a"])
    files = store_export(store.path, tmp_path / "out", format)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in files}
    again = store_import(tmp_path / "out", tmp_path / "again", settings)
    assert torch.equal(again.load().features.nan_to_num(7.0), store.load().features.nan_to_num(7.0))
    assert (again.labels().tolist(), again.spec.classes) == (store.labels().tolist(), ("b", "c", "a"))
    assert names_of(again) is None if not names else list(names_of(again)) == NAMED
    if format != "csv":  # the text of a NaN does not say which
        assert store_bytes(again.path) == store_bytes(store.path)
    with open(tmp_path / "out" / "manifest.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["file", "label", "split"]
    assert rows[1:] == [[NAMED[i] if names else str(i), labels[i] or "", "test"] for i in range(103)]

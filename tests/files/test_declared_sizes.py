"""What a file declares is compared with what it is before memory is taken by it, and names stay inside their folder."""

import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.concepts import ConceptTable
from sslk.data import Dataset, load_dataset
from sslk.data.archives import Archive
from sslk.data.dataset import class_count
from sslk.evaluation.run import STATE, Evaluation
from sslk.features import FeatureStore, StoreError
from sslk.features.manifest import MANIFEST
from sslk.files.arrays import read_arrays
from sslk.interpret.atlas.statistics import collect
from sslk.interpret.parts import Parts
from sslk.probes.rows import StoreRows
from sslk.quality.ablation import _read_journal
from sslk.quality.discriminative import DiscriminativeFeatures
from tests.fuzz.data_files import write_store
from tests.fuzz.wrong_arrays import npy
from tests.probes.stores import write_store as write_labelled


def npz(path, **members):
    """An .npz of the given bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return f"npz:{path}"


IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"images": npy(IMAGES, (175 << 40, 8, 8, 3))}, r"its header says uint8 \[192414534860800, 8, 8, 3\]"),
        ({"images": npy(IMAGES[:, :0], (3, 0, 8, 3))}, r"must be uint8 \[N, H, W, 3\].*\[3, 0, 8, 3\]"),
        ({"images": npy(IMAGES), "labels": npy(np.array([0, 1, 300_000_000]))}, "below 1000000, got 300000000"),
        ({"images": npy(IMAGES), "labels": npy(np.array([0, 1, 2**62]))}, "below 1000000, got 4611686018427387904"),
        ({"images": npy(IMAGES), "labels": npy(np.array([0, 1, 2**63 + 5], np.uint64))}, "below 1000000"),
        ({"images": npy(IMAGES), "labels": npy(np.array([0, 1, 2])), "classes": npy(np.array(["a"]))}, "names 1 classes"),
        ({"images": npy(IMAGES, dtype="(" * 5000)}, "no readable .npz"),
    ],
    ids=["175 TiB", "no height", "300000000", "2^62", "uint64", "too few names", "deep header"],
)
def test_npz_that_declare_too_much(tmp_path, members, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(npz(tmp_path / "a.npz", **members))
    assert "a.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_labels_without_a_class_stay_negative(tmp_path):
    dataset = load_dataset(npz(tmp_path / "a.npz", images=npy(IMAGES), labels=npy(np.array([-1, 0, 1]))))
    assert dataset.labels.tolist() == [-1, 0, 1] and dataset.classes == ["0", "1"]


def test_two_arrays_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", npy(IMAGES))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", npy(IMAGES + 1))
    with pytest.raises(ValueError, match=r"a\.npz .* two arrays of one name"):
        read_arrays(tmp_path / "a.npz", "the data set", ("images",))


def test_a_zip_that_says_it_unpacks_to_four_gigabytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"x" * 1000)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 24 : at + 28] = b"\xfe\xff\xff\xff"
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(OSError, match=r"a\.zip cannot be read: a\.png says it holds 4294967294 bytes"):
        Archive(tmp_path / "a.zip").read("a.png")


def test_array_formats_agree_with_numpy(tmp_path):
    arrays = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "s": np.array(["a", "é"]),
        "o": np.array(7),
        "e": np.zeros((0, 3)),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found, names = read_arrays(tmp_path / "a.npz", "it", tuple(arrays))
    assert names == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "", "a/b", "..", "a\0"])
def test_shards_outside_their_store_are_refused(tmp_path, name):
    write_store(tmp_path / "s")
    shutil.copy(tmp_path / "s/shard-000000.safetensors", tmp_path / "outside.safetensors")
    manifest = json.loads((tmp_path / "s" / MANIFEST).read_text())
    manifest["shards"][0]["file"] = name
    (tmp_path / "s" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"manifest\.json .*named by a file inside the store"):
        FeatureStore(tmp_path / "s")


@pytest.mark.parametrize("where", ["shard-000000.safetensors", MANIFEST, ".checked.json"])
def test_a_pipe_in_a_store_hangs_nothing(tmp_path, where):
    write_store(tmp_path / "s")
    (tmp_path / "s" / where).unlink()
    os.mkfifo(tmp_path / "s" / where)
    if where == ".checked.json":  # only a saving lost
        assert len(FeatureStore(tmp_path / "s").load().features) == 11
        return
    with pytest.raises(StoreError, match=f"{re.escape(where)} must be a regular file"):
        FeatureStore(tmp_path / "s")


@pytest.mark.parametrize("index", [[0, 1, 2**62], [0, 1, 3], [-1, 0, 1]])
def test_samples_outside_the_data_set_are_refused(tmp_path, index):
    store = write_labelled(tmp_path / "s", torch.ones(3, 4), torch.tensor([0, 1, 2]))
    with pytest.raises(StoreError, match=r"shard-000000\.safetensors .* numbers its samples"):
        _with_index(store, index).load()


def test_a_sample_that_is_there_twice_is_refused(tmp_path):
    store = write_labelled(tmp_path / "s", torch.ones(3, 4), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="holds a sample of its data set twice"):
        StoreRows(_with_index(store, [0, 1, 1]))


def _with_index(store, index):
    """The store with other sample numbers, hashes and sizes all right."""
    from sslk.features import StoreWriter

    folder = store.path.with_name("changed")
    with StoreWriter(folder, store.spec) as writer:
        writer.write(0, torch.ones(3, 4), torch.tensor([0, 1, 2]), torch.tensor(index))
    return FeatureStore(folder)


def test_an_atlas_counts_no_classes_up_to_a_label_of_2_to_the_62(tmp_path):
    store = write_labelled(tmp_path / "s", torch.ones(3, 4), torch.tensor([0, 1, 2**62]))
    found = DiscriminativeFeatures.from_counts(torch.tensor([1, 2, 3, 4]), 3, eps=1.0)
    with pytest.raises(ValueError, match="must be numbers of classes below 1000000"):
        collect(store, found, torch.arange(2))
    assert class_count(torch.tensor([4, -1]), "s") == 5


def test_a_journal_with_an_impossible_accuracy_is_refused(tmp_path):
    for text in ("[[0.1, 0.0, 0, NaN]]", "[[0.1, 0.0, 1e400, 0.5]]", "[[0.1, 0.0, 0, 1.5]]", "[" * 100_000, "{}"):
        (tmp_path / "journal.json").write_text(text)
        if text == "{}":
            assert _read_journal(tmp_path / "journal.json") == {}
            continue
        with pytest.raises(ValueError, match=r"journal .*journal\.json is "):
            _read_journal(tmp_path / "journal.json")


@pytest.mark.parametrize(
    "state",
    [
        '{"about": null, "steps": {}}',
        '{"about": [], "steps": {}}',
        '{"about": {}, "steps": {"a": {"state": "never"}}}',
        "[]",
        '{"about": {}, "steps": {"a": null}}',
        "[" * 100_000,
        "\0",
    ],
)
def test_a_damaged_state_of_an_evaluation_is_named(tmp_path, state):
    (tmp_path / STATE).write_text(state.replace("{", '{"format": "sslk-evaluation-1", ', 1))
    with pytest.raises(ValueError, match=r"evaluation\.json is damaged, .*; move it away to begin anew\.$"):
        Evaluation(tmp_path, [], {"data": "d"})


def test_masks_outside_their_folder_are_not_read(tmp_path):
    (tmp_path / "m").mkdir()
    Image.new("L", (8, 8), 255).save(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(OSError, match="lies outside"):
            Archive(tmp_path / "m").image(name)


def test_a_damaged_part_is_found_anew(tmp_path):
    parts = Parts(tmp_path / "parts", "me", seconds=0)
    parts.add({"values": torch.ones(3)})
    file = tmp_path / "parts/part-000000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    assert Parts(tmp_path / "parts", "me").finished == []


def test_offsets_that_fall_are_no_table():
    with pytest.raises(ValueError, match="offsets must not fall"):
        ConceptTable(torch.tensor([0, 5, 2]), torch.zeros(2, dtype=torch.int32), ["a"], ["g"], torch.arange(2))


def test_labels_that_no_integer_can_hold_are_refused():
    with pytest.raises(ValueError, match=r"labels of data set 'd' must be below 2\^63"):
        Dataset("d", lambda i: Image.new("RGB", (4, 4)), ["a"], np.array([2**63 + 5], np.uint64))

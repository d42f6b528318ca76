"""Several representations out of one forward pass: each store is what `extract` alone would have made of it."""

from types import SimpleNamespace

import pytest
from torch import nn

from sslk.features import FeatureStore, StoreError, StoreSpec, extract, extract_several, store_info
from sslk.features.settings import ExtractSettings
from tests.features.small import SmallData, finished, kill_several, several_model, store_bytes

SETTINGS = ExtractSettings(batch_size=16, shard_rows=40, workers=0)
NAMES = ("early", "late", "both")


def shards(folder):
    return {name: content for name, content in store_bytes(folder).items() if name != "manifest.json"}


def alone(name, model=None):
    """The model with one representation, which says the same of itself."""

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.name, self.feature, self.signed = model or several_model(), "Several", name, name != "early"

        @property
        def weights_hash(self):
            from sslk.features.identity import weights_hash

            return weights_hash(self.net)

        def forward(self, images):
            return self.net(images)[name]

    return Alone()


@pytest.mark.parametrize("form", ["mapping", "tuple", "forward_several"])
def test_each_store_is_the_one_that_extract_makes(data, tmp_path, form):
    model = several_model()
    if form == "tuple":
        model.register_forward_hook(lambda module, inputs, output: tuple(output[name] for name in NAMES))
    if form == "forward_several":
        model.forward_several, model.forward = model.forward, None
    stores = extract_several(model, data, {name: tmp_path / name for name in NAMES}, SETTINGS)
    assert list(stores) == list(NAMES)
    for name, store in stores.items():
        extract(alone(name), data, tmp_path / f"{name} alone", SETTINGS)
        assert store_bytes(tmp_path / name) == store_bytes(tmp_path / f"{name} alone")
        assert store.complete and store.labels().tolist() == data.labels
        assert (store.spec.feature, store.spec.signed) == (name, name != "early")
    assert [store.num_features for store in stores.values()] == [24, 5, 29]
    assert len({store.spec.identity for store in stores.values()}) == 3


def test_what_the_model_says_of_its_representations_is_taken(data, tmp_path):
    model = several_model()
    model.representations = {
        "early": SimpleNamespace(num_features=24, signed=False, feature="mean of layer 2"),
        "late": SimpleNamespace(num_features=5, signed=True),
    }
    out = {name: tmp_path / name for name in ("late", "early")}
    stores = extract_several(model, data, out, SETTINGS)
    assert {name: store.spec.feature for name, store in stores.items()} == {"early": "mean of layer 2", "late": "late"}
    assert store_info(tmp_path / "early").described()["feature"] == "mean of layer 2"
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    extract_several(model, SmallData(100, corrupt=range(100)), out, SETTINGS)  # finished: reads and runs nothing
    assert not calls


def test_only_what_a_store_lacks_is_written(data, tmp_path):
    out = {name: tmp_path / name for name in NAMES}
    extract_several(several_model(), data, {"late": tmp_path / "late"}, SETTINGS)
    whole, times = store_bytes(tmp_path / "late"), {f: f.stat().st_mtime_ns for f in (tmp_path / "late").glob("*.safetensors")}
    seen = []
    extract_several(several_model(), data, out, SETTINGS, progress=lambda *said: seen.append(said))
    assert seen[-1] == (100, 100, "extracting")
    assert store_bytes(tmp_path / "late") == whole
    assert times == {f: f.stat().st_mtime_ns for f in (tmp_path / "late").glob("*.safetensors")}
    (tmp_path / "both" / "shard-000001.safetensors").unlink()
    seen.clear()
    stores = extract_several(several_model(), data, out, SETTINGS, progress=lambda *said: seen.append(said))
    assert seen[-1] == (40, 40, "extracting")  # that shard alone
    assert all(store.complete for store in stores.values())


def test_killed_and_resumed(tmp_path, spawn):
    child = spawn(target=kill_several, args=(tmp_path, 70))
    assert finished(child) == -9
    done = [len(FeatureStore(tmp_path / name)) for name in NAMES]
    assert done == [40, 40, 40]
    assert finished(spawn(target=kill_several, args=(tmp_path, 1000))) == 0
    extract_several(several_model(), SmallData(100), {name: tmp_path / "whole" / name for name in NAMES}, SETTINGS)
    for name in NAMES:
        assert store_bytes(tmp_path / name) == store_bytes(tmp_path / "whole" / name)


def test_images_that_cannot_be_read_are_left_out_of_all(tmp_path):
    settings = ExtractSettings(batch_size=16, shard_rows=40, workers=0, on_corrupt="skip")
    data = SmallData(100, corrupt={0, 45})
    stores = extract_several(several_model(), data, {name: tmp_path / name for name in NAMES}, settings)
    kept = [i for i in range(100) if i not in data.corrupt]
    assert all(store.load().indices.tolist() == kept and store.manifest.skipped == 2 for store in stores.values())


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ("s", TypeError, "out must map the names of representations to folders, got str"),
        ({}, ValueError, r"out must name representations, each with a folder of its own, got \{\}"),
        ({"early": "s", "late": "x/../s"}, ValueError, "each with a folder of its own"),
        (
            {"early": "s", "middle": "t"},
            ValueError,
            "out must name representations of the model, which are early, late, both; got",
        ),
    ],
)
def test_folders_that_cannot_be_filled_are_refused(data, tmp_path, monkeypatch, out, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        extract_several(several_model(), data, out, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_outputs_that_do_not_fit_are_refused(data, tmp_path):
    model = several_model()
    model.register_forward_hook(lambda module, inputs, output: (output["early"],))
    with pytest.raises(ValueError, match="model must return 2 representations, as out names them, but gave 1"):
        extract_several(model, data, {"a": tmp_path / "a", "b": tmp_path / "b"}, SETTINGS)
    model = several_model()
    model.register_forward_hook(lambda module, inputs, output: {"a": output["early"][None]})
    with pytest.raises(ValueError, match=r"but gave \(1, 1, 24\) for 1 images as a"):
        extract_several(model, data, {"a": tmp_path / "a"}, SETTINGS)
    model = several_model()
    model.representations = {"late": SimpleNamespace(num_features=6, signed=True)}
    with pytest.raises(ValueError, match="num_features says 6 for late, but the output has 5"):
        extract_several(model, data, {"late": tmp_path / "late"}, SETTINGS)


def test_another_layer_in_the_folder_is_refused(data, tmp_path):
    extract(alone("late"), data, tmp_path / "s", SETTINGS)
    other = alone("late")
    other.feature = "other"
    with pytest.raises(StoreError, match="feature is 'late' there and 'other' here"):
        extract(other, data, tmp_path / "s", SETTINGS)


def test_stores_without_a_feature_keep_their_identity():
    spec = StoreSpec("m", "0" * 64, "d", "1" * 64, "None", 10, 4)
    assert spec.identity == "61530afb3aad5eada1a7db3206524c9896532478a10f454b59a932cef61eb9a8"
    assert StoreSpec("m", "0" * 64, "d", "1" * 64, "None", 10, 4, feature="cls").identity != spec.identity

"""Extraction: the numbers, resuming, cache hits, options and refusals."""

import re

import pytest
import torch
from torch import nn

from sslk.features import FeatureStore, StoreError, extract
from sslk.features.settings import ExtractSettings
from tests.features.small import SmallData, small_model, store_bytes


def direct(model, data):
    model.eval()
    with torch.no_grad():
        return torch.cat([model((item[0] if isinstance(item, tuple) else item)[None]) for item in data])


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_the_models_outputs_in_order(model, data, tmp_path, workers):
    model.train()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    store = extract(model, data, tmp_path / "s", ExtractSettings(batch_size=16, shard_rows=40, workers=workers))
    assert all(module.training for module in model.modules())
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=0, atol=0)
    everything = store.load()
    torch.testing.assert_close(everything.features, direct(model, data), rtol=1e-6, atol=1e-6)
    assert everything.labels.tolist() == data.labels
    assert everything.indices.tolist() == list(range(100))
    assert [entry.rows for entry in store.manifest.shards] == [40, 40, 20]
    assert store.complete
    assert store.spec.classes == ("cat", "dog", "emu")


def test_second_call_is_a_cache_hit_that_reads_nothing(model, data, tmp_path):
    extract(model, data, tmp_path / "s", ExtractSettings(shard_rows=40, workers=0))
    before = store_bytes(tmp_path / "s")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    model.num_features = 24
    extract(model, SmallData(100, corrupt=range(100)), tmp_path / "s", ExtractSettings(workers=0))
    assert not calls
    assert store_bytes(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ("weights", "weights_hash"),
        ("labels", "data_hash"),
        ("transform", "transform"),
        ("dtype", "dtype"),
        ("rows", "shard_rows"),
    ],
)
def test_a_store_of_something_else_is_refused_naming_the_field(data, tmp_path, changed, field):
    extract(small_model(), data, tmp_path / "s", ExtractSettings(shard_rows=40, workers=0))
    before = store_bytes(tmp_path / "s")
    options = {"shard_rows": 40, "workers": 0}
    if changed == "labels":
        data.labels[3] = (data.labels[3] + 1) % 3
    if changed == "transform":
        data.transform = nn.ReLU()
    if changed == "dtype":
        options["dtype"] = "float16"
    if changed == "rows":
        options["shard_rows"] = 50
    with pytest.raises(StoreError, match=rf"holds another extraction: .*{field} is .* there and .* here"):
        extract(small_model(seed=int(changed == "weights")), data, tmp_path / "s", ExtractSettings(**options))
    assert store_bytes(tmp_path / "s") == before


def test_corrupt_images_end_the_run_naming_the_first(model, tmp_path):
    data = SmallData(60, corrupt={45, 47})
    with pytest.raises(ValueError, match=r"sample 45 of small cannot be read \(OSError: cannot identify.*img_45.png"):
        extract(model, data, tmp_path / "s", ExtractSettings(shard_rows=20, workers=0))
    assert len(FeatureStore(tmp_path / "s")) == 40  # the shards before it are kept


def test_corrupt_images_are_left_out_counted_and_named(model, tmp_path):
    data, seen = SmallData(60, corrupt={0, 45, 47}), []
    store = extract(
        model,
        data,
        tmp_path / "s",
        ExtractSettings(shard_rows=20, batch_size=8, workers=1, on_corrupt="skip"),
        progress=lambda *said: seen.append(said),
    )
    assert seen[-1] == (60, 60, "extracting")
    kept = [i for i in range(60) if i not in data.corrupt]
    everything = store.load()
    assert everything.indices.tolist() == kept
    assert everything.labels.tolist() == [data.labels[i] for i in kept]
    readable = SmallData(60)
    torch.testing.assert_close(everything.features, direct(model, readable)[kept], rtol=1e-6, atol=1e-6)
    assert store.complete
    assert [sample for entry in store.manifest.shards for sample, _ in entry.skipped] == [0, 45, 47]
    assert "img_45.png" in store.manifest.shards[2].skipped[0][1]


def test_a_whole_shard_of_corrupt_images_is_an_empty_shard_and_all_is_an_error(model, tmp_path):
    store = extract(
        model, SmallData(30, corrupt=range(10, 20)), tmp_path / "s", ExtractSettings(shard_rows=10, workers=0, on_corrupt="skip")
    )
    assert [entry.rows for entry in store.manifest.shards] == [10, 0, 10]
    assert sum(len(batch.features) for batch in store.batches(7)) == 20
    with pytest.raises(ValueError, match="no readable sample; the last error was OSError: cannot identify"):
        extract(model, SmallData(30, corrupt=range(30)), tmp_path / "t", ExtractSettings(workers=0, on_corrupt="skip"))
    model.num_features, model.signed = 24, False
    with pytest.raises(ValueError, match="no sample of small could be read; the first, 0: OSError"):
        extract(model, SmallData(30, corrupt=range(30)), tmp_path / "t", ExtractSettings(workers=0, on_corrupt="skip"))


def test_a_bug_in_the_transform_is_not_a_corrupt_image(model, tmp_path):
    class Broken(SmallData):
        def __getitem__(self, index):
            return None + 1

    model.num_features, model.signed = 24, False
    with pytest.raises(TypeError):
        extract(model, Broken(5), tmp_path / "s", ExtractSettings(workers=0, on_corrupt="skip"))


def test_data_without_labels(model, tmp_path):
    data = SmallData(20, labels=False)
    with pytest.raises(ValueError, match="labels=True needs a labelled data set, but small has no labels"):
        extract(model, data, tmp_path / "s", ExtractSettings(workers=0), labels=True)
    assert not (tmp_path / "s").exists()
    store = extract(model, data, tmp_path / "s", ExtractSettings(workers=0))
    assert store.load().labels is None
    with pytest.raises(StoreError, match="has no labels, which are needed here"):
        store.labels()


@pytest.mark.parametrize(
    ("amp", "dtype", "stored"),
    [("off", "float16", torch.float16), ("bfloat16", None, torch.bfloat16), ("bfloat16", "float32", torch.float32)],
)
def test_mixed_precision_and_stored_dtype(model, data, tmp_path, amp, dtype, stored):
    store = extract(model, data, tmp_path / "s", ExtractSettings(workers=0, amp=amp, dtype=dtype))
    features = store.load().features
    assert features.dtype == stored
    expected = direct(model, data)
    tolerance = 2e-3 if amp == "off" else 3e-2
    torch.testing.assert_close(features.float(), expected, rtol=tolerance, atol=tolerance)
    assert (features.float() != expected).any()  # it did lose precision


def test_features_too_large_for_the_dtype_are_refused(model, data, tmp_path):
    with pytest.raises(ValueError, match="do not fit float16: store them as bfloat16 or float32"):
        extract(nn.Sequential(model, Scale(1e6)), data, tmp_path / "s", ExtractSettings(workers=0, dtype="float16"))
    assert len(FeatureStore(tmp_path / "s")) == 0


class Scale(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_rows_that_are_not_finite_are_counted(model, data, tmp_path):
    with torch.no_grad():
        model[1].bias[3] = torch.nan
    store = extract(model, data, tmp_path / "s", ExtractSettings(workers=0))
    assert store.manifest.shards[0].nonfinite_rows == 100


def test_bad_arguments_before_any_work(model, data, tmp_path):
    out = tmp_path / "s"
    with pytest.raises(ValueError, match="must not be empty"):
        extract(model, SmallData(0), out)
    with pytest.raises(ValueError, match="batch_size and shard_rows must be at least 1"):
        extract(model, data, out, ExtractSettings(batch_size=0))
    with pytest.raises(ValueError, match="on_corrupt must be 'raise' or 'skip', got 'ignore'"):
        extract(model, data, out, ExtractSettings(on_corrupt="ignore"))
    with pytest.raises(ValueError, match=r"must return representations \[n, D\], but gave \(1, 24, 6, 6\)"):
        extract(model[:3], data, out, ExtractSettings(workers=0))
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, bfloat16, got 'int8'"):
        extract(model, data, out, ExtractSettings(workers=0, dtype="int8"))
    data.transform = lambda x: x
    with pytest.raises(ValueError, match="must have a repr that names it"):
        extract(model, data, out)
    assert not out.exists()
    model.num_features = 25
    del data.transform
    with pytest.raises(ValueError, match="num_features says 25, but the output has 24"):
        extract(model, data, out, ExtractSettings(workers=0))


def test_progress_ends_at_the_total(model, data, tmp_path):
    seen = []
    extract(
        model,
        data,
        tmp_path / "s",
        ExtractSettings(batch_size=16, shard_rows=40, workers=0),
        progress=lambda *said: seen.append(said),
    )
    assert seen == [(done, 100, "extracting") for done in (16, 32, 40, 56, 72, 80, 96, 100)]


def test_global_random_state_is_left_alone(model, data, tmp_path):
    state = torch.get_rng_state()
    extract(model, data, tmp_path / "s", ExtractSettings(workers=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_error_messages_are_one_line(model, data, tmp_path):
    extract(model, data, tmp_path / "s", ExtractSettings(workers=0))
    with pytest.raises(StoreError) as caught:
        extract(small_model(seed=5), data, tmp_path / "s", ExtractSettings(workers=0))
    assert not re.search(r"\n", str(caught.value))


def test_a_shard_without_a_readable_sample_ends_no_run_that_has_others(model, tmp_path):
    data = SmallData(60, corrupt=range(20))  # the whole first shard
    whole = extract(model, data, tmp_path / "s", ExtractSettings(shard_rows=20, workers=0, on_corrupt="skip"))
    assert whole.complete and len(whole) == 40 and whole.manifest.skipped == 20
    data = SmallData(60, corrupt=range(40, 60))  # all that is left to a resumed run
    with pytest.raises(ValueError, match="sample 40 of small cannot be read"):
        extract(model, data, tmp_path / "t", ExtractSettings(shard_rows=20, workers=0))
    resumed = extract(model, data, tmp_path / "t", ExtractSettings(shard_rows=20, workers=0, on_corrupt="skip"))
    assert resumed.complete and len(resumed) == 40
    with pytest.raises(ValueError, match="dataset has no readable sample"):
        extract(
            model, SmallData(30, corrupt=range(30)), tmp_path / "u", ExtractSettings(shard_rows=10, workers=0, on_corrupt="skip")
        )


def test_labels_beside_bare_images_are_stored(model, tmp_path):
    class Bare(SmallData):
        def __getitem__(self, index):
            return super().__getitem__(index)[0]

    data = Bare(30)
    assert extract(model, data, tmp_path / "s", ExtractSettings(workers=0)).labels().tolist() == data.labels

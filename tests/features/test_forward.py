"""The forward pass of extraction: the plain loop's numbers, memory that runs out, compilation, devices."""

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from sslk.distributed import require_device
from sslk.features import FeatureStore, extract
from sslk.features.forward import is_convolutional
from sslk.features.settings import ExtractSettings
from tests.features.small import SmallData, extract_within, finished, small_model, store_bytes


def resnet(build):
    torch.manual_seed(0)
    net = build(weights=None)
    net.fc = nn.Identity()
    return net


NETWORKS = {
    "resnet18": (lambda: resnet(resnet18), True),
    "resnet50": (lambda: resnet(resnet50), True),
    "convnext": (lambda: timm.create_model("convnext_atto", num_classes=0), True),
    "vit": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, depth=3), False),
    "swin": (lambda: timm.models.swin_transformer.SwinTransformer(64, depths=(1, 1), num_heads=(2, 4), num_classes=0), False),
}


class Images(SmallData):
    """Images of 64 pixels."""

    def __getitem__(self, index):
        return torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(index)), self.labels[index]


def plain(model, data, batch_size):
    model.eval()
    with torch.no_grad():
        images = torch.stack([data[i][0] for i in range(len(data))])
        return torch.cat([model(batch) for batch in images.split(batch_size)])


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def exact(model, data, batch_size):
    """The plain loop in float64."""
    doubled = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        images = torch.stack([data[i][0] for i in range(len(data))]).double()
        return torch.cat([doubled(batch) for batch in images.split(batch_size)])


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_the_plain_loop(tmp_path, name):
    build, convolutional = NETWORKS[name]
    model, data = build(), Images(6)
    assert is_convolutional(model) == convolutional
    expected, truth = plain(model, data, 4), exact(model, data, 4)
    found = extract(model, data, tmp_path / "s", ExtractSettings(batch_size=4, workers=0)).load().features
    if convolutional:  # another layout sums in another order: about as near to the exact features as the plain loop is
        assert relative(found, truth) <= 2 * relative(expected, truth)
    else:
        assert relative(found, expected) == 0
    assert relative(plain(model, data, 4), expected) == 0  # the model is what it was


def test_convolutions_run_channels_last_and_get_their_layout_back(data, tmp_path):
    model, seen = small_model(), []

    def look(module, inputs):
        seen.extend(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (*inputs, model[0].weight))

    model[1].register_forward_pre_hook(look)
    extract(model, data, tmp_path / "s", ExtractSettings(workers=0))
    assert seen and all(seen)
    assert model[0].weight.is_contiguous()
    model(torch.randn(2, 3, 8, 8)).sum().backward()  # parameters made in inference mode could not be trained
    assert model[0].weight.grad is not None


def test_a_network_that_views_its_maps_runs_as_it_is(data, tmp_path):
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_model()[:3]

        def forward(self, images):
            return self.net(images).view(len(images), -1)  # impossible channels-last

    model = Viewing()
    found = extract(model, data, tmp_path / "s", ExtractSettings(workers=0, batch_size=32)).load().features
    torch.testing.assert_close(found, plain(model, data, 32), rtol=0, atol=0)
    assert model.net[0].weight.is_contiguous()


@pytest.mark.parametrize("settings", [{"batch_size": 7}, {"batch_size": 7, "workers": 2}, {}])
def test_bytes_depend_on_neither_workers_nor_when(model, data, tmp_path, settings):
    for name in ("a", "b"):
        extract(model, data, tmp_path / name, ExtractSettings(shard_rows=40, **{"workers": 0 if name == "a" else 1, **settings}))
    assert store_bytes(tmp_path / "a") == store_bytes(tmp_path / "b")


class Hungry(nn.Module):
    """Takes as many images as fit, and raises what torch raises for more."""

    def __init__(self, most, error):
        super().__init__()
        self.net, self.most, self.error, self.sizes = small_model(), most, error, []

    def forward(self, images):
        if len(images) > self.most:
            raise self.error
        self.sizes.append(len(images))
        return self.net(images)


def real_cpu_error():
    try:
        torch.empty(1 << 60)
    except RuntimeError as error:
        return error


ERRORS = {"cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "cpu": real_cpu_error()}


@pytest.mark.parametrize("error", ERRORS)
def test_the_batch_is_halved_until_it_fits(data, tmp_path, error):
    model = Hungry(9, ERRORS[error])
    model.num_features, model.signed = 24, False  # nothing is measured on the first image
    with pytest.warns(UserWarning, match="do not fit the memory") as warned:
        store = extract(model, data, tmp_path / "s", ExtractSettings(batch_size=32, shard_rows=40, workers=0))
    assert [str(warning.message) for warning in warned] == [
        "32 images at once do not fit the memory of cpu: going on with batch_size 16.",
        "16 images at once do not fit the memory of cpu: going on with batch_size 8.",
    ]
    assert max(model.sizes) == 8 and sum(model.sizes) == 100  # no image twice, and the size that fits is kept
    assert store.load().indices.tolist() == list(range(100))
    assert relative(store.load().features, plain(model.net, data, 32)) <= 1e-6


@pytest.mark.filterwarnings("ignore:32 images at once")
def test_a_run_that_was_halved_goes_on_elsewhere(data, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done, total, stage):
        if done > 40:
            raise Stopped

    model = Hungry(9, ERRORS["cuda"])
    settings = ExtractSettings(batch_size=32, shard_rows=40, workers=0)
    with pytest.raises(Stopped), pytest.warns(UserWarning, match="going on with batch_size 8"):
        extract(model, data, tmp_path / "s", settings, progress=stop)
    assert len(FeatureStore(tmp_path / "s")) == 40
    model.most = 100  # a larger machine
    store = extract(model, data, tmp_path / "s", settings)
    assert store.complete and relative(store.load().features, plain(model.net, data, 32)) <= 1e-6


def test_one_image_that_does_not_fit_is_an_error(data, tmp_path):
    with pytest.raises(ValueError, match=r"one image of shape \[3, 8, 8\] does not fit the memory of cpu under Hungry: take"):
        extract(Hungry(0, ERRORS["cuda"]), data, tmp_path / "s", ExtractSettings(workers=0))


def test_other_errors_pass(data, tmp_path):
    with pytest.raises(RuntimeError, match="sizes differ"):
        extract(Hungry(0, RuntimeError("sizes differ")), data, tmp_path / "s", ExtractSettings(workers=0))


def test_memory_that_really_ran_out(tmp_path, spawn):
    assert finished(spawn(target=extract_within, args=(tmp_path / "s", 2 << 30))) == 0
    means = torch.stack([SmallData(8)[i][0] for i in range(8)]).mean((2, 3))
    torch.testing.assert_close(FeatureStore(tmp_path / "s").load().features, torch.cat([means, means[:, :2]], 1))


def test_compiled_features_are_those_of_the_plain_loop(data, tmp_path):
    model = small_model()
    settings = ExtractSettings(batch_size=32, shard_rows=40, workers=0, compile=True)  # batches of 32 and 8
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):  # once for all sizes
        found = extract(model, data, tmp_path / "s", settings).load().features
    assert relative(found, plain(model, data, 32)) <= 1e-5
    extract(model, data, tmp_path / "t", settings)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "t")


def test_a_network_that_cannot_be_compiled_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    torch._dynamo.reset()
    refused = pytest.raises(ValueError, match=r"compile=True: torch.compile cannot compile Sequential \(.+\); leave compile out")
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}), refused:
        extract(small_model(width=25), data, tmp_path / "s", ExtractSettings(workers=0, compile=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device must be cpu, or a GPU as torch names it"),
        ("meta", "device='meta' is not here: this machine has cpu"),
        pytest.param(
            "cuda", "device='cuda' is not here: this machine has cpu", marks=pytest.mark.skipif("torch.cuda.is_available()")
        ),
        ("cuda:99", "device='cuda:99' is not here: this machine has cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(data, tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        extract(small_model(), data, tmp_path / "s", ExtractSettings(workers=0, device=name))
    assert not (tmp_path / "s").exists()
    assert require_device("cpu") == torch.device("cpu")


def test_half_precision_that_the_processor_imitates_is_said(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True})
    with pytest.warns(
        UserWarning, match="amp='bfloat16' is imitated by this processor, which has neither avx512_bf16 nor amx_bf16"
    ):
        extract(small_model(), data, tmp_path / "s", ExtractSettings(workers=0, amp="bfloat16"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_sent_ahead_arrive_whole(data, tmp_path, workers):
    model = small_model()
    expected = plain(model, data, 16)
    found = extract(model, data, tmp_path / "s", ExtractSettings(batch_size=16, shard_rows=40, workers=workers, device="cuda"))
    assert relative(found.load().features, expected) <= 1e-3  # TF32
    assert found.load().indices.tolist() == list(range(100))

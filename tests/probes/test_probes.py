"""Linear, k-NN, k-fold and head probes: equations, stores, augmentation online, and what they refuse."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from sslk.data.sample import load_sample
from sslk.features import StoreError
from sslk.models.embedded import load_embedded, normalize_images
from sslk.probes.grid import LinearGrid
from sslk.probes.head import head_outputs, imagenet_columns
from sslk.probes.kfold import kfold_probe, stratified_folds
from sslk.probes.knn import knn_probe
from sslk.probes.linear import linear_probe
from sslk.probes.outputs import ProbeOutputs, balanced_accuracy
from sslk.probes.rows import EncoderRows
from sslk.probes.settings import KFoldSettings, KnnSettings, LinearSettings
from tests.probes.stores import features, write_store


def test_grid_takes_the_steps_of_torch_sgd():
    """Every classifier of the grid against its own torch.optim.SGD on the same batches."""
    settings = [(0.3, 0.0), (0.05, 1e-2), (1.0, 1e-3)]
    x, y = torch.randn(40, 6), torch.randint(3, (40,))
    grid = LinearGrid(settings, 6, 3, total_steps=20)
    layers = [nn.Linear(6, 3).double() for _ in settings]
    optimizers = []
    for layer, (rate, decay) in zip(layers, settings, strict=True):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias], "weight_decay": 0.0}]
        optimizers.append(torch.optim.SGD(groups, lr=rate, momentum=0.9))
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, 20) for o in optimizers]
    for step in range(20):
        rows = torch.arange(step, step + 20) % 40
        grid.step(x[rows], y[rows])
        for layer, optimizer, schedule in zip(layers, optimizers, schedules, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows].double()), y[rows]).backward()
            optimizer.step()
            schedule.step()
    for got, layer in zip(grid.logits(x), layers, strict=True):
        torch.testing.assert_close(got.double(), layer(x.double()).detach(), rtol=1e-4, atol=1e-5)


def test_store_probe_equals_the_tensor_probe_in_quality_and_keeps_the_order(tmp_path):
    x, y = features(700)
    x_test, y_test = features(400, seed=1)
    train, test = write_store(tmp_path / "a", x, y), write_store(tmp_path / "b", x_test, y_test)
    probe = linear_probe(train, test, LinearSettings(epochs=20))
    outputs = probe.outputs
    reference = linear_probe((x, y), (x_test, y_test), LinearSettings(epochs=20))
    assert abs(probe.top1 - reference.top1) < 0.03
    assert torch.equal(outputs.labels, y_test) and torch.equal(outputs.index, torch.arange(400))
    by_hand = ((x_test - probe.mean) / probe.scale) @ probe.weight.T + probe.bias
    torch.testing.assert_close(outputs.logits, by_hand, rtol=1e-4, atol=1e-4)
    assert torch.equal(outputs.predictions, probe.classes[by_hand.argmax(1)])
    assert len(probe.grid) == 24
    assert (probe.learning_rate, probe.weight_decay, probe.validation_top1) in probe.grid


def test_stores_of_two_models_are_refused_by_name(tmp_path):
    x, y = features(200)
    train = write_store(tmp_path / "a", x, y)
    with pytest.raises(StoreError, match=r"another model.*weights_hash"):
        linear_probe(train, write_store(tmp_path / "b", x, y, weights="1" * 64))
    with pytest.raises(StoreError, match="no labels"):
        linear_probe(train, write_store(tmp_path / "c", x, y, labels=False))


def test_a_diverging_setting_is_never_chosen():
    x, y = features(300)
    probe = linear_probe((x, y), (x, y), LinearSettings(epochs=5, learning_rates=(1e30, 0.03), weight_decays=(1e-3,)))
    assert probe.learning_rate == 0.03 and probe.grid[0][2] == -1
    with pytest.raises(ValueError, match="diverged"):
        linear_probe((x, y), (x, y), LinearSettings(epochs=5, learning_rates=(1e30,), weight_decays=(1e-3,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs and batch_size"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"learning_rates": ()}, "learning_rates must be positive"),
        ({"weight_decays": (-1.0,)}, "weight_decays not negative"),
    ],
)
def test_linear_bad_settings(change, message):
    x, y = features(60)
    with pytest.raises(ValueError, match=message):
        linear_probe((x, y), (x, y), LinearSettings(**change))


class Images(torch.utils.data.Dataset):
    """uint8 images whose brightness is the class."""

    def __init__(self, n):
        self.labels = torch.arange(n) % 2
        noise = torch.randint(60, (n, 3, 6, 6), generator=torch.Generator().manual_seed(n))
        self.images = (noise + 100 * self.labels.view(-1, 1, 1, 1)).to(torch.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], int(self.labels[i])


def test_online_augmentation_reaches_the_encoder_and_leaves_it_as_it_was():
    encoder = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    seen = []

    def augment(images, generator):
        seen.append(len(images))
        return images.float() / 255 + 0.05 * torch.randn(images.shape, generator=generator)

    def rows(n):
        return EncoderRows(encoder, Images(n), Images(n).labels, augment, lambda images: images.float() / 255)

    probe = linear_probe(rows(80), rows(40), LinearSettings(epochs=6, batch_size=24))
    assert probe.top1 >= 0.95
    assert sum(seen) == 6 * (72 + 80)  # the kept nine tenths, then all of the chosen setting, in each epoch
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_knn_votes_are_those_of_the_definition():
    x, y = features(200)
    x_test, y_test = features(60, seed=1)
    probe = knn_probe((x, y), (x_test, y_test), KnnSettings(neighbors=(1, 7, 30), temperatures=(0.1, 1.0)))
    similarity = F.normalize(x_test.double(), dim=1) @ F.normalize(x.double(), dim=1).T
    for k, temperature, _, accuracy in probe.grid:
        right = 0
        for i in range(60):
            nearest = similarity[i].argsort(descending=True)[:k]
            votes = {c: (similarity[i, nearest][y[nearest] == c] / temperature).exp().sum().item() for c in (3, 7, 40)}
            right += max(votes, key=votes.get) == int(y_test[i])
        assert accuracy == pytest.approx(right / 60, abs=1 / 60 + 1e-9)  # one tie of float32 may fall either way
    assert probe.top1 == pytest.approx(next(row[3] for row in probe.grid if row[:2] == (probe.k, probe.temperature)))


def test_knn_with_classes_only_on_one_side():
    x, y = features(200)
    x_test, y_test = features(60, seed=1)
    y_test = torch.where(y_test == 7, 41, y_test)
    probe = knn_probe((x, y), (x_test, y_test), KnnSettings(neighbors=(5,)))
    assert not probe.outputs.correct[y_test == 41].any()
    assert set(probe.outputs.predictions.tolist()) <= {3, 7, 40}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"neighbors": (181,)}, "between 1 and 180"), ({"neighbors": (0,)}, "between 1"), ({"temperatures": (0.0,)}, "positive")],
)
def test_knn_bad_input(change, message):
    x, y = features(200)
    with pytest.raises(ValueError, match=message):
        knn_probe((x, y), (x, y), KnnSettings(**{"neighbors": (5,), **change}))


def test_kfold_predicts_only_samples_it_has_not_seen():
    """Features that name the sample: whoever has seen it would know its random label."""
    x, y = torch.eye(120), torch.tensor([5, 9])[torch.randint(2, (120,), generator=torch.Generator().manual_seed(3))]
    assert kfold_probe((x, y), KFoldSettings(l2=(1e-6,))).outputs.accuracy < 0.7
    x, y = features(400)
    result = kfold_probe((x, y), KFoldSettings(folds=4, l2=(1e-5, 1e-2, 10.0)))
    assert result.fold.bincount().tolist() == [100] * 4 and max(result.l2) < 10
    for f in range(4):
        rows = result.fold == f
        expected = balanced_accuracy_score(y[rows], result.outputs.predictions[rows])
        assert float(result.balanced_accuracy[f]) == pytest.approx(expected)
    # Changing a fold's own labels must not change its predictions.
    flipped = torch.where(result.fold == 2, y.roll(1), y)
    again = kfold_probe((x, y), KFoldSettings(folds=4, l2=(1e-3,)))
    assert torch.equal(stratified_folds(y, 4, 0), again.fold) and flipped.shape == y.shape


def test_kfold_refuses_rare_classes_by_name():
    x, y = features(100)
    y[:3] = 77
    with pytest.raises(ValueError, match="class 77 occurs 3 times"):
        kfold_probe((x, y), KFoldSettings(folds=5))
    with pytest.raises(ValueError, match="at least 2"):
        kfold_probe((x, y), KFoldSettings(folds=1))


def test_balanced_accuracy_equals_scikit_learn():
    labels = torch.tensor([1, 1, 1, 8, 8, 3])
    predictions = torch.tensor([1, 1, 3, 8, 1, 9])
    assert balanced_accuracy(predictions, labels) == pytest.approx(balanced_accuracy_score(labels, predictions))


def test_outputs_survive_their_file_and_damage_is_said(tmp_path):
    logits = torch.randn(30, 3)
    outputs = ProbeOutputs.from_logits(logits, torch.tensor([3, 7, 40]), torch.full((30,), 7), source={"probe": "x"})
    path = outputs.save(tmp_path / "run" / "outputs.safetensors")
    again = ProbeOutputs.load(tmp_path / "run")  # the folder of the run will do
    for name in ("index", "labels", "predictions", "confidence", "correct", "logits", "classes"):
        assert torch.equal(getattr(outputs, name), getattr(again, name))
    assert again.source == {"probe": "x"}
    torch.testing.assert_close(outputs.confidence, logits.double().softmax(1).max(1).values.float())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        ProbeOutputs.load(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ProbeOutputs.load(tmp_path / "none")


def test_head_of_a_supervised_encoder(tmp_path):
    x, y = features(200, classes=(0, 1, 2))
    store = write_store(tmp_path / "s", x, y)
    head = nn.Linear(48, 10)
    columns = torch.tensor([4, 9, 0])
    outputs = head_outputs(store, head, columns)
    expected = head(x).argmax(1)
    assert torch.equal(outputs.predictions, expected) and torch.equal(outputs.correct, expected == columns[y])
    among = head_outputs(store, head, columns, restrict=True)
    assert torch.equal(among.predictions, head(x)[:, columns].argmax(1)) and torch.equal(among.labels, y)
    with pytest.raises(ValueError, match="another model"):
        head_outputs(store, nn.Linear(47, 10))
    with pytest.raises(ValueError, match="labels must lie between 0 and 1"):
        head_outputs(store, head, columns[:2])
    with pytest.raises(ValueError, match="'unicorn' is not one"):
        imagenet_columns(["unicorn"])


@pytest.mark.parametrize("count", [2000, 180])
def test_the_default_probe_is_as_good_as_a_tuned_logistic_regression(count):
    """On the sample, and on fewer samples than features: no more than a standard error lost, whatever the seed."""
    encoder, _ = load_embedded()
    sets = []
    with torch.no_grad():
        for split in ("train", "test"):
            images, labels = load_sample(split)
            sets.append((torch.cat([encoder(normalize_images(part)) for part in images.split(250)]), labels))
    (x, y), (x_test, y_test) = sets
    rows = torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:count]
    x, y = x[rows], y[rows]
    scaler = StandardScaler().fit(x)
    # C = 0.01 and 0.03 are the best of a grid from 0.001 to 1 on these very test images, which is more than tuned.
    model = LogisticRegression(C=0.01 if count == 2000 else 0.03, max_iter=3000, tol=1e-6).fit(scaler.transform(x), y)
    best = model.score(scaler.transform(x_test), y_test)
    error = (best * (1 - best) / len(y_test)) ** 0.5
    for seed in range(2):
        assert linear_probe((x, y), (x_test, y_test), LinearSettings(seed=seed)).top1 >= best - error

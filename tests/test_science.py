"""Do the numbers still say what they said? A miniature of examples/reproduce on the embedded encoder and sample.

Every band is centred on the value measured when the test was written. Its width covers what other processors, thread
counts and library versions change (the probe's optimisation, ties in k-means), not what a changed formula would: the
comments say what each band would notice. About 20 seconds of one core, and 2 for each packaged encoder.
"""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

import sslk
from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD
from sslk.data.sample import load_sample
from sslk.data.source import DataSource
from sslk.features.by_name import extract_by_name
from sslk.features.settings import ExtractSettings
from sslk.models.cifar_resnet import CifarResNet
from sslk.models.embedded import load_embedded
from sslk.models.project import project_encoders
from sslk.models.source import ModelSource
from sslk.probes.settings import LinearSettings
from sslk.quality.failure import baseline_scores
from sslk.reverse import KMeansSettings, quantize
from tests.bands import BANDS, probe_accuracy

ORIGINAL, CENTER, BORDER = 0, 3, 4


@dataclass(frozen=True)
class Encoded:
    """Both splits of the sample under the embedded encoder."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """By the path a user takes: data set by name, transform, extraction, store."""
    folder = tmp_path_factory.mktemp("science")
    rows = []
    for split in ("train", "test"):
        settings = ExtractSettings(workers=0)
        rows.append(extract_by_name(ModelSource("embedded"), DataSource("sample", split), folder / split, settings).load())
    return Encoded(rows[0].features, rows[0].labels, rows[1].features, rows[1].labels)


@pytest.fixture(scope="module")
def found(encoded):
    return sslk.discover(encoded.train, eps="auto")


@pytest.fixture(scope="module")
def probe(encoded):
    return sslk.linear_probe((encoded.train, encoded.train_labels), (encoded.test, encoded.test_labels), LinearSettings(seed=0))


@pytest.fixture(scope="module")
def failures(encoded, found, probe):
    scores = sslk.qscore(encoded.test, found).scores
    baselines = baseline_scores(encoded.test.norm(dim=1), encoded.test.amax(1), probe.logits)
    return {
        "Q-Score": sslk.failure_prediction(scores, probe.correct).qscore,
        **{name: sslk.failure_prediction(values, probe.correct).qscore for name, values in baselines.items()},
    }


@pytest.fixture(scope="module")
def similarity():
    """Debiased CKA of original, center and border of 500 images, under the embedded and an untrained encoder."""
    images = load_sample("test")[0][::2]
    parts = torch.ops.sslk.masked_variants(images, None, CIFAR10_MEAN, CIFAR10_STD, [ORIGINAL, CENTER, BORDER])
    torch.manual_seed(0)
    found = {}
    for name, encoder in {"trained": load_embedded()[0], "untrained": CifarResNet().eval()}.items():
        with torch.inference_mode():
            found[name] = torch.ops.sslk.cka_matrix(torch.stack([encoder(part) for part in parts]))
    return found


def within(value, centre, tolerance):
    assert centre - tolerance <= value <= centre + tolerance, f"{value:.4f} is not within {centre} ± {tolerance}"


def test_the_encoder_and_its_probe(probe):
    # A wrong mean or std, BGR for RGB, or BatchNorm left in train mode costs several points.
    within(probe.top1, 0.676, 0.02)


def test_every_packaged_encoder_has_a_band_of_its_own_weights():
    bands, entries = json.loads(BANDS.read_text()), project_encoders()
    told = {name: band["sha256"] for name, band in bands.items()}
    assert told == {name: entry.sha256 for name, entry in entries.items()}, "run python -m tests.bands"


@pytest.mark.parametrize("name", project_encoders())
def test_the_probe_of_a_packaged_encoder(name):
    # Weights that were read into other places, another normalisation or BatchNorm in train mode cost several points.
    within(probe_accuracy(f"project:{name}"), json.loads(BANDS.read_text())[name]["top1"], 0.02)


def test_the_set_of_discriminative_features(encoded, found):
    # A sample standard deviation for the population's, or another percentile rule, moves |S| or eps.
    assert found.eps == 2.75
    within(found.num_discriminative, 116, 4)
    within(found.mean_active, 5.53, 0.15)
    within(found.empty_share, 0.0150, 0.006)
    scores = sslk.qscore(encoded.test, found)
    within(scores.empty_share, 0.018, 0.006)
    within(scores.mean_active, 5.48, 0.15)
    within(float(scores.scores.mean()), 0.1556, 0.003)  # rows must be normalised, the mean subtracted


def test_failure_prediction(failures):
    # Reported in docs/measured.md. Bands are a third of the standard error over test samples, which do not change here.
    expected = {
        "Q-Score": (0.541, 0.713),
        "feature norm": (0.578, 0.743),
        "max feature": (0.578, 0.737),
        "confidence": (0.802, 0.901),
        "entropy": (0.794, 0.898),
        "energy": (0.746, 0.864),
    }
    assert set(failures) == set(expected)
    for name, (auroc, auprc) in expected.items():
        within(failures[name].auroc, auroc, 0.015)
        within(failures[name].auprc, auprc, 0.015)
    assert failures["confidence"].auroc > failures["max feature"].auroc > failures["Q-Score"].auroc > 0.5


def test_similarity_of_masked_variants(similarity):
    trained, untrained = similarity["trained"], similarity["untrained"]
    within(float(trained[0, 1]), 0.811, 0.01)  # original, center
    within(float(trained[0, 2]), 0.378, 0.01)  # original, border
    within(float(trained[1, 2]), 0.245, 0.01)  # center, border: no common pixel
    assert trained[0, 1] > trained[0, 2] > trained[1, 2]
    # Training is what tells the variants apart; random weights keep them alike.
    assert bool((untrained[[0, 0, 1], [1, 2, 2]] > trained[[0, 0, 1], [1, 2, 2]] + 0.05).all())


def test_clusters_know_the_labels_and_those_of_an_untrained_encoder_do_not(encoded):
    torch.manual_seed(0)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CIFAR10_MEAN, CIFAR10_STD))
    with torch.inference_mode():
        control = CifarResNet().eval()((load_sample("test")[0].float() / 255 - mean) / std)
    settings = KMeansSettings(clusters=10, clusterings=3, restarts=3)
    trained, untrained = (
        np.mean([normalized_mutual_info_score(encoded.test_labels, row) for row in quantize(features, settings).assignments])
        for features in (encoded.test, control)
    )
    within(trained, 0.301, 0.03)  # k-means depends on its starts
    within(untrained, 0.088, 0.03)

"""No probe loses more than its standard error by its defaults to scikit-learn's with a penalty chosen for the data."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sslk.data.source import DataSource
from sslk.features.by_name import extract_by_name
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource
from sslk.probes.batched import fit_linear_probes
from sslk.probes.kfold import kfold_probe
from sslk.probes.linear import linear_probe
from sslk.probes.settings import KFoldSettings
from sslk.quality.settings import CompressionSettings
from sslk.quality.subsets import compression


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Features of the embedded encoder on its sample: 2,000 and 1,000 images, D = 256."""
    place = tmp_path_factory.mktemp("sample")
    return [
        extract_by_name(ModelSource("embedded"), DataSource("sample", split), place / split, ExtractSettings(workers=0)).load()
        for split in ("train", "test")
    ]


def tuned(x, y, test, labels):
    """Accuracy of logistic regression with the C that a fifth of the training rows prefer."""
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x, test = ((x - mean) / std).numpy(), ((test - mean) / std).numpy()
    cut = int(0.8 * len(x))
    scores = {
        c: LogisticRegression(C=c, max_iter=300).fit(x[:cut], y[:cut]).score(x[cut:], y[cut:]) for c in 10.0 ** np.arange(-4, 2)
    }
    return LogisticRegression(C=max(scores, key=scores.get), max_iter=300).fit(x, y).score(test, labels)


@pytest.mark.parametrize("rows", [2000, 230], ids=["N > D", "N < D"])
def test_defaults_lose_no_more_than_a_standard_error(sample, rows):
    train, test = sample
    chosen = torch.randperm(len(train.features), generator=torch.Generator().manual_seed(0))[:rows]
    x, y = train.features[chosen].float(), train.labels[chosen]
    queries, labels = test.features.float(), test.labels
    best = tuned(x, y, queries, labels)
    least = best - (best * (1 - best) / len(labels)) ** 0.5
    found = {
        "linear": linear_probe((x, y), (queries, labels)).top1,
        "batched": float(fit_linear_probes(x, y).accuracy(queries, labels)[0]),
        "compression": float(
            compression(
                (x, y), (queries, labels), torch.rand(256), CompressionSettings(selections=("random",), reductions=(0,), seeds=2)
            ).top1.mean()
        ),
    }
    assert all(value >= least for value in found.values()), (best, least, found)


def test_folds_choose_their_penalty(sample):
    train, _ = sample
    x, y = train.features[:1000].float(), train.labels[:1000]
    by_default, fixed = (
        float(kfold_probe((x, y), KFoldSettings(l2=l2)).balanced_accuracy.mean()) for l2 in ((1e-4, 3e-3, 3e-2, 3e-1), (1e-4,))
    )
    assert float(kfold_probe((x, y)).balanced_accuracy.mean()) == by_default > fixed + 0.02

"""Small feature stores with a known structure, for the tests of probes and Q-Score studies."""

import torch

from sslk.features import FeatureStore, StoreSpec, StoreWriter


def features(n, d=48, classes=(3, 7, 40), seed=0, signed=False):
    """Clusters with non-contiguous labels; non-negative unless signed."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(classes), d, generator=torch.Generator().manual_seed(9))
    target = torch.randint(len(classes), (n,), generator=generator)
    x = 0.6 * centres[target] + torch.randn(n, d, generator=generator)
    return (x if signed else torch.relu(x)), torch.tensor(classes)[target]


def write_store(folder, x, y, *, model="m", weights="0" * 64, dataset="d", signed=False, labels=True, names=()):
    spec = StoreSpec(
        model,
        weights,
        dataset,
        "0" * 64,
        "none",
        samples=len(x),
        num_features=x.shape[1],
        labels=labels,
        signed=signed,
        shard_rows=150,
        classes=names,
    )
    with StoreWriter(folder, spec) as writer:
        for number, rows in enumerate(torch.arange(len(x)).split(150)):
            writer.write(number, x[rows], y[rows] if labels else None, rows)
    return FeatureStore(folder)

"""Small stores, and codes of them."""

import torch

from sslk.features import store_import
from sslk.features.importing.settings import ImportSettings

SPARSE_WIDTH, ATOMS, ACTIVE = 24, 40, 3


def signed_rows(count=400, width=16, seed=0):
    """Signed features of three classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    centres = torch.randn(3, width, generator=torch.Generator().manual_seed(99))
    return 0.7 * centres[labels] + torch.randn(count, width, generator=generator), labels


def store_of(folder, x, labels=None, *, model="mine", shard_rows=100, **more):
    return store_import(x, folder, ImportSettings(model=model, shard_rows=shard_rows), labels=labels, **more)


def sparse_rows(count=4000, seed=0):
    """Sums of 3 of 40 unit vectors in 24 dimensions with positive weights, and the vectors."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, SPARSE_WIDTH, generator=generator))
    places = torch.rand(count, ATOMS, generator=generator).topk(ACTIVE).indices
    weights = torch.zeros(count, ATOMS).scatter(1, places, 0.5 + torch.rand(count, ACTIVE, generator=generator))
    return weights @ atoms, atoms

"""Networks that several test files write into checkpoints."""

import pytest
from small_networks import randomised, small_resnet
from torch import nn


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return randomised(small_resnet(), 0)


@pytest.fixture(scope="module")
def momentum() -> nn.Module:
    return randomised(small_resnet(), 1)

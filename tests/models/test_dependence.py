"""The identity of a network: the weights that its representation depends on, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslk.models import Backbone, load_backbone


class Branched(nn.Module):
    """A trunk, a path whose output is thrown away, and a layer that is never called."""

    def __init__(self, without_gradient: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.adapter = nn.Linear(12, 5), nn.Linear(5, 5)
        self.without_gradient = without_gradient
        torch.seed()
        self.thrown_away, self.never_called = nn.Linear(5, 4), nn.BatchNorm1d(3)
        nn.init.normal_(self.never_called.weight)

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.without_gradient):
            hidden = self.trunk(images.flatten(1))
        self.thrown_away(hidden)
        return self.adapter(hidden)


def backbone(net: nn.Module) -> Backbone:
    return Backbone(net, name="net", input_size=(2, 2))


def test_what_the_representation_does_not_use_is_no_part_of_the_identity() -> None:
    first, second = backbone(Branched()), backbone(Branched())
    assert not torch.equal(first.net.thrown_away.weight, second.net.thrown_away.weight)
    assert first.weights_hash == second.weights_hash
    with torch.no_grad():
        second.net.trunk.weight[0, 0] += 1e-3
    assert first.weights_hash != second.weights_hash


def test_weights_behind_no_grad_are_part_of_it() -> None:
    """Differentiation does not reach the trunk; what it puts out is used all the same."""
    first, second = backbone(Branched(without_gradient=True)), backbone(Branched(without_gradient=True))
    with torch.no_grad():
        second.net.trunk.weight[0, 0] += 1e-3
    assert first.weights_hash != second.weights_hash


def test_finding_out_leaves_the_network_as_it_was() -> None:
    net = Branched().eval()
    net.trunk.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    backbone(net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [p.requires_grad for p in net.trunk.parameters()] == [False, False]
    assert all(p.grad is None for p in net.parameters())


def test_a_classifier_of_transformers_keeps_its_identity(tmp_path: Path) -> None:
    """Its file has no pooler, so that transformers draws one at random at each load."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    hashes = set()
    for seed in range(2):
        torch.manual_seed(seed)
        loaded = load_backbone(f"hf:{tmp_path}", "pretrained")
        hashes.add(loaded.weights_hash)
    assert len(hashes) == 1

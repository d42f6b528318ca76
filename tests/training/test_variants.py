"""What the paper leaves open, each a setting: alpha as a quantile, raw rows, another eps, and S found again every epoch."""

import numpy as np
import pytest
import torch

import sslk
from sslk.data import load_dataset
from sslk.models import as_backbone
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.config import TrainingConfig
from sslk.training.module import TrainingModule
from sslk.training.refind import FindSetAgain
from sslk.training.run import Carrying, train
from tests.ops import oracle
from tests.training.small import FEATURES, small_config, small_encoder, small_images, small_method, small_set, small_views


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("quantile", [0.25, 1.0])
def test_penalty_with_a_quantile_and_raw_rows_is_the_equations(quantile, normalize):
    """Value and gradient in float64 against the equations written row by row, and by central differences."""
    generator = torch.Generator().manual_seed(0)
    h = torch.relu(torch.randn(40, FEATURES, generator=generator, dtype=torch.float64)).requires_grad_()
    mask = small_set().mask
    regularizer = sslk.QScoreRegularizer(mask, 0.3, 0.02, eps=0.5, normalize=normalize, alpha_quantile=quantile)
    rows = h.detach() if not normalize else h.detach() / h.detach().norm(dim=1, keepdim=True)
    q = oracle.scores(h, mask, 0.5, normalize).numpy()
    c = rows.abs().sum(0).numpy()
    alpha = np.quantile(q, quantile)
    value = regularizer(h)
    assert value.item() == pytest.approx(oracle.penalty(q, c, 0.3, 0.02, alpha, c.mean()), rel=1e-9)
    assert regularizer.threshold(regularizer.last_scores).item() == pytest.approx(alpha)
    value.backward()
    fixed = sslk.QScoreRegularizer(mask, 0.3, 0.02, eps=0.5, normalize=normalize, alpha=float(alpha), beta=float(c.mean()))
    for i, j in [(0, 3), (7, 20), (31, 11)]:
        step = torch.zeros_like(h).index_put((torch.tensor(i), torch.tensor(j)), torch.tensor(1e-6, dtype=torch.float64))
        with torch.no_grad():
            slope = (fixed(h + step) - fixed(h - step)) / 2e-6
        assert h.grad[i, j].item() == pytest.approx(slope.item(), abs=1e-7)


def test_settings_reach_the_penalties_of_both_arms(tmp_path):
    h = torch.relu(torch.randn(24, FEATURES, generator=torch.Generator().manual_seed(1)))
    config = small_config(alpha_quantile=0.2, normalize=False, lasso=0.5)

    class Trainer:
        world_size = 1

    def penalty(arm):
        module = TrainingModule(small_method("simsiam"), torch.nn.Identity(), arm, config, 1, tmp_path, small_set())
        module._trainer = Trainer()
        return module._penalty(h).item()

    q, c = oracle.scores(h, small_set().mask, 0.5, False).numpy(), h.double().abs().sum(0).numpy()
    assert penalty("qscore") == pytest.approx(oracle.penalty(q, c, 0.1, 1e-3, np.quantile(q, 0.2), c.mean()), rel=1e-5)
    assert penalty("lasso") == pytest.approx(0.5 * c.sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha_quantile": 0.0}, "alpha_quantile must lie between 0 and 1"),
        ({"alpha_quantile": 0.5, "alpha": 0.1}, r"without a fixed alpha, got 0.5 and 0.1"),
        ({"eps": -1.0}, "eps must be zero or positive, or 'auto', got -1.0"),
        ({"eps": "four"}, "got 'four'"),
        ({"refind_every": -1}, "refind_every must not be negative, got -1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def sample_images(count=48):
    return load_dataset("sample", "train").subset(torch.arange(0, 2000, 2000 // count)[:count])


def again(found, every):
    return FindSetAgain(sample_images(), as_backbone(small_encoder()), found, every)


def test_set_found_again_is_that_of_the_encoder_in_evaluation_mode():
    callback = again(small_set(), 3)
    net = small_method("simclr").backbone.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = callback.find(net, torch.device("cpu"))
    assert net.training and all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # batch statistics too
    with torch.no_grad():
        h = net.eval()(torch.stack([callback.images[i][0] for i in range(48)]))
    active = oracle.active_set(h, 0.5).sum(0)
    expected = DiscriminativeFeatures.from_counts(active, 48, eps=0.5, lower=30, upper=90)
    assert torch.equal(found.mask, expected.mask) and found.num_samples == 48 and found.eps == 0.5


@pytest.mark.parametrize("stops", [[1], [2], [1, 2]])
def test_stopping_and_going_on_finds_the_same_sets(tmp_path, stops):
    """The set is found at the first step of epochs 1 and 2 (steps 3 and 6); runs stop before and after those."""
    torch.set_num_threads(1)
    config, images, ends = small_config(checkpoint_every=2), small_images(), []
    for folder, parts in ((tmp_path / "whole", [None]), (tmp_path / "parts", [*stops, None])):
        for stop in parts:
            method, callback = small_method("moco"), again(small_set(), 2 if stops == [2] else 3)
            carrying = Carrying(stop_epoch=stop, trainer_options={"callbacks": [callback]})
            train(method, small_views(images, config), folder, config, "qscore", small_set(), carrying)
        state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
        ends.append({**method.state_dict(), "set": state["regularizer.discriminative"]})
    assert not torch.equal(ends[0]["set"], small_set().mask)  # another set was found
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name


def test_a_set_kept_gives_other_weights_than_one_found_again(tmp_path):
    config, weights = small_config(lambda1=10.0), []
    for every in (3, 100):
        method = small_method("simclr")
        options = {"callbacks": [again(small_set(), every)]}
        carrying = Carrying(trainer_options=options)
        train(method, small_views(small_images(), config), tmp_path / str(every), config, "qscore", small_set(), carrying)
        weights.append(method.backbone[0].weight)
    assert not torch.equal(*weights)

"""The eight methods: their gradients, their states between steps, their heads from checkpoints, the arms' penalties."""

import warnings

import pytest
import torch
from lightly.models.modules.heads import MoCoProjectionHead
from torch import nn

from sslk.models import read_checkpoint
from sslk.training.checkpoints import save_method
from sslk.training.config import ARMS, TrainingConfig
from sslk.training.heads import build_method
from sslk.training.methods import METHODS, MomentumMethod
from sslk.training.methods.swav import SwAV
from sslk.training.optimizer import build_optimizer
from sslk.training.run import Carrying, train
from sslk.training.transforms import image_transform
from sslk.training.views import Batches, ImageViews
from tests.ops import oracle
from tests.training.small import (
    FEATURES,
    OPTIONS,
    small_config,
    small_encoder,
    small_images,
    small_method,
    small_set,
    small_views,
    train_small,
)


def two_views(count=8, size=16):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 3, size, size, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_gradient_reaches_what_is_trained_and_nothing_else(name):
    method = small_method(name)
    loss, h = method(two_views())
    assert loss.shape == () and h.shape == (16, FEATURES)
    (loss + h.sum()).backward()
    for key, parameter in method.named_parameters():
        momentum = "_momentum" in key
        assert parameter.requires_grad == (not momentum and "weight_g" not in key), key
        assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize("name", METHODS)
def test_loss_does_not_depend_on_which_view_is_first(name):
    """Both views have the same part in every method, so the penalty's two halves see the same kind of rows."""
    views = two_views()
    method, swapped = small_method(name), small_method(name)
    torch.testing.assert_close(method(views)[0], swapped(views[::-1])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if issubclass(cls, MomentumMethod)])
def test_momentum_copy_follows_slowly_and_ends_at_its_schedule(name):
    method = small_method(name)
    before = method.backbone_momentum[0].weight.clone()
    with torch.no_grad():
        method.backbone[0].weight.add_(1.0)
    method.after_step(0, 10)
    moved = method.backbone_momentum[0].weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - method.momentum), rtol=1e-2, atol=0)
    method.after_step(9, 10)
    again = method.backbone_momentum[0].weight - before - moved
    expected = (1 - method.final_momentum) * (1 - moved)
    torch.testing.assert_close(again, expected, rtol=1e-2, atol=1e-6)


def test_moco_takes_no_key_of_the_batch_as_a_negative():
    method, views = small_method("moco"), two_views()
    queue = method.criterion.memory_bank.bank.clone()
    loss, h = method(views)
    q = nn.functional.normalize(method.projection_head(h), dim=1)
    k = nn.functional.normalize(method.targets(views[::-1]), dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.2
    expected = nn.functional.cross_entropy(logits, torch.zeros(16, dtype=torch.long))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert "criterion.memory_bank.bank" in method.state_dict()


def test_swav_prototypes_stay_frozen_and_on_the_sphere():
    method = SwAV(small_encoder(), FEATURES, 16, 8, 12, frozen_steps=1)
    method(two_views())[0].backward()
    method.before_step(0)
    assert all(p.grad is None for p in method.prototypes.parameters())
    method.zero_grad()
    method(two_views())[0].backward()
    method.before_step(1)
    assert all(p.grad is not None for p in method.prototypes.parameters())
    with torch.no_grad():
        method.prototypes.heads[0].weight.mul_(3)
    method.after_step(1, 2)
    torch.testing.assert_close(method.prototypes.heads[0].weight.norm(dim=1), torch.ones(12))


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_local_crops_enter_the_loss_and_not_the_representations(name):
    method, views = small_method(name), two_views()
    local = [torch.randn(8, 3, 8, 8) for _ in range(2)]
    loss, h = method([*views, *local])
    assert h.shape == (16, FEATURES) and loss != small_method(name)(views)[0]


@pytest.mark.parametrize("name", METHODS)
def test_heads_come_back_from_a_file(tmp_path, name):
    """Under another encoder and seed: everything is the file's, widths included."""
    method = train_small(name, tmp_path / "run", epochs=1)
    save_method(method, tmp_path / "m.safetensors", {"method": name})
    checkpoint = read_checkpoint(tmp_path / "m.safetensors")
    encoder = small_encoder(seed=1)
    encoder.load_state_dict(checkpoint.backbone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, fresh = build_method(name, encoder, FEATURES, checkpoint.parts, seed=5)
    assert not fresh
    for key, value in method.state_dict().items():
        assert torch.equal(again.state_dict()[key], value) or key.endswith("num_batches_tracked"), key


def test_heads_of_other_code_bases_are_matched_by_order(tmp_path):
    """MoCo's own files number the projector `fc.0`, `fc.2`."""
    head = MoCoProjectionHead(FEATURES, 20, 6)
    fc = {f"{number}.{kind}": getattr(head.layers[number], kind) for number in (0, 2) for kind in ("weight", "bias")}
    torch.save(
        {
            "state_dict": {f"module.encoder_q.fc.{key}": value for key, value in fc.items()}
            | {f"module.encoder_q.{key}": value for key, value in small_encoder().state_dict().items()}
        },
        tmp_path / "moco.pth",
    )
    parts = read_checkpoint(tmp_path / "moco.pth").parts
    method, fresh = build_method("moco", small_encoder(), FEATURES, parts, {"queue_size": 8})
    assert not fresh
    for copy in (method.projection_head, method.projection_head_momentum):
        assert torch.equal(copy.layers[2].weight, head.layers[2].weight)


@pytest.mark.parametrize(
    ("name", "missing"), [("byol", "prediction_head"), ("swav", "prototypes"), ("simsiam", "prediction_head")]
)
def test_missing_head_is_said_at_the_start(name, missing):
    parts = {"projector": small_method(name).projection_head.state_dict()}
    options = {key: value for key, value in OPTIONS[name].items() if key in ("prototypes", "prediction_dim")}
    with pytest.warns(UserWarning, match=f"{name} needs {missing}, which the checkpoint does not hold"):
        _, fresh = build_method(name, small_encoder(), FEATURES, parts, options)
    assert fresh == [missing]


def test_head_warm_up_leaves_the_encoder_alone(tmp_path):
    config, images, method = small_config(epochs=1), small_images(), small_method("byol")
    before = {key: value.clone() for key, value in method.state_dict().items()}
    train(method, small_views(images, config), tmp_path, config, carrying=Carrying(frozen=True))
    after = method.state_dict()
    encoder = [key for key in before if key.startswith("backbone.")]
    assert all(torch.equal(before[key], after[key]) for key in encoder)  # running statistics of batch norm too
    assert not torch.equal(before["prediction_head.layers.0.weight"], after["prediction_head.layers.0.weight"])
    assert all(p.requires_grad for p in method.backbone.parameters())


def test_an_encoder_that_was_loaded_for_evaluation_trains_in_training_mode(tmp_path):
    config, images, method = small_config(epochs=1), small_images(), small_method("byol")
    method.eval()
    before = method.backbone[1].running_mean.clone()
    train(method, small_views(images, config), tmp_path, config)
    assert not torch.equal(method.backbone[1].running_mean, before)
    assert not torch.equal(method.backbone_momentum[1].running_mean, before)


def test_arms_see_the_same_batches_and_differ_by_their_penalty(tmp_path):
    logs = {}
    for arm in ARMS:
        config, images, method = small_config(epochs=1, lasso=1e-3), small_images(), small_method("vicreg")
        logs[arm] = train(method, small_views(images, config), tmp_path / arm, config, arm, small_set())
    assert len({log[0]["loss"] for log in logs.values()}) == 1
    assert len({log[0]["mean_q"] for log in logs.values()}) == 1
    assert logs["baseline"][0]["penalty"] == 0 and logs["baseline"][0]["column_term"] > 0
    views = next(iter(Batches(48, 16, 1, 0, small_views(images, config))))
    h = small_method("vicreg")(small_views(images, config)(views))[1].detach().double()
    found = small_set()
    q, c = oracle.scores(h, found.mask, 0.5).numpy(), oracle.column_norms(h).numpy()
    assert logs["lasso"][0]["penalty"] == pytest.approx(1e-3 * c.sum(), rel=1e-4)
    expected = oracle.penalty(q, c, 0.1, 1e-3, q.mean(), c.mean())
    assert logs["qscore"][0]["penalty"] == pytest.approx(expected, rel=1e-3)
    assert logs["qscore"][0]["below_alpha"] == pytest.approx((q < q.mean()).mean())
    assert logs["qscore"][0]["column_l1_tail"] == pytest.approx(c[c > c.mean()].sum() / c.sum(), rel=1e-4)
    assert logs["qscore"][0]["mean_active"] == pytest.approx(oracle.active_set(h, 0.5).sum(1).double().mean().item())
    assert logs["qscore"][-1]["loss"] != logs["baseline"][-1]["loss"]


@pytest.mark.parametrize("weight_decay", [1e-6, 0.0])
def test_lars_scales_matrices_and_leaves_biases_and_norms_to_sgd(weight_decay):
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    optimizer = build_optimizer([module], "lars", 0.5, 0.0, weight_decay)
    before = [p.detach().clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    for p, old in zip(module.parameters(), before, strict=True):
        step = old - p.detach()
        if p.ndim > 1:  # trust coefficient 0.001 times |w| / |g|
            torch.testing.assert_close(step, 0.5 * 0.001 * old.norm() / p.grad.norm() * p.grad, rtol=1e-3, atol=1e-8)
        else:
            torch.testing.assert_close(step, 0.5 * p.grad)


class _Images(torch.utils.data.Dataset):
    def __init__(self):
        from PIL import Image

        self.images = [Image.fromarray(i.permute(1, 2, 0).numpy()).resize((72, 72)) for i in small_images(12)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], 0


@pytest.mark.parametrize("name", ["simclr", "swav"])
def test_views_of_large_images_depend_on_neither_workers_nor_ranks_nor_where_they_begin(name):
    transform = image_transform(name, 32, (0.5,) * 3, (0.5,) * 3, 2 if name == "swav" else 0)

    def batches(workers=0, start=0, rank=0, world=1):
        stream = Batches(12, 4, 2, 0, ImageViews(_Images(), transform, workers), rank, world)
        stream.load_state_dict({"position": start})
        return list(stream)

    state = torch.get_rng_state()
    whole = batches()
    assert torch.equal(state, torch.get_rng_state())  # the caller's random numbers are left alone
    assert len(whole) == 6 and len(whole[0]) == (4 if name == "swav" else 2)
    for other, mine in ((batches(start=4), whole[4:]), (batches(workers=1), whole)):
        assert all(torch.equal(a, b) for x, y in zip(other, mine, strict=True) for a, b in zip(x, y, strict=True))
    halves = [batches(rank=rank, world=2) for rank in range(2)]
    for i, batch in enumerate(whole):
        for v, view in enumerate(batch):
            assert torch.equal(view[0::2], halves[0][i][v]) and torch.equal(view[1::2], halves[1][i][v])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"lambda1": -1e-4}, "lambda1 must be zero or positive, got -0.0001"),
        ({"lambda2": float("nan")}, "lambda2 must be zero or positive, got nan"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"optimizer": "adam"}, "optimizer must be lars or sgd, got 'adam'"),
        ({"warmup_share": 2.0}, "warmup_share must lie between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 16, 1, 0, None), r"at least one batch of 16 images over 1 process\(es\), got 10 images"),
        ((10, 4, 1, 0, None, 0, 4), "each of 4 process.* at least 2, got 4"),
        ((10, 9, 1, 0, None, 0, 2), "each of 2 process.* the same number of images"),
    ],
)
def test_more_processes_than_images_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(*arguments)


def test_unknown_method_and_option_are_named():
    with pytest.raises(ValueError, match=r"method must be one of simclr, .* got 'simclear'"):
        build_method("simclear", small_encoder(), FEATURES)
    with pytest.raises(ValueError, match="byol has no 'hiden_dim', did you mean 'hidden_dim'"):
        build_method("byol", small_encoder(), FEATURES, options={"hiden_dim": 3})
    with pytest.raises(ValueError, match="local_views must be 0 for simclr"):
        image_transform("simclr", 32, (0.5,) * 3, (0.5,) * 3, 2)

"""The supervised control: crops as drawn, an epoch resumed is the epoch, held-out images train nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from examples.reproduce.compression import paired_points
from examples.reproduce.supervised import SupervisedConfig, read, shifted_crops, supervised
from sslk.models import load_backbone

TINY = SupervisedConfig(epochs=3, crop_epochs=2, batch_size=20)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), labels=np.arange(60) % 10)
    return tmp_path


@pytest.mark.parametrize("size", [24, 32])
def test_crops_are_parts_of_the_image_flipped_or_not(size):
    images = torch.arange(2 * 32 * 32).view(2, 1, 32, 32)
    wide = torch.nn.functional.pad(images.float(), (4, 4, 4, 4), mode="reflect") if size == 32 else images.float()
    flips = set()
    for seed in range(8):
        found = shifted_crops(images, size, torch.Generator().manual_seed(seed))
        for crop, source in zip(found.float(), wide, strict=True):
            places = [
                (flip, top, left)
                for flip in (False, True)
                for top in range(9)
                for left in range(9)
                if torch.equal(crop.flip(2) if flip else crop, source[:, top : top + size, left : left + size])
            ]
            assert places
            flips.add(places[0][0])
    assert flips == {False, True}


def test_a_killed_training_goes_on_to_the_same_network(data):
    whole = supervised(str(data / "a.npz"), str(data / "whole.safetensors"), TINY)

    def kill(done, total, stage):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervised(str(data / "a.npz"), str(data / "again.safetensors"), TINY, progress=kill)
    resumed = supervised(str(data / "a.npz"), str(data / "again.safetensors"), TINY)
    assert [log["loss"] for log in resumed] == [log["loss"] for log in whole]
    first, second = (load_backbone("cifar:compact", data / f"{name}.safetensors") for name in ("whole", "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.net.state_dict().values(), second.net.state_dict().values(), strict=True))
    assert not list(data.glob("*.pt"))  # the state between epochs goes when the file is there


def test_a_finished_training_is_not_done_again(data, monkeypatch):
    out = data / "a.safetensors"
    logs = supervised(str(data / "a.npz"), str(out), TINY)
    assert supervised(str(data / "a.npz"), str(out), replace(TINY, seed=1)) != logs  # another training takes its place
    logs = supervised(str(data / "a.npz"), str(out), TINY)
    monkeypatch.setattr("examples.reproduce.supervised.shifted_crops", None)  # nothing can be trained
    before = out.read_bytes()
    assert supervised(str(data / "a.npz"), str(out), TINY) == logs and out.read_bytes() == before


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own(data, monkeypatch):
    images = read(str(data / "a.npz"))[0]
    places = {image.numpy().tobytes(): place for place, image in enumerate(images)}
    seen = []

    def watched(batch, size, generator):
        seen.extend(places[image.numpy().tobytes()] for image in batch)
        return shifted_crops(batch, size, generator)

    monkeypatch.setattr("examples.reproduce.supervised.shifted_crops", watched)
    supervised(str(data / "a.npz"), str(data / "a.safetensors"), TINY)
    epochs = [seen[start : start + 60] for start in range(0, 180, 60)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3 and epochs[0] != sorted(epochs[0])


def test_held_out_images_train_nothing(data):
    config = SupervisedConfig(epochs=2, crop_epochs=1, batch_size=20, holdout=20)
    images, labels = read(str(data / "a.npz"))
    held = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:20]
    images[held] = 0  # other pixels, and what is trained on stays
    np.savez(data / "b.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    losses = [[log["loss"] for log in supervised(str(data / f"{n}.npz"), str(data / f"{n}.safetensors"), config)] for n in "ab"]
    assert losses[0] == losses[1]
    with safe_open(data / "a.safetensors", "pt") as file:
        about = file.metadata()
    assert about["images"] == "40" and "holdout_top1" in json.loads(about["log"])[0]
    with pytest.raises(ValueError, match="at most the 10 training images, got 20"):
        supervised(str(data / "a.npz"), str(data / "c.safetensors"), SupervisedConfig(batch_size=20, holdout=50))


def test_paired_intervals_are_those_of_the_mean_difference():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(draws, 500, generator=generator) < 0.7 for draws in (1, 4))
    difference = first.double().numpy().mean(0) - second.double().numpy().mean(0)
    error = difference.std(ddof=1) / 500**0.5
    expected = 100 * np.array([difference.mean(), difference.mean() - 1.96 * error, difference.mean() + 1.96 * error])
    assert paired_points(first, second) == pytest.approx(expected)
    # The same answers twice have no error, however uncertain either accuracy is.
    assert paired_points(first, first) == (0.0, 0.0, 0.0)

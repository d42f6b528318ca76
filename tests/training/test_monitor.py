"""The monitor's values against float64 oracles on what its queue holds, and the training that it leaves as it is."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import sslk
from sslk.training import Monitor, MonitorSettings
from sslk.training.monitor_queue import FeatureQueue
from tests.training.monitored import (
    BATCH,
    CLASSES,
    FEATURES,
    batches,
    encoder,
    expected,
    expected_alignment,
    expected_knn,
    expected_probe,
    probe_rows,
    train,
)

SETTINGS = MonitorSettings(every_n_steps=7, queue_length=64, k=5, num_classes=CLASSES, eps=1.0, probe_lr=0.01)
QUEUE, ASKS = 64, 16  # the newest eighth, and the rest of its batch


def short(values: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("monitor/"): value for name, value in values.items()}


def watched(net: nn.Module, monitor: Monitor, count: int = 7):
    """The steps' features and labels, and the values of the last step."""
    seen = train(net, batches(count), lambda h, y: (h, y, monitor.step(labels=y)))
    h = [np.concatenate([step[0][view].double().numpy() for step in seen]) for view in range(2)]
    return h, np.concatenate([step[1].numpy() for step in seen]), [short(step[2]) for step in seen]


def test_every_value_equals_the_float64_oracle_on_the_queue():
    net = encoder().train()
    monitor = Monitor(net, SETTINGS)
    (first, second), labels, values = watched(net, monitor)
    assert values[:6] == [{}] * 6 and monitor.rows[0]["step"] == 7
    rows, y = first[-QUEUE:], labels[-QUEUE:]
    wanted = expected(rows, 1.0)
    wanted["alignment"] = expected_alignment(rows, second[-QUEUE:])
    wanted["knn_top1"] = expected_knn(rows[:-ASKS], y[:-ASKS], rows[-ASKS:], y[-ASKS:], 5, 0.07)
    steps = list(zip(np.split(first, 7), np.split(labels, 7), strict=True))
    weight, hits = expected_probe(steps, 0.01)
    wanted["probe_top1"] = np.concatenate(hits)[-QUEUE:].mean()
    logits = probe_rows(rows) @ weight.T
    wanted["probe_loss"] = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(QUEUE), y])
    wanted |= {"rows": QUEUE, "nonfinite": 0}
    assert values[-1] == pytest.approx(wanted, rel=2e-5, abs=1e-7) and wanted["mean_qscore"] > 0
    assert 0.3 < wanted["probe_top1"] < 1


def test_the_probe_and_k_nn_learn():
    net = encoder().train()
    _, _, values = watched(net, Monitor(net, SETTINGS, every_n_steps=20, probe_lr=0.05, queue_length=512), 80)
    assert (
        values[-1]["probe_top1"] > 0.65 and values[-1]["knn_top1"] > 0.45 and values[-1]["probe_top1"] > values[19]["probe_top1"]
    )


class HeldOut(torch.utils.data.Dataset):
    """Draws from every global generator, as augmentations do."""

    def __init__(self, count: int = 48) -> None:
        self.x, self.y = (torch.cat(parts) for parts in zip(*batches(count // BATCH, 5), strict=True))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int):
        torch.rand(1), np.random.rand(), random.random()
        return self.x[index], self.y[index]


def test_values_of_images_that_are_held_out():
    net, images = encoder().train(), HeldOut()
    monitor = Monitor(net, SETTINGS, held_out=DataLoader(images, 20), target=1)
    (first, second), labels, values = watched(net, monitor)
    with torch.no_grad():
        h = net.eval()(images.x).double().numpy()
    wanted, y = expected(h, 1.0), images.y.numpy()
    wanted["alignment"] = expected_alignment(first[-QUEUE:], second[-QUEUE:])
    wanted["knn_top1"] = expected_knn(first[-QUEUE:], labels[-QUEUE:], h, y, 5, 0.07)
    weight, _ = expected_probe(list(zip(np.split(first, 7), np.split(labels, 7), strict=True)), 0.01)
    logits = probe_rows(h) @ weight.T
    wanted["probe_top1"] = np.mean(logits.argmax(1) == y)
    wanted["probe_loss"] = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(48), y])
    assert values[-1] == pytest.approx(wanted | {"rows": 48, "nonfinite": 0}, rel=2e-5, abs=1e-7)


@pytest.mark.parametrize("held_out", [False, True])
def test_the_training_is_the_same_with_and_without(held_out):
    """Weights, buffers, modes and random numbers: bit by bit."""
    ends = []
    for monitored in (False, True):
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        net = encoder().train()
        net[3].eval()  # a part that is frozen stays so
        loader = DataLoader(HeldOut(), 16, shuffle=True) if held_out else None
        after = lambda h, y: None  # noqa: E731
        if monitored:
            monitor = Monitor(net, SETTINGS, every_n_steps=2, held_out=loader, target=1)
            after = lambda h, y, monitor=monitor: monitor.step(labels=y)  # noqa: E731
        train(net, batches(7), after)
        assert [module.training for module in net] == [True, True, True, False] and net.training
        ends.append([*net.state_dict().values(), torch.rand(3), torch.tensor([np.random.rand(), random.random()])])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


class Waits(TorchDispatchMode):
    """Fails where the host would wait for the device: a value or a number of rows is read."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not any(
            part in name for part in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default")
        )
        return function(*args, **(kwargs or {}))


def test_no_step_between_evaluations_waits_for_the_device():
    net = encoder().train()
    monitor = Monitor(net, SETTINGS, every_n_steps=50)
    watched(net, monitor, 2)
    h, y = net(batches(1)[0][0]), batches(1)[0][1]
    with Waits():
        for _ in range(6):  # over the end of the ring
            monitor.step([h, h], y)
    with pytest.raises(AssertionError), Waits():
        monitor.evaluate()


def test_eps_of_the_first_evaluation_is_kept_and_a_given_set_is_used():
    net = encoder().train()
    monitor = Monitor(net, replace(SETTINGS, every_n_steps=4, eps="auto"))
    watched(net, monitor, 4)
    eps = monitor.set.eps
    features = monitor.queue.columns()["features"]
    assert eps == sslk.discover(features).eps and monitor.set.two_sided is False
    watched(net, monitor, 8)
    assert monitor.set.eps == eps
    found = sslk.discover(features, eps=1.25)
    given = Monitor(discriminative=found, queue_length=64)
    given.step(features)
    assert short(given.evaluate())["mean_qscore"] == pytest.approx(float(sslk.qscore(features, found).scores.mean()), rel=1e-6)
    signed = Monitor(queue_length=64)
    signed.step(torch.randn(64, 24))
    signed.evaluate()
    assert signed.set.two_sided is True


def test_rows_that_are_not_finite_or_unlabelled_are_left_out_and_counted():
    h, y = torch.rand(64, FEATURES).relu(), torch.arange(64) % CLASSES
    h[3, 2], h[9, 0], y[20] = torch.nan, torch.inf, -1
    second = h.flip(1)
    second[40, 7] = torch.nan
    monitor = Monitor(None, SETTINGS)
    monitor.step([h, second], y)
    values = short(monitor.evaluate())
    kept = h.isfinite().all(1)
    wanted = expected(h[kept].double().numpy(), 1.0)
    assert {name: values[name] for name in wanted} == pytest.approx(wanted, rel=2e-5, abs=1e-7)
    assert (values["rows"], values["nonfinite"]) == (62, 2) and np.isfinite(values["probe_loss"])
    assert (monitor.queue.columns()["hits"] == -1).nonzero().flatten().tolist() == [3, 9, 20]
    both = kept & second.isfinite().all(1)
    assert values["alignment"] == pytest.approx(expected_alignment(h[both].numpy(), second[both].numpy()), rel=1e-5)
    lost = Monitor(None, SETTINGS)
    lost.step(torch.full((32, 4), torch.nan), y[:32])
    assert short(lost.evaluate())["rows"] == 0 and all(np.isnan(lost.rows[0][f"monitor/{name}"]) for name in wanted)


@pytest.mark.parametrize("sizes", [(3, 3, 3), (10,), (8,), (5, 8), (2, 0, 7, 1, 30)])
def test_the_ring_holds_the_newest_rows(sizes):
    queue, rows = FeatureQueue(8), torch.arange(float(sum(sizes)))[:, None]
    for part in rows.split(list(sizes)):
        queue.push(part, labels=part.flatten().long())
    assert torch.equal(queue.columns()["features"], rows[-8:])
    assert torch.equal(queue.columns()["labels"], rows[-8:].flatten().long())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_queue_keeps_the_dtype(dtype):
    h = torch.rand(64, FEATURES).to(dtype)
    monitor = Monitor(None, SETTINGS, num_classes=0)
    monitor.step(h)
    assert monitor.queue.columns()["features"].dtype == dtype
    wanted = expected(h.double().numpy(), 1.0)
    values = short(monitor.evaluate())
    assert {name: values[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_an_evaluation_within_autocast_computes_in_full_precision():
    h, values = torch.rand(64, FEATURES), []
    for enabled in (False, True):
        monitor = Monitor(None, SETTINGS)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            monitor.step([h, h + 0.1], torch.arange(64) % CLASSES)
            values.append(monitor.evaluate())
    assert values[0] == values[1]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = encoder(), nn.Linear(FEATURES, 4)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: Monitor(Model(), input="encoder"), ValueError, "sub-module of Model, got 'encoder'; it has backbone, head"),
        (lambda: Monitor(encoder(), every=3), TypeError, "Monitor has no setting 'every'"),
        (lambda: Monitor(k=60, queue_length=64), ValueError, "k must be at most 56, the rows of a queue of 64 .* got 60"),
        (lambda: Monitor(queue_length=4), ValueError, "queue_length must be at least 16, got 4"),
        (lambda: Monitor(eps=-1.0), ValueError, "eps must be zero or positive, or 'auto', got -1"),
        (lambda: Monitor(loggers=[3]), TypeError, "loggers must be .* got int"),
        (lambda: Monitor(Model(), input="backbone").step(), ValueError, "input 'backbone' gave no representations in this step"),
        (lambda: Monitor().step(), ValueError, "the encoder gave no representations"),
        (lambda: Monitor(num_classes=3).step(torch.rand(4, 2)), ValueError, "labels must be given for the online probe, got"),
        (lambda: Monitor().step(torch.rand(4, 2), torch.zeros(3)), ValueError, "got 3 for 4 representations"),
        (lambda: Monitor().step(torch.rand(4, 2), torch.rand(4, 2)), ValueError, r"labels must be \[N\], .* got \[4, 2\]"),
        (lambda: Monitor().step(torch.zeros(4, dtype=torch.int64)), ValueError, r"representations \[N, D\], got \[4\]"),
        (lambda: [(m := Monitor()).step(torch.rand(4, 2)), m.step(torch.rand(4, 3))], ValueError, "D=2 features before and D=3"),
        (lambda: Monitor(discriminative=torch.ones(3) > 0).step(torch.rand(4, 2)), ValueError, "found for D=3 features"),
        (lambda: Monitor().evaluate(), ValueError, "evaluate needs representations"),
        (lambda: Monitor().run(), ValueError, "nothing was evaluated"),
    ],
)
def test_errors_are_one_sentence(act, error, message):
    with pytest.raises(error, match=message):
        act()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 2}, "num_classes must be above all labels, got 2 and a label 2"),
        ({"held_out": [(torch.rand(4, 12),)], "target": 1}, "target=1 must be where a batch has its labels"),
        ({"held_out": []}, "held_out must give at least one batch"),
    ],
)
def test_errors_of_an_evaluation(changes, message):
    net = encoder().train()
    with pytest.raises(ValueError, match=message):
        watched(net, Monitor(net, SETTINGS, **changes))

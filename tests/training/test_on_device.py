"""Training on a GPU, checked without one: who waits, what is copied, what a captured step computes."""

import itertools
import warnings

import pytest
import torch
from lightly.loss import DINOLoss, NTXentLoss, VICRegLoss
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import update_momentum
from lightly.utils.lars import LARS
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sslk.training.checkpoints import NonFiniteError
from sslk.training.config import ARMS, TrainingConfig
from sslk.training.methods import METHODS, MomentumMethod
from sslk.training.methods.base import in_float32
from sslk.training.methods.losses import CenteredDINO, NTXent, Queue, QueuedNTXent, VICRegCovariance
from sslk.training.module import TrainingModule
from sslk.training.optimizer import ForeachLARS
from sslk.training.run import Carrying, best_precision, train
from sslk.training.views import TensorViews
from tests.training.on_device import Stand, beside_the_graph, step_on_device, taped
from tests.training.small import small_config, small_images, small_method, small_set, small_views


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def counted(name="simsiam", arm="qscore", whole=False, **changes):
    config = small_config(log_every=10, channels_last=True, alpha=0.1, **changes)
    return step_on_device(small_method(name), small_views(small_images(), config), arm, config, small_set(), whole)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_on_the_device_waits_for_nothing_and_copies_nothing(name, arm):
    counts = counted(name, arm)
    assert counts.operations["convolution_backward"] and counts.operations["_foreach_add_"]  # the step was taken
    assert not counts.waits and not counts.transfers


@pytest.mark.parametrize("name", METHODS)
def test_nor_does_a_step_that_is_captured(name):
    counts = counted(name, whole=True, optimizer="sgd", local_views=2 if METHODS[name].multi_crop else 0)
    assert counts.total() and not counts.waits and not counts.transfers


def test_beside_a_graph_the_host_makes_the_batch_and_sets_three_numbers():
    config = small_config(log_every=10)
    counts = beside_the_graph(small_method("byol"), small_views(small_images(96), config), "qscore", config, small_set())
    assert not counts.waits
    assert counts.operations == {"rand": 2, "index": 4, "stack": 1, "copy_": 2, "fill_": 3} and not counts.transfers


def test_the_order_goes_to_the_device_once_per_epoch():
    config = small_config(log_every=100)
    for steps, copies in ((3, 0), (4, 1), (5, 0)):  # 3 batches are an epoch
        stand = Stand(small_method("simsiam"), small_views(small_images(), config), "baseline", config, None)
        assert stand.run(stand.plain, steps).transfers.total() == copies


def read_a_number(patch):
    losses = TrainingModule.losses
    patch.setattr(TrainingModule, "losses", lambda self, batch: (seen := losses(self, batch), seen.loss.item())[0])


def images_on_the_host(patch):
    patch.setattr(TensorViews, "device", torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "arm", "what", "kind"),
    [
        ("simsiam", "baseline", read_a_number, "waits"),
        ("simsiam", "baseline", images_on_the_host, "transfers"),
        ("simclr", "baseline", ("sslk.training.methods.simclr.NTXent", NTXentLoss), "waits"),
        ("vicreg", "baseline", ("sslk.training.methods.vicreg.VICRegCovariance", VICRegLoss), "waits"),
        ("moco", "baseline", ("sslk.training.methods.losses.Queue", MemoryBankModule), "waits"),
        ("simsiam", "baseline", ("sslk.training.optimizer.ForeachLARS", LARS), "waits"),
    ],
)
def test_the_counts_see_what_was_mended(monkeypatch, name, arm, what, kind):
    if callable(what):
        what(monkeypatch)
    else:
        monkeypatch.setattr(*what)
    assert getattr(counted(name, arm), kind).total()


class Reads(TorchDispatchMode):
    """Numbers that are read and masks that pick, on a CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if str(operation).split(".")[1] in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2"):
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.fixture
def like_a_gpu(monkeypatch):
    """Losses are looked at in logged steps and at checkpoints alone."""
    start = TrainingModule.on_train_start

    def on_train_start(self):
        start(self)
        self.looks_always = False

    monkeypatch.setattr(TrainingModule, "on_train_start", on_train_start)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_training_loop_around_the_steps_reads_no_number(tmp_path, like_a_gpu, precision):
    reads = {}
    for epochs in (1, 3):
        config = small_config(epochs=epochs, log_every=1000, checkpoint_every=1000, precision=precision)
        with Reads() as mode:
            train(small_method("byol"), small_views(small_images(), config), tmp_path / str(epochs), config)
        reads[epochs] = mode.found
    assert reads[1] == reads[3]  # what is logged first and last, and the checkpoint


def test_gradients_of_losses_are_lightlys():
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(12, 8, generator=generator) for _ in range(2)]
    for ours, theirs in ((NTXent(0.2), NTXentLoss(0.2)), (VICRegCovariance(), VICRegLoss())):
        found = []
        for criterion in (ours, theirs):
            leaves = [t.clone().requires_grad_() for t in z]
            loss = criterion(*leaves)
            found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("size", [8, 20, 21])
def test_queue_holds_the_keys_that_lightlys_does(size):
    """Shorter than a batch, a multiple of it or neither: around the end and on."""
    ours, theirs = Queue((size, 4)), MemoryBankModule((size, 4))
    ours.load_state_dict({}, strict=False)
    ours.bank.copy_(theirs.bank)
    for i in range(9):
        keys = torch.randn(10, 4, generator=torch.Generator().manual_seed(i))
        for queue in (ours, theirs):
            queue.forward(keys, update=True)
        assert torch.equal(ours.bank, theirs.bank) and ours.bank_ptr.item() == theirs.bank_ptr.item()


def test_centre_is_lightlys_and_stays_in_its_memory():
    ours, theirs = CenteredDINO(6), DINOLoss(6)
    place = ours.center.data_ptr()
    for i in range(3):
        z = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(i))
        assert torch.equal(ours(list(z[:2]), list(z)), theirs(list(z[:2]), list(z)))
        assert torch.equal(ours.center, theirs.center)
    assert ours.center.data_ptr() == place


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if issubclass(cls, MomentumMethod)])
def test_momentum_copies_follow_as_lightlys_do(name):
    ours, theirs, on_device = methods = [small_method(name) for _ in range(3)]
    with torch.no_grad():
        for parameter in itertools.chain(*(method.backbone.parameters() for method in methods)):
            parameter.add_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)))
    m = ours.momentum_at(3, 10)
    ours.follow(m)
    on_device.follow(torch.tensor(m, dtype=torch.float64))
    for part in ("backbone", "projection_head"):
        update_momentum(getattr(theirs, part), getattr(theirs, f"{part}_momentum"), m)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(on_device.state_dict()[key], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-30, 1e-3])
def test_lars_is_lightlys_to_the_last_bit(decay, nesterov):
    """Also where a weight or a gradient is zero, and where a parameter joins later."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(*shape, generator=generator) for shape in ((5, 7), (3, 3, 2, 2), (4, 4), (6, 2), (9, 3))]
    start[2].zero_()
    slopes = [[torch.randn(w.shape, generator=generator) for w in start] for _ in range(4)]
    results = []
    for cls in (ForeachLARS, LARS):
        weights = [nn.Parameter(w.clone()) for w in start]
        optimizer = cls(weights, lr=0.3, momentum=0.9, weight_decay=decay, nesterov=nesterov)
        for i, step in enumerate(slopes):
            for j, (weight, slope) in enumerate(zip(weights, step, strict=True)):
                weight.grad = None if j == 4 and i < 2 else slope * (j != 3)
            optimizer.step()
        results.append([*weights, *(optimizer.state[w]["momentum_buffer"] for w in weights)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_float32_under_autocast(name):
    method, seen = small_method(name), []

    def look(module, arguments):
        seen.append(torch.is_autocast_enabled("cpu"))
        seen.extend(z.dtype for z in torch.utils._pytree.tree_leaves(arguments))

    method.criterion.register_forward_pre_hook(look)
    views = [torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method(views)
    assert loss.dtype == torch.float32 and set(seen) == {False, torch.float32}
    loss.backward()
    wide = small_method(name)(views)[0]
    torch.testing.assert_close(loss, wide, rtol=0.05, atol=0.05)


def test_covariances_of_bfloat16_projections_are_those_of_the_same_numbers_in_float32():
    z = [torch.randn(64, 32, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(2)]
    wide = VICRegCovariance()(*(part.float() for part in z))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(in_float32(VICRegCovariance(), *z), wide) and VICRegCovariance()(*z) != wide


def test_views_are_float32_under_autocast():
    views = small_views(small_images(), small_config())
    batch = next(views.batches(iter([(torch.arange(4), torch.arange(4), 0)])))
    plain = views(batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(views(batch), plain, strict=True))


def test_precision_without_a_gpu_is_full():
    assert best_precision() == "32-true" or torch.cuda.is_available()


@pytest.fixture
def on_tape(monkeypatch, like_a_gpu):
    """Captured steps on a CPU, with a tape in place of a CUDA graph."""
    monkeypatch.setattr("sslk.training.module.obstacle", lambda *unused: None)
    monkeypatch.setattr("sslk.training.captured.record", taped)


def trained(name, folder, arm="qscore", stops=(None,), **changes):
    config = small_config(**{"learning_rate": 0.05, "log_every": 2, "channels_last": True, **changes})
    for stop in stops:
        method = small_method(name)
        if name in ("swav", "dino"):
            method.frozen_steps = 4
        carrying = Carrying(stop_epoch=stop)
        log = train(method, small_views(small_images(), config), folder, config, arm, small_set(), carrying)
    return method.state_dict(), log


def fail(function):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize(
    ("name", "arm", "optimizer"),
    [*((name, "qscore", "sgd") for name in METHODS), ("moco", "lasso", "lars"), ("simclr", "baseline", "lars")],
)
def test_a_captured_run_is_the_run(tmp_path, monkeypatch, on_tape, name, arm, optimizer):
    """Steps run again from their operations and memory give, to the last bit, what the same steps give as they are."""
    settings = {"arm": arm, "optimizer": optimizer, "local_views": 2 * METHODS[name].multi_crop}
    state, log = trained(name, tmp_path / "captured", capture=True, **settings)
    with monkeypatch.context() as patch:
        patch.setattr("sslk.training.captured.record", fail)
        with pytest.warns(UserWarning, match="could not be captured and goes on without: operation not permitted when stream"):
            same, same_log = trained(name, tmp_path / "whole", capture=True, **settings)
    assert log == same_log and all(torch.equal(same[key], value) for key, value in state.items())
    plain, plain_log = trained(name, tmp_path / "plain", **settings)
    for key, value in state.items():  # the rate on the device rounds once more
        torch.testing.assert_close(plain[key], value, rtol=1e-3, atol=1e-4, msg=lambda m, k=key: f"{k}: {m}")
    assert [row["learning_rate"] for row in log] == [row["learning_rate"] for row in plain_log]
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in plain_log], rel=1e-4)


def test_the_tape_sees_memory_that_is_bound_anew(tmp_path, monkeypatch, on_tape):
    monkeypatch.setattr("sslk.training.methods.dino.CenteredDINO", DINOLoss)
    state, _ = trained("dino", tmp_path / "captured", capture=True, epochs=4)
    plain, _ = trained("dino", tmp_path / "plain", epochs=4)
    assert (state["criterion.center"] - plain["criterion.center"]).abs().max() > 1e-3


def test_a_captured_run_goes_on_where_it_stopped(tmp_path, on_tape):
    whole, log = trained("byol", tmp_path / "whole", capture=True, epochs=4)
    parts, again = trained("byol", tmp_path / "parts", capture=True, epochs=4, stops=(2, None))
    assert log == again and all(torch.equal(parts[key], value) for key, value in whole.items())


def test_capture_is_refused_in_a_line_where_it_cannot_be(tmp_path):
    with pytest.warns(UserWarning, match="the training step is not captured: it needs a GPU"):
        state, _ = trained("simsiam", tmp_path / "asked", capture=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plain, _ = trained("simsiam", tmp_path / "plain")
    assert all(torch.equal(plain[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("changes", "world_size", "reason"),
    [
        ({}, 2, "one process"),
        ({"accumulate": 2}, 1, "accumulate 1"),
        ({"precision": "16-mixed"}, 1, "16-mixed"),
        ({"momentum": 0.0}, 1, "needs momentum"),
    ],
)
def test_what_stands_in_the_way_of_a_capture(changes, world_size, reason):
    from sslk.training.captured import obstacle

    views = small_views(small_images(), small_config())
    assert reason in obstacle(TrainingConfig(**changes), views, torch.device("cuda"), world_size)
    assert obstacle(TrainingConfig(), views, torch.device("cuda"), 1) is None
    assert "kept in memory" in obstacle(TrainingConfig(), nn.Identity(), torch.device("cuda"), 1)


@pytest.mark.parametrize(("capture", "every", "log_every"), itertools.product([False, True], [1, 3, 100], [4, 100]))
def test_first_bad_step_is_named_and_nothing_is_written_after_it(tmp_path, on_tape, capture, every, log_every):
    """Found late, at a logged step, a checkpoint or the end, and named as if at once."""
    config = small_config(epochs=4, checkpoint_every=every, log_every=log_every, capture=capture)
    method, views = small_method("simclr"), small_views(small_images(), config)

    seen = []

    def poison(step, total, stage):
        seen.append(step)
        if step == 5:  # the weights after step 5 are finite; the losses from number 5 on are not
            with torch.no_grad():
                method.backbone[1].running_mean.fill_(0.0)
                method.projection_head.layers[1].bias.fill_(3e38)

    with pytest.raises(NonFiniteError, match=r"arm qscore is not finite at step 5 \(SSL loss \S+, penalty \S+\): lower"):
        train(method, views, tmp_path, config, "qscore", small_set(), progress=poison)
    checkpoint = min(-(-6 // every) * every, 12)  # the first after the bad step, or the end
    assert seen[-1] == min(checkpoint - 1, -(-6 // log_every) * log_every)
    if every == 100:
        assert not (tmp_path / "last.ckpt").exists()
    else:
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5 // every * every


def test_loss_with_a_queue_is_lightlys():
    ours, theirs = QueuedNTXent(0.2, 32, 8), NTXentLoss(0.2, (32, 8))
    theirs.memory_bank.bank.copy_(ours.memory_bank.bank)
    for i in range(5):
        q, k = (F.normalize(torch.randn(10, 8, generator=torch.Generator().manual_seed(2 * i + j))) for j in range(2))
        assert torch.equal(ours(q.requires_grad_(), k), theirs(q, k))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", METHODS)
def test_on_a_gpu_no_step_waits_and_a_captured_run_is_near_the_run(tmp_path, name, arm):
    def watch(step, total, stage):  # between the first and the last step, the logged ones, and within an epoch
        torch.cuda.set_sync_debug_mode("error" if 3 <= step < 9 else "default")

    logs = []
    for capture in (False, True):
        config = small_config(epochs=1, batch_size=4, log_every=1000, checkpoint_every=1000, learning_rate=0.01, capture=capture)
        views = small_views(small_images(), config)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*captured.*")
            try:
                logs.append(train(small_method(name), views, tmp_path / str(capture), config, arm, small_set(), progress=watch))
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert len(logs[0]) == 2
    assert logs[1][-1]["loss"] == pytest.approx(logs[0][-1]["loss"], rel=1e-2, abs=1e-2)

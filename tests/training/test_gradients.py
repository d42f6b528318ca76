"""Sizes and directions of the penalties' gradients: against float64 autograd of the equations, written out here."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sslk.cli import main
from sslk.data import load_dataset
from sslk.models import as_backbone
from sslk.results.run import Run
from sslk.training.gradients import penalty_gradients
from sslk.training.gradients_study import gradients_study
from sslk.training.prepare import make_views
from sslk.training.settings import GradientSettings
from sslk.training.start import TrainingStart
from sslk.training.views import Batches
from tests.training.small import OPTIONS, small_config, small_encoder, small_method, small_set


def start(method="simsiam"):
    images = load_dataset("sample", "train").subset(torch.arange(0, 2000, 40))
    return TrainingStart(method, as_backbone(small_encoder()), None, images, small_set(), options=OPTIONS[method])


def equations(h, mask, eps, alpha_quantile):
    """The three penalties at weight 1 over the rows of h, float64: equations (2) and (3), and sum |H|."""
    rows = h / h.norm(dim=1, keepdim=True)
    deviation = rows - rows.mean(1, keepdim=True)
    chosen = (deviation > eps * rows.std(1, correction=0, keepdim=True)) & mask
    q = (deviation * chosen).sum(1) / chosen.sum(1).clamp(min=1)
    alpha = q.detach().mean() if alpha_quantile is None else q.detach().quantile(alpha_quantile)
    columns = rows.abs().sum(0)
    return [-(q * (q < alpha)).mean(), (columns * (columns > columns.mean())).sum(), columns.sum()]


@pytest.mark.parametrize("alpha_quantile", [None, 0.25])
def test_norms_and_cosines_are_those_of_float64_autograd(alpha_quantile):
    config = small_config(batch_size=16, alpha_quantile=alpha_quantile)
    found = penalty_gradients(start(), config, batches=2)
    begin = start()
    views = make_views("simsiam", begin.images, begin.backbone, config)
    method = small_method("simsiam").double().train()
    for number, batch in zip(range(2), Batches(50, 16, 2, config.seed, views), strict=False):
        x = torch.cat(views(batch)).double()
        h = method.backbone(x)
        z = method.projection_head(h)
        p = F.normalize(method.prediction_head(z), dim=1)
        first, second = F.normalize(z.detach(), dim=1).chunk(2)
        ssl = -0.5 * ((p[:16] * second).sum(1).mean() + (p[16:] * first).sum(1).mean())
        flat = []
        for term in [ssl, *equations(h, small_set().mask, 0.5, alpha_quantile)]:
            *weights, of_h = torch.autograd.grad(term, [*method.backbone.parameters(), h], retain_graph=True)
            flat.append((torch.cat([part.flatten() for part in weights]), of_h.flatten()))
        for side in range(2):
            for term in range(4):
                g, reference = flat[term][side], flat[0][side]
                assert found.norms[side, term, number].item() == pytest.approx(g.norm().item(), rel=2e-3)
                cosine = F.cosine_similarity(g, reference, dim=0).item()
                assert found.cosines[side, term, number].item() == pytest.approx(cosine, abs=2e-3)
    assert torch.equal(found.ratios(1e-4), 1e-4 * found.norms[:, 1:] / found.norms[:, :1])


@pytest.mark.parametrize("method", list(OPTIONS))
def test_every_method_has_a_gradient_of_every_term(method):
    found = penalty_gradients(start(method), small_config(batch_size=16), batches=2)
    assert bool((found.norms > 0).all()) and bool((found.cosines.abs() <= 1 + 1e-9).all())


def test_weights_stay_and_repetition_changes_nothing():
    begin = start("moco")
    before = {name: value.clone() for name, value in begin.backbone.state_dict().items()}
    first, again = (penalty_gradients(begin, small_config(batch_size=16), batches=2) for _ in range(2))
    assert torch.equal(first.norms, again.norms)
    assert all(torch.equal(value, before[name]) for name, value in begin.backbone.state_dict().items())
    with pytest.raises(ValueError, match="batches must be at least 2"):
        penalty_gradients(begin, small_config(), batches=1)


def test_study_tells_shares_that_are_linear_in_lambda():
    run = gradients_study(start(), small_config(batch_size=16, lasso=0.01), GradientSettings(batches=3))
    rows = {(row[0], row[1]): row[2:] for row in run.tables[0].rows}
    assert len(rows) == 21
    for term in ("lambda1 term", "lambda2 term", "lasso term"):
        assert rows[1.0, term][0] == pytest.approx(1e6 * rows[1e-6, term][0])
        assert rows[1.0, term][1] <= rows[1.0, term][0] <= rows[1.0, term][2]
    assert run.summary["lambda2_ratio"] == pytest.approx(rows[1.0, "lambda2 term"][0] / 100)
    assert any("At lasso = 0.01 the lasso term's gradient is" in said for said in run.findings)
    none = replace(start(), discriminative=replace(small_set(), eps=9.0))  # above what 32 features can reach: all sets empty
    assert any("has no gradient here" in said for said in gradients_study(none, small_config(batch_size=16)).findings)


def test_command_reads_heads_and_draws(tmp_path, capsys):
    data = ["--data", "sample", "--batches", "2", "--training.batch_size", "32", "--training.view_size", "16"]
    words = ["train", "gradients", "--method", "simclr", *data, "--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 0, capsys.readouterr().err
    run = Run.load(tmp_path / "run")
    assert run.summary["lambda1_ratio"] > 0 and (tmp_path / "run" / "gradients.svg").exists()

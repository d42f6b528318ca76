"""The autoencoder against loops in float64, written from the equations."""

import math

import pytest
import torch

from sslk.codes import SparseAutoencoder


def trained_looking(width=6, latents=20, k=4, seed=0):
    """Parameters as a fit leaves them: encoder and decoder apart, biases not zero."""
    auto = SparseAutoencoder(width, latents, k, seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, tensor in auto.named_parameters():
            if name != "decoder":
                tensor += 0.3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        auto.mean += torch.randn(width, generator=generator, dtype=torch.float64)
        auto.scale.fill_(1.7)
        auto.normalize_decoder()  # in float64
    return auto


def loop(auto, row):
    """Pre-activations, codes and reconstruction (normalised) of one row, entry by entry."""
    width, latents, p = auto.num_features, auto.latents, {name: t.tolist() for name, t in auto.state_dict().items()}
    x = [(float(row[j]) - p["mean"][j]) * p["scale"] for j in range(width)]
    centred = [x[j] - p["pre_bias"][j] for j in range(width)]
    before = [sum(p["encoder"][m][j] * centred[j] for j in range(width)) + p["encoder_bias"][m] for m in range(latents)]
    kept = sorted(range(latents), key=lambda m: -before[m])[: auto.k]
    z = [max(before[m], 0.0) if m in kept else 0.0 for m in range(latents)]
    again = [sum(z[m] * p["decoder"][m][j] for m in range(latents)) + p["pre_bias"][j] for j in range(width)]
    return x, before, z, again


@pytest.fixture
def rows():
    return torch.randn(9, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 3


@pytest.mark.parametrize("k", [1, 4, 20])
def test_codes_and_reconstructions_are_those_of_the_equations(rows, k):
    auto = trained_looking(k=k)
    codes, again = auto(rows).detach(), auto.reconstruct(rows).detach()
    for row, z, own in zip(rows, codes, again, strict=True):
        _, _, wanted, reconstruction = loop(auto, row)
        torch.testing.assert_close(z, torch.tensor(wanted, dtype=torch.float64))
        in_units = torch.tensor(reconstruction, dtype=torch.float64) / auto.scale + auto.mean
        torch.testing.assert_close(own, in_units)
    assert bool((codes >= 0).all()) and int((codes > 0).sum(1).max()) <= k


def test_the_loss_is_the_share_not_explained_and_that_of_dead_latents(rows):
    auto, dead, k_aux, weight = trained_looking(), torch.arange(20) % 3 == 0, 2, 0.25
    x = auto.normalized(rows)
    loss, reconstruction, _ = auto.loss(x, dead, k_aux, weight)
    squared, missed, left_over = 0.0, 0.0, 0.0
    for row in rows:
        wanted, before, _, again = loop(auto, row)
        left = [a - b for a, b in zip(wanted, again, strict=True)]
        squared += sum(value**2 for value in left) / len(left) / len(rows)
        chosen = sorted((m for m in range(20) if dead[m]), key=lambda m: -before[m])[:k_aux]
        guess = [sum(max(before[m], 0.0) * float(auto.decoder.detach()[m, j]) for m in chosen) for j in range(6)]
        missed += sum((a - b) ** 2 for a, b in zip(left, guess, strict=True))
        left_over += sum(value**2 for value in left)
    assert reconstruction.item() == pytest.approx(squared)
    assert loss.item() == pytest.approx(squared + weight * missed / left_over)


def test_the_auxiliary_loss_moves_dead_latents_alone(rows):
    auto, dead = trained_looking(), torch.zeros(20, dtype=torch.bool)
    x = auto.normalized(rows)
    dead[:] = ~(auto(rows) > 0).any(0)  # no row keeps them
    assert bool(dead.any())
    with_aux, without = (auto.loss(x, dead, 3, weight)[0] for weight in (1.0, 0.0))
    difference = torch.autograd.grad(with_aux - without, auto.encoder)[0]
    assert float(difference[~dead].abs().max()) < 1e-12 < 1e-3 < float(difference[dead].abs().max())


def test_all_parameters_have_the_gradient_of_the_loss(rows):
    auto = trained_looking()
    x, dead = auto.normalized(rows), torch.zeros(20, dtype=torch.bool)
    names = [name for name, _ in auto.named_parameters()]

    def loss(*tensors):
        return torch.func.functional_call(auto, dict(zip(names, tensors, strict=True)), (x,))

    auto.forward = lambda batch: auto.loss(batch, dead, 1, 0.0)[0]
    assert torch.autograd.gradcheck(loss, tuple(auto.parameters()), atol=1e-7, fast_mode=True)


def test_the_gradient_along_a_direction_is_taken_away_and_norms_stay(rows):
    auto = trained_looking()
    loss = auto.loss(auto.normalized(rows), torch.zeros(20, dtype=torch.bool), 1, 0.0)[0]
    loss.backward()
    before = auto.decoder.grad.clone()
    auto.project_gradient()
    along = (auto.decoder.grad * auto.decoder).sum(1)
    assert (before * auto.decoder).sum(1).abs().max().item() > 1e-3 > 1e-12 > along.abs().max().item()
    across = before - (before * auto.decoder).sum(1, keepdim=True) * auto.decoder
    torch.testing.assert_close(auto.decoder.grad, across)
    with torch.no_grad():
        auto.decoder *= 3
    auto.normalize_decoder()
    torch.testing.assert_close(auto.decoder.norm(dim=1), torch.ones(20, dtype=torch.float64))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_has_nan_for_all_codes_and_others_theirs(rows, value):
    auto = trained_looking()
    wanted = auto(rows)
    rows[4, 2] = value
    codes = auto(rows)
    assert bool(codes[4].isnan().all())
    torch.testing.assert_close(codes[torch.arange(9) != 4], wanted[torch.arange(9) != 4])


def test_the_encoder_begins_as_the_transpose_of_unit_directions():
    auto = SparseAutoencoder(6, 20, 4)
    assert torch.equal(auto.encoder, auto.decoder) and auto.encoder.data_ptr() != auto.decoder.data_ptr()
    torch.testing.assert_close(auto.decoder.norm(dim=1), torch.ones(20))


def test_k_beyond_the_latents_is_refused():
    with pytest.raises(ValueError, match="k must lie between 1 and the number of latents, got 21 of 20"):
        SparseAutoencoder(6, 20, 21)

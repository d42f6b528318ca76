"""Every op on inputs that fill a GPU many times over: its teams of threads walk over many rows and add up more of them than they
do at once, and what is worked on in parts has several. On the CPU the inputs are small.

Expected is what the readable versions of the ops say in float64 on the same device; their own tests hold them to the equations.
"""

import pytest
import torch

from ssl_kernels import reference
from tests.ops.test_regression import SGD, problem
from tests.ops.test_rows import DTYPES, GRADIENT_TOLERANCE, SCORE_TOLERANCE

ops = torch.ops.sslk
EPS = 1.5
# Width and rows on CUDA: more than 128 for every team of a card of 132 multiprocessors that sums columns; with 16,384 as many
# for each of 128 blocks, and one more.
SIZES = [
    (5, 2_300_000),
    (61, 2_300_000),
    (257, 600_000),
    (1_000, 300_000),
    (2_051, 100_000),
    (4_100, 90_000),
    (8_192, 16_384),
    (8_192, 16_385),
    (8_192, 40_000),
    (8_200, 20_000),
]
of_every_size = pytest.mark.parametrize(("d", "rows"), SIZES)
of_every_type = pytest.mark.parametrize("dtype", DTYPES)


def representations(d, rows, dtype, device):
    """Positive rows with a few large elements, columns of different sizes, and a set of two thirds of them.

    No row is so small that its gradient has no float16.
    """
    most = 500 if device == "cpu" else 20_000 if dtype == torch.float64 else rows
    h = torch.randn(min(rows, most), d, generator=torch.Generator(device).manual_seed(d), device=device)
    h.relu_().pow_(1.7).add_(0.01).mul_(torch.linspace(0.5, 1.5, d, device=device))
    return h.to(dtype), torch.arange(d, device=device) % 3 != 1


def parts(h):
    """Slices of the rows, of 2^24 elements each."""
    step = max(1, 2**24 // h.shape[1])
    return [slice(start, start + step) for start in range(0, len(h), step)]


def near(actual, expected, tolerance, size=None):
    """Within `tolerance` of the value and of `size`, by default that of the largest one."""
    size = expected.abs().max() if size is None else size
    excess = (actual.double() - expected).abs() / (expected.abs() + size + 1e-300)
    assert excess.max() <= tolerance, float(excess.max())  # NaN is not


@of_every_type
@of_every_size
def test_scores_counts_masks_and_moments(device, d, rows, dtype):
    h, chosen = representations(d, rows, dtype, device)
    q, active = ops.qscore_counts(h, chosen, EPS)
    alone, mask, moments = ops.qscore(h, chosen, EPS), ops.activating_mask(h, EPS), ops.row_moments(h)
    per_feature, per_row = ops.activation_counts(h, EPS)
    counted = torch.zeros_like(per_feature)
    for part in parts(h):
        wide = h[part].double()
        expected = reference.activating_mask(wide, EPS)
        assert torch.equal(mask[part], expected)
        assert torch.equal(per_row[part], expected.sum(1).int()) and torch.equal(active[part], per_row[part])
        counted += expected.sum(0)
        scores = reference.qscore(wide, chosen, EPS)
        for found in (q, alone):
            near(found[part], scores, SCORE_TOLERANCE[dtype])
        for found, wanted in zip(moments, reference.row_moments(wide), strict=True):
            near(found[part], wanted, SCORE_TOLERANCE[dtype])
    assert torch.equal(per_feature, counted)


@of_every_type
@of_every_size
def test_column_sums_and_penalty(device, d, rows, dtype):
    h, chosen = representations(d, rows, dtype, device)
    loss, q, columns = ops.qscore_penalty(h, chosen, 0.3, 0.02, EPS)
    scores = torch.cat([reference.qscore(h[part].double(), chosen, EPS) for part in parts(h)])
    near(q, scores, SCORE_TOLERANCE[dtype])
    for normalize in (True, False):
        expected = sum(reference.column_l1(h[part].double(), normalize) for part in parts(h))
        for found in (ops.column_l1(h, normalize), *([columns] if normalize else [])):
            near(found, expected, SCORE_TOLERANCE[dtype], size=0.0)
    # Of the op's own scores and sums: which of them lie above the mean, their rounding may decide.
    near(loss, reference.rows.penalty_loss(q.double(), columns.double(), 0.3, 0.02, None, None), 1e-6)


@of_every_type
@of_every_size
def test_gradients(device, d, rows, dtype):
    h, chosen = representations(d, rows, dtype, device)
    generator, score = torch.Generator(device).manual_seed(1), torch.promote_types(dtype, torch.float32)
    grad_q = torch.randn(len(h), generator=generator, device=device).to(score)
    grad_c = torch.randn(d, generator=generator, device=device).to(score)
    found = ops.qscore_penalty_backward(grad_q, grad_c, h, chosen, EPS, True, False)
    alone = ops.qscore_backward(grad_q, h, chosen, EPS, True, False), ops.column_l1_backward(grad_c, h, True)
    for part in parts(h):
        wide = h[part].double()
        scores = reference.qscore_backward(grad_q[part].double(), wide, chosen, EPS, True, False)
        columns = reference.column_l1_backward(grad_c.double(), wide, True)
        # The size of the terms before the part along the row is taken off, which may cancel them.
        size = 3.0 / wide.norm(dim=1, keepdim=True).clamp_min(1e-12)
        for gradient, expected in ((found, scores + columns), (alone[0], scores), (alone[1], columns)):
            near(gradient[part], expected, GRADIENT_TOLERANCE[dtype], size)


def test_counts_of_more_rows_than_a_teams_counters_hold(device):
    """On CUDA they have 12 bits: 4,096 rows and more for each of up to 16,896 teams."""
    n = 5_000 if device == "cpu" else 80_000_000
    h = torch.zeros(n, 8, dtype=torch.bfloat16, device=device)
    h[::2, 3], h[1::2, 5] = 1.0, 1.0
    per_feature, per_row = ops.activation_counts(h, EPS)
    assert per_feature.tolist() == [0, 0, 0, n // 2, 0, n // 2, 0, 0]
    assert per_row.eq(1).all()


@of_every_type
def test_kmeans_in_several_tiles(device, dtype):
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(2_000 if device == "cpu" else 300_000, 64, generator=generator, device=device).to(dtype)
    centroids = torch.randn(300, 64, generator=generator, device=device).to(dtype)
    index, distance = ops.kmeans_assign(x, centroids)
    for rows in torch.arange(len(x), device=device).split(10_000):
        exact = torch.cdist(x[rows].double(), centroids.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
        assert torch.equal(index[rows].long(), exact.argmin(1))
        near(distance[rows], exact.amin(1), 1e-12 if dtype == torch.float64 else 1e-7, size=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similarity_of_several_panels(device, dtype):
    n = 500 if device == "cpu" else 40_000
    generator = torch.Generator(device).manual_seed(0)
    common, own = (torch.randn(*shape, generator=generator, device=device) for shape in ((1, n, 33), (3, n, 33)))
    x = (common + own).to(dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for debiased in (True, False):
        similar = ops.cka_matrix(x, debiased)
        near(similar, reference.cka_matrix(x.double(), debiased), tolerance)
        gradient = ops.cka_matrix_backward(similar, x, debiased)
        near(gradient, reference.cka_matrix_backward(similar.double(), x.double(), debiased), 5 * tolerance)
    near(ops.cca_matrix(x[:2, :, :9])[0], reference.cca_matrix(x[:2, :, :9].double())[0], tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regression_on_a_large_batch(device, dtype):
    arguments = problem(500 if device == "cpu" else 20_000, 200, 130, 64, dtype=dtype, device=device)
    wide = [*(t.double().clone() for t in arguments[:4]), *arguments[4:]]
    for _ in range(2):
        loss, expected = ops.sparse_softmax_sgd_(*arguments, **SGD), reference.sparse_softmax_sgd_(*wide, **SGD)
        near(loss, expected, 1e-12 if dtype == torch.float64 else 2e-6)
    for found, wanted in zip(arguments[:4], wide[:4], strict=True):
        real = [torch.cat(list(t), 1)[:, :130] if t.dim() == 3 else t for t in (found, wanted)]
        near(*real, 1e-12 if dtype == torch.float64 else 1e-5)


def test_images(device):
    generator = torch.Generator(device).manual_seed(0)
    n = 40 if device == "cpu" else 4_000
    images = torch.randint(0, 256, (n, 3, 33, 31), generator=generator, device=device, dtype=torch.uint8)
    foreground = torch.rand(n, 33, 31, generator=generator, device=device) < 0.5
    arguments = (images, foreground, [0.5] * 3, [0.2] * 3, [0, 1, 2, 3, 4])
    near(ops.masked_variants(*arguments), reference.masked_variants(*arguments).double(), 1e-6)
    heat = torch.randn(n, 33, 31, generator=generator, device=device)
    near(ops.heatmap_iou(heat, foreground), reference.heatmap_iou(heat.double(), foreground).double(), 1e-6)

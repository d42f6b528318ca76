"""CKA and CCA against the bare matrix products and pairwise singular value decompositions."""

import pytest
import torch

import ssl_kernels  # noqa: F401  (registers the ops)

ops = torch.ops.sslk


def representations(v, n, d):
    return torch.randn(v, n, d, generator=torch.Generator().manual_seed(0))


def bare_products(x):
    """The block products alone, uncentred and unreduced."""
    return lambda: [x[v].T @ x[w] for v in range(len(x)) for w in range(v, len(x))]


def pairwise_cka(x, debiased):
    """A user's double loop over centred matrices."""

    def hsic(a, b):
        squares = (a.T @ b).square().sum()
        if not debiased:
            return squares
        n, p, q = len(a), a.square().sum(1), b.square().sum(1)
        return squares + p.sum() * q.sum() / ((n - 1) * (n - 2)) - n / (n - 2) * (p * q).sum()

    def run():
        z = x - x.mean(1, keepdim=True)
        return torch.stack([hsic(a, b) / (hsic(a, a) * hsic(b, b)).sqrt() for a in z for b in z])

    return run


@pytest.mark.parametrize("shape", [(5, 6000, 1024), (5, 6000, 256)], ids=str)
def test_cka_matrix(beside, shape):
    """`share` is the time of the bare products over that of the op; the target is 1 / 1.15 = 0.87."""
    x = representations(*shape)
    versus = {"pairwise": pairwise_cka(x, True)} if shape[2] < 1000 else None
    beside(lambda: ops.cka_matrix(x), x.nbytes, bare_products(x), x.nbytes, "mm", versus)


def test_cka_matrix_of_few_samples(beside):
    """N < D: Gram matrices."""
    x = representations(5, 500, 4096)
    beside(lambda: ops.cka_matrix(x), x.nbytes, lambda: [a @ a.T for a in x], x.nbytes, "mm")


def test_cka_matrix_backward(beside):
    """`share` is against the products a backward pass cannot avoid: those of the forward pass and one more per pair."""
    x, grad = representations(4, 2000, 512), torch.rand(4, 4)

    def products():
        p = [[a.T @ b for b in x] for a in x]
        return [sum(b @ p[w][v] for w, b in enumerate(x)) for v in range(4)]

    beside(lambda: ops.cka_matrix_backward(grad, x, True), x.nbytes, products, x.nbytes, "mm")


def test_cca_matrix(beside):
    """Target: five times faster than a decomposition of both sides for every pair."""
    x = representations(5, 1500, 256)

    def pairwise():
        out = []
        for a in x:
            for b in x:
                p, q = (torch.linalg.svd(z - z.mean(0), full_matrices=False)[0] for z in (a, b))
                out.append((p.T @ q).square().mean(0).sum())
        return out

    gram = lambda: [a.T @ a for a in x]  # noqa: E731
    beside(lambda: ops.cca_matrix(x), x.nbytes, gram, x.nbytes, "mm", {"pairwise SVD": pairwise})

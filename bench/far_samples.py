"""Error of debiased CKA of float32 data where one sample is many times as far from the mean as the rest: docs/numerics.md.

    python bench/far_samples.py

Expected is the definition in float64 on N x N Gram matrices without their diagonals, of rows about the mean of the others.
"""

import numpy as np
import torch

import ssl_kernels

N, D, DRAWS, FAR = 500, 64, 20, 3


def gram(x: np.ndarray) -> np.ndarray:
    x = x - np.delete(x, FAR, 0).mean(0)
    k = x @ x.T
    np.fill_diagonal(k, 0)
    return k


def hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. (2012), equation 5, up to a factor."""
    return (k * m).sum() + k.sum() * m.sum() / ((N - 1) * (N - 2)) - 2 / (N - 2) * k.sum(0) @ m.sum(0)


def main() -> None:
    for factor in (1, 10, 30, 100, 1e3, 5e3, 1e5, 1e6):
        worst = 0.0
        for seed in range(DRAWS):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(N, D, generator=generator)
            y = x + torch.randn(N, D, generator=generator)
            x[FAR] *= factor
            k, m = gram(x.double().numpy()), gram(y.double().numpy())
            expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
            found = ssl_kernels.linear_cka(x[None], y[None]).item()
            worst = max(worst, abs(found - expected) / expected)
        print(f"{factor:9.0f} times: relative error at most {worst:.1e} in {DRAWS} draws")


if __name__ == "__main__":
    main()

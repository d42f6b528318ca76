"""At which scales the similarity ops and k-means are right: the limits that docs/reliability.md names.

`python bench/scales.py` prints, per CPU build, wrong indices and distances that are no numbers of `kmeans_assign`; CKA and CCA of
two independent representations; and rows built to lie midway between centroids that two builds assign differently.
"""

from __future__ import annotations

import torch

import ssl_kernels

EXPONENTS = {torch.float32: (-38, -20, 18, 19, 20, 37), torch.float64: (-300, -200, -160, -150, 150, 155, 200, 300)}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 16, generator=generator, dtype=torch.float64)
    centroids = x[:9] + 0.3
    nearest = torch.cdist(x, centroids).argmin(1)
    points = torch.randint(0, 4, (20, 37), generator=generator).double()
    points = torch.cat([points + 1, points - 1]) * 0.1
    place = torch.arange(4000)
    midway = 0.5 * (points[place % 40] + points[(7 * place + 3) % 40])
    ties, best = {}, ssl_kernels.cpu_isa()
    for isa in ssl_kernels.build_info()["cpu_isas"].split():
        try:
            ssl_kernels.set_cpu_isa(isa)
        except ValueError:
            continue  # not on this machine
        for dtype, exponents in EXPONENTS.items():
            for exponent in exponents:
                index, distance = ssl_kernels.kmeans_assign(
                    (x * 10.0**exponent).to(dtype), (centroids * 10.0**exponent).to(dtype)
                )
                print(
                    f"{isa} {dtype} 1e{exponent}: {int((index != nearest).sum())} of 200 wrong, "
                    f"{int(distance.isnan().sum())} NaN, {int(distance.isinf().sum())} infinite"
                )
        ties[isa] = ssl_kernels.kmeans_assign(midway, points)[0]
    ssl_kernels.set_cpu_isa(best)
    for isa, index in ties.items():
        print(f"midway, {isa}: {int((index != ties['baseline']).sum())} of 4000 rows differ from baseline")
    pair = torch.randn(2, 300, 8, generator=generator, dtype=torch.float64)
    for exponent in (-300, -200, -160, -100, 0, 100, 150, 200, 300):
        scaled = pair * 10.0**exponent
        print(
            f"float64 1e{exponent}: CKA {ssl_kernels.cka_matrix(scaled)[0, 1]:.4f}, "
            f"CCA {ssl_kernels.cca_matrix(scaled)[0][0, 1]:.4f}"
        )


if __name__ == "__main__":
    main()

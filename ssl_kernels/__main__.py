"""`python -m ssl_kernels`: how the library was built, and a self-test against the reference in float64."""

import sys

import torch

import ssl_kernels
from ssl_kernels import reference


def _largest_error(device: str) -> float:
    """Largest difference between the row ops and their float64 reference, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(64, 300, generator=generator).relu().to(device)
    mask = (torch.rand(300, generator=generator) < 0.5).to(device)
    pairs = [
        (ssl_kernels.qscore(h, mask, 1.0), reference.qscore(h.double(), mask, 1.0)),
        (ssl_kernels.activating_mask(h, 1.0).double(), reference.activating_mask(h.double(), 1.0).double()),
        (ssl_kernels.column_l1(h), reference.column_l1(h.double())),
        *zip(ssl_kernels.row_moments(h), reference.row_moments(h.double()), strict=True),
    ]
    return max(((a.double() - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def main() -> int:
    """Print the report; 0 if every device agrees with the reference."""
    for key, value in ssl_kernels.build_info().items():
        print(f"{key:<20} {value or '-'}")
    print(f"{'cpu_isa':<20} {ssl_kernels.cpu_isa()}")
    print(f"{'torch':<20} {torch.__version__}")
    loaded = ssl_kernels.cuda_library_loaded()
    print(f"{'cuda library':<20} {'loaded' if loaded else 'not loaded'}")
    devices = ["cpu"] + (["cuda"] if loaded and torch.cuda.is_available() else [])
    errors = {device: _largest_error(device) for device in devices}
    for device, error in errors.items():
        print(f"{'self-test ' + device:<20} {'ok' if error < 1e-5 else 'FAILED'}, largest relative error {error:.1e}")
    return 0 if all(error < 1e-5 for error in errors.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

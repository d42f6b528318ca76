"""Protocols for measuring and improving self-supervised visual representations, on the kernels of `ssl_kernels`.

The functions named here are the ones most people need; the rest is in the sub-packages. Each name is imported when it is
first used, so that the command line starts at once; `import ssl_kernels` is what registers `torch.ops.sslk.*`.
"""

from importlib import metadata
from typing import Any

import lazy_loader

_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return metadata.version("ssl-kernels") if name == "__version__" else _attached(name)

"""The eight self-supervised methods, each composed from lightly's losses, heads and momentum updates."""

from sslk.training.methods.barlow_twins import BarlowTwins
from sslk.training.methods.base import Method, MomentumMethod
from sslk.training.methods.byol import BYOL
from sslk.training.methods.dino import DINO
from sslk.training.methods.moco import MoCo
from sslk.training.methods.simclr import SimCLR
from sslk.training.methods.simsiam import SimSiam
from sslk.training.methods.swav import SwAV
from sslk.training.methods.vicreg import VICReg

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "swav": SwAV,
    "moco": MoCo,
    "byol": BYOL,
    "dino": DINO,
    "simsiam": SimSiam,
    "vicreg": VICReg,
    "barlow-twins": BarlowTwins,
}

__all__ = ["BYOL", "DINO", "METHODS", "BarlowTwins", "Method", "MoCo", "MomentumMethod", "SimCLR", "SimSiam", "SwAV", "VICReg"]

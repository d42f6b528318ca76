"""Which measure of agreement may be compared: NMI, or AMI where chance alone gives a good part of NMI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sslk.reverse.protocol import ReverseProbe

# Points of NMI. Many clusters on few rows agree by chance: NMI of a random network then exceeds that of a trained one.
MOST_BY_CHANCE = 5.0


@dataclass(frozen=True)
class Agreement:
    """The measure that findings compare.

    Attributes:
        metric: `nmi` or `ami`.
        name: NMI or AMI.
        why: a sentence where it is AMI, else none.
    """

    metric: str
    name: str
    why: list[str]


def chance_agreement(nmi: float, ami: float) -> float:
    """The part of NMI that a random assignment with the same cluster sizes has: `(NMI - AMI) / (1 - AMI)`.

    AMI is `(I - E) / (H - E)` with the expectation E over all permutations and the mean entropy H, NMI is `I / H`;
    this is `E / H` (Vinh, Epps and Bailey 2010).

    >>> round(chance_agreement(0.55, 0.1), 3), chance_agreement(1.0, 1.0)
    (0.5, 0.0)
    """
    return (nmi - ami) / (1.0 - ami) if ami < 1.0 else 0.0


def comparable(probes: Iterable[ReverseProbe]) -> Agreement:
    """NMI, the papers' measure, unless more than `MOST_BY_CHANCE` points of it are chance for one of the probes."""
    probes = list(probes)
    shares = [100 * chance_agreement(probe.mean("nmi"), probe.mean("ami")) for probe in probes]
    most = max(shares, default=0.0)
    if most <= MOST_BY_CHANCE:
        return Agreement("nmi", "NMI", [])
    probe = probes[shares.index(most)]
    rows = len(probe.probes[0].split.test)
    return Agreement(
        "ami",
        "AMI",
        [
            f"Compared by AMI: up to {most:.1f} points of NMI are chance agreement, with {probe.num_clusters} clusters on "
            f"{rows} test rows."
        ],
    )

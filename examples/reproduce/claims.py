"""All claims, and those of the papers that CIFAR-10 cannot test."""

from __future__ import annotations

from examples.reproduce import claims_masked, claims_objects, claims_quality, claims_reverse
from examples.reproduce.results import Study
from examples.reproduce.verdict import Verdict, decide

CLAIMS = [*claims_quality.CLAIMS, *claims_objects.CLAIMS, *claims_reverse.CLAIMS, *claims_masked.CLAIMS]

#: Claim -> why this study says nothing about it.
UNTESTABLE = {
    "Q-Score, Figure 7: heatmaps cover core more than spurious regions, and core more after regularisation": "needs masks of "
    "spurious regions (Salient ImageNet), and arms trained on images that have masks. `sslk interpret miou` measures it.",
    "Q-Score, Table A.2: the gain transfers to other data sets": "the arms are compared on CIFAR-10; the table of transfer below "
    "is of the encoders as they were pre-trained, on sets that the paper does not use.",
    "Reverse probing, Table 3: the gain of concepts falls as methods get better": "no rule was fixed before the numbers "
    "were seen; the differences stand with the claims on objects and colours.",
    "Reverse probing, Tables 4 and 7: rankings hold on Places-365": "needs that data set and those of the experts.",
    "Masked inputs: MAE separates variants, DINOv2 does not": "needs those encoders; `sslk masked study` takes them by name.",
}


def judge_all(study: Study) -> list[Verdict]:
    """The verdict of every claim."""
    return [decide(claim, study) for claim in CLAIMS]

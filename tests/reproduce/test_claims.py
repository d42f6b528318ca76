"""Every claim's verdict follows from the numbers: made-up runs that hold, that refute, and that leave it open."""

import doctest
import math

import pytest
from scipy import stats

from examples.reproduce import verdict
from examples.reproduce.claims import CLAIMS
from examples.reproduce.claims_masked import COMPLEMENTS, NEAREST
from examples.reproduce.verdict import Interval, beyond, decide, paired, welch
from tests.reproduce import synthetic as made

BY_KEY = {claim.key: claim for claim in CLAIMS}
OWN, CONTROL, LABELLED = made.encoder(), made.encoder("untrained"), made.encoder("supervised")


def state(key, study):
    return decide(BY_KEY[key], study).state


def one(runs=None, kind="self-supervised", **config):
    return made.study((made.encoder(kind), runs), **config)


@pytest.mark.parametrize("key", BY_KEY)
def test_a_claim_without_its_runs_is_not_tested(key):
    empty = made.study((OWN,), (CONTROL,), (LABELLED,))
    assert state(key, empty) == "not tested"


def test_keys_are_unique_and_reasons_are_of_known_states():
    assert len(BY_KEY) == len(CLAIMS)
    assert {state for claim in CLAIMS for state in claim.reasons} <= {"holds", "does not hold", "undecided", "not tested"}


@pytest.mark.parametrize(("auroc", "expected"), [(0.6, "holds"), (0.45, "does not hold"), (0.51, "undecided")])
def test_auroc_is_judged_by_its_interval(auroc, expected):
    assert state("q-auroc", one({"failure": made.failure(auroc)})) == expected
    assert state("q-supervised", one({"failure": made.failure(auroc)}, kind="supervised")) == expected
    assert state("q-auroc", one({"failure": made.failure(auroc)}, kind="untrained")) == "not tested"


@pytest.mark.parametrize(("auprc", "expected"), [(0.75, "holds"), (0.65, "does not hold"), (0.71, "undecided")])
def test_auprc_is_judged_against_the_accuracy(auprc, expected):
    assert state("q-auprc", one({"failure": made.failure(auprc=auprc, accuracy=0.7)})) == expected


def test_encoders_that_differ_leave_a_claim_undecided():
    study = made.study(
        (made.encoder(name="a"), {"failure": made.failure(0.6)}), (made.encoder(name="b"), {"failure": made.failure(0.4)})
    )
    assert state("q-auroc", study) == "undecided"


@pytest.mark.parametrize(("kept", "expected"), [(67.7, "holds"), (60.0, "does not hold"), (67.2, "undecided")])
def test_compression_loses_less_than_the_margin_or_more_than_noise(kept, expected):
    assert state("q-compress", one({"compression": made.compression(70.0, discriminative=kept)})) == expected


def test_narrow_intervals_settle_what_wide_ones_leave_open():
    runs = [{"compression": made.compression(70.0, half, discriminative=68.0)} for half in (2.0, 0.2)]
    assert [state("q-compress", one(run)) for run in runs] == ["undecided", "holds"]


def test_equality_is_not_held_by_noise():
    run = {"compression": made.compression(70.0, 5.0, discriminative=70.0, pca=70.0)}
    assert state("q-compress", one(run)) == state("q-pca", one(run)) == "undecided"


def test_selections_must_all_be_worse():
    worse = made.compression(70.0, discriminative=69.0, random=60.0, lower_tail=50.0, upper_tail=55.0)
    assert state("q-select", one({"compression": worse})) == "holds"
    mixed = made.compression(70.0, discriminative=69.0, random=69.0, lower_tail=50.0, upper_tail=75.0)
    assert state("q-select", one({"compression": mixed})) == "undecided"
    better = made.compression(70.0, discriminative=60.0, random=69.0, lower_tail=69.0, upper_tail=69.0)
    assert state("q-select", one({"compression": better})) == "does not hold"


@pytest.mark.parametrize(("pca", "expected"), [(69.5, "holds"), (75.0, "does not hold"), (62.0, "does not hold")])
def test_principal_components_are_about_equal(pca, expected):
    assert state("q-pca", one({"compression": made.compression(70.0, discriminative=69.0, pca=pca)})) == expected


@pytest.mark.parametrize(
    ("interval", "above", "below"),
    [
        ((1.0, 0.5, 1.5), "holds", "does not hold"),
        ((-1.0, -1.5, -0.5), "does not hold", "holds"),
        ((0.1, -0.5, 0.7), "undecided", "undecided"),
    ],
)
def test_arms_are_judged_by_their_hierarchical_intervals(interval, above, below):
    keys = {"q-top1": "top1_baseline", "q-lasso": "top1_lasso", "q-raises": "mean_q_baseline", "q-repairs": "auroc_baseline"}
    for key, difference in keys.items():
        expected = below if key == "q-repairs" else above  # repair is a falling AUROC
        assert state(key, one({"arms": made.arms(**{difference: interval})})) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.05, "holds"), (-0.05, "does not hold"), (0.005, "undecided")])
def test_heatmaps_are_judged_by_the_intervals_of_their_differences(value, expected):
    assert state("q-correct", one({"agreement": made.agreement(correct=value)})) == expected
    assert state("q-core", one({"agreement": made.agreement(core=value)})) == expected
    assert state("q-core", one({"agreement": made.agreement(core=value)}, kind="untrained")) == "not tested"


def test_verdicts_count_encoders_and_tell_contradiction_from_doubt():
    def verdict_of(*aurocs):
        found = [(made.encoder(name=str(i)), {"failure": made.failure(auroc)}) for i, auroc in enumerate(aurocs)]
        return decide(BY_KEY["q-auroc"], made.study(*found))

    split, open_ = verdict_of(0.6, 0.6, 0.4), verdict_of(0.6, 0.51, 0.6)
    assert split.state == open_.state == "undecided"
    assert split.contradicted and not open_.contradicted
    assert split.counted() == "holds for 2 of 3, does not hold for 1"
    assert open_.counted() == "holds for 2 of 3, undecided for 1"
    assert verdict_of(0.6).counted() == ""


def test_trained_clusters_are_compared_with_the_untrained_control():
    def study(own, control):
        return made.study((OWN, {"reverse": made.reverse(all=own)}), (CONTROL, {"reverse": made.reverse(all=control)}))

    assert state("r-trained", study([0.5, 0.51, 0.49], [0.3, 0.31, 0.29])) == "holds"
    assert state("r-trained", study([0.3, 0.31, 0.29], [0.5, 0.51, 0.49])) == "does not hold"
    assert state("r-trained", study([0.3, 0.5, 0.4], [0.39, 0.41, 0.40])) == "undecided"


def test_a_group_of_concepts_is_paired_over_clusterings():
    runs = made.reverse(labels=[0.3, 0.4, 0.5], labels__objects=[0.32, 0.42, 0.521], labels__colour=[0.28, 0.38, 0.481])
    assert state("r-objects", one({"reverse": runs})) == "holds"
    assert state("r-colour", one({"reverse": runs})) == "does not hold"


def test_a_ranking_needs_four_encoders():
    def study(count, sign=1):
        return made.study(
            *(
                (
                    made.encoder(name=str(i)),
                    {"linear": made.probe(0.5 + 0.05 * i), "reverse": made.reverse(all=[0.3 + sign * 0.02 * i] * 2)},
                )
                for i in range(count)
            )
        )

    assert [state("r-rank", study(n)) for n in (1, 3, 6)] == ["undecided", "undecided", "holds"]
    assert state("r-rank", study(6, sign=-1)) == "does not hold"


def test_the_order_over_k():
    def study(at_100):
        return made.study(
            (OWN, {"reverse": made.reverse(all=[0.5], all_100=[at_100])}),
            (CONTROL, {"reverse": made.reverse(all=[0.3], all_100=[0.4])}),
        )

    assert state("r-k", study(0.6)) == "holds"
    assert state("r-k", study(0.35)) == "does not hold"


def test_extreme_pairs_need_intervals_apart():
    high = dict.fromkeys(NEAREST, 0.8)
    assert state("m-nearest", one({"masked": made.masked(high)})) == "holds"
    assert state("m-nearest", one({"masked": made.masked(high, half=0.2)})) == "undecided"
    assert state("m-nearest", one({"masked": made.masked({**high, ("original", "background"): 0.9})})) == "does not hold"
    low = dict.fromkeys(COMPLEMENTS, 0.1)
    assert state("m-farthest", one({"masked": made.masked(low)})) == "holds"
    assert state("m-farthest", one({"masked": made.masked({**low, ("foreground", "border"): 0.05})})) == "does not hold"


def test_learnt_structure_exceeds_the_control():
    def study(own, control):
        return made.study((OWN, {"masked": made.masked({PAIR: own})}), (CONTROL, {"masked": made.masked({PAIR: control})}))

    PAIR = ("original", "center")
    assert state("m-structure", study(0.9, 0.6)) == "holds"
    assert state("m-structure", study(0.6, 0.9)) == "does not hold"
    assert state("m-structure", study(0.62, 0.6)) == "undecided"


def test_objects_carry_the_class():
    better = {"foreground": 0.6, "center": 0.6, "background": 0.3, "border": 0.3}
    assert state("m-objects", one({"masked": made.masked(accuracy=better)})) == "holds"
    worse = {"foreground": 0.3, "center": 0.3, "background": 0.6, "border": 0.6}
    assert state("m-objects", one({"masked": made.masked(accuracy=worse)})) == "does not hold"
    assert state("m-objects", one({"masked": made.masked(accuracy=better | {"border": 0.7})})) == "undecided"


def test_neighbours_of_the_supervised_encoder():
    assert state("m-neighbours", one({"masked": made.masked(same=0.4)}, kind="supervised")) == "holds"
    assert state("m-neighbours", one({"masked": made.masked(same=0.8)}, kind="supervised")) == "does not hold"


def test_intervals_are_those_of_scipy():
    a, b = [0.50, 0.53, 0.49, 0.55], [0.41, 0.48, 0.44]
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert welch(a, b)[1:] == pytest.approx((expected.low, expected.high))
    pairs = stats.ttest_rel(a[:3], b).confidence_interval()
    assert paired([x - y for x, y in zip(a, b, strict=False)])[1:] == pytest.approx((pairs.low, pairs.high))
    assert math.isnan(paired([1.0]).low)
    assert beyond(Interval(1.0, math.nan, math.nan)) == "undecided"


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(verdict).failed == 0

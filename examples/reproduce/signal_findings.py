"""Sentences on when Q-Score tells anything, chosen by intervals; no number in them is typed."""

from __future__ import annotations

from collections.abc import Sequence

from examples.reproduce.signal_results import BOTH, CONFIDENCE, NORM, Asked, Bounds, Rows, bounds
from sslk.quality.failure import QSCORE, labels_of
from sslk.quality.studies.signal_epochs import epoch_findings

MOST_NAMES = 4  # in a sentence
WAYS = {1: "above", 0: "not distinguishable from", -1: "below"}


def in_short(asked: Sequence[Asked]) -> str:
    """Does Q-Score tell anything, and anything of its own? Of the encoders that were trained, where there are any."""
    trained = _trained(asked)
    telling = sum(bounds(item.areas[QSCORE], "AUROC").side(0.5) > 0 for item in trained)
    beyond_norm, own = (sum(_left(item, given).side() > 0 for item in trained) for given in (NORM, BOTH))
    return (
        f"Q-Score tells right from wrong answers better than chance for {telling} of {len(trained)} trained encoders. Something "
        f"of its own remains for {beyond_norm} once the feature norm is known, and for {own} once the classifier's confidence is "
        "known too."
    )


def closing(asked: Sequence[Asked], epochs: dict[str, Rows]) -> list[str]:
    """What follows, a sentence or two a point."""
    said = [_sides(asked, [bounds(item.areas[QSCORE], "AUROC").side(0.5) for item in asked], "Q-Score's AUROC is", "chance")]
    said += [_against(asked, name) for name in _scores(asked)]
    for given in (NORM, CONFIDENCE, BOTH):
        said.append(_remaining(asked, given))
    said += [_thresholds(asked), _widths(asked)]
    said += [f"Over the epochs of {name}: {sentence}" for name, rows in epochs.items() for sentence in epoch_findings(rows)]
    return [sentence for sentence in [*said, _rule(asked)] if sentence]


def _trained(asked: Sequence[Asked]) -> Sequence[Asked]:
    return [item for item in asked if item.kind != "untrained"] or asked


def _left(item: Asked, given: str) -> Bounds:
    found = item.partial(QSCORE, given)
    assert found is not None
    return found


def _scores(asked: Sequence[Asked]) -> list[str]:
    names = list(dict.fromkeys(name for item in asked for name in item.areas if name != QSCORE))
    return sorted(names, key=lambda name: labels_of(name) != "no")


def _names(items: Sequence[str]) -> str:
    """A list in words."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def _for(names: Sequence[str], of: int) -> str:
    """For how many encoders, and which where they are few; the tables have them all."""
    if len(names) == of:
        return f"for all {of}" if of > 1 else f"for {names[0]}"
    return f"for {len(names)} of {of}" + (f" ({_names(names)})" if len(names) <= MOST_NAMES else "")


def _sides(asked: Sequence[Asked], sides: Sequence[int], what: str, than: str) -> str:
    """For which encoders it is above, alike and below."""
    groups = {way: [item.name for item, own in zip(asked, sides, strict=True) if own == way] for way in WAYS}
    parts = [f"{WAYS[way]} {than} {_for(names, len(asked))}" for way, names in groups.items() if names]
    return f"{what} {'; '.join(parts)}."


def _against(asked: Sequence[Asked], name: str) -> str:
    there = [item for item in asked if name in item.areas]
    kind = "label-free" if labels_of(name) == "no" else "uses labels"
    sides = [bounds(item.areas[name], "Q-Score less it").side() for item in there]
    sentence = _sides(there, sides, "Its AUROC is", f"that of {name} ({kind})")
    turned = {item.name: 1 - item.areas[name]["AUROC"] for item in there if _wrong(item, name)}
    if turned:
        values = sorted(turned.values())
        reached = f"{values[0]:.3f}" if len(values) == 1 else f"{values[0]:.3f} to {values[-1]:.3f}"
        sentence += (
            f" That of {name} is below chance {_for(list(turned), len(there))}: it is high for wrong answers there and easy to "
            f"beat; with its sign turned it would have {reached}."
        )
    return sentence


def _wrong(item: Asked, name: str) -> bool:
    """Whether a high score means a wrong answer."""
    return bounds(item.areas[name], "AUROC").side(0.5) < 0


def _remaining(asked: Sequence[Asked], given: str) -> str:
    left = [_left(item, given) for item in asked]
    gains = [bounds(item.added(given), "what Q-Score adds") for item in asked]
    highest, most = _highest(left), _highest(gains)
    sentence = _sides(asked, [value.side() for value in left], f"Given {given}, its rank correlation with correctness is", "0")
    return (
        f"{sentence} No interval reaches above {highest:+.3f}. A regression on {given} gains AUROC by it for "
        f"{sum(gain.side() > 0 for gain in gains)} of {len(asked)}; no interval of the gain reaches above {most:+.4f}."
    )


def _highest(values: Sequence[Bounds]) -> float:
    return max((value.high for value in values if value.high is not None), default=float("nan"))


def _thresholds(asked: Sequence[Asked]) -> str:
    there = [item for item in asked if item.over_eps]
    if not there:
        return ""
    short, gap = [], 0.0
    for item in there:
        own, best = item.areas[QSCORE]["AUROC"], max(item.over_eps, key=lambda row: row["AUROC"])
        if own < best["AUROC low"]:
            short.append(f"{item.name}, {own:.3f} at eps {item.number('eps'):g} and {best['AUROC']:.3f} at {best['eps']:g}")
            gap = max(gap, best["AUROC"] - own)
    sentence = (
        f"The eps of the set, which no label chose, gives an AUROC within the interval of the best of the grid for "
        f"{len(there) - len(short)} of {len(there)}; the best is chosen on the test samples."
    )
    if not short:
        return sentence
    return f"{sentence} Elsewhere it falls short by up to {gap:.3f}" + (
        f" ({'; '.join(short)})." if len(short) <= MOST_NAMES else "."
    )


def _widths(asked: Sequence[Asked]) -> str:
    there = [item for item in asked if len(item.over_features) > 1]
    if not there:
        return ""
    sides = []
    for item in there:
        first, last = bounds(item.over_features[0], "AUROC"), bounds(item.over_features[-1], "AUROC")
        apart = [a is not None and b is not None and a > b for a, b in ((last.low, first.high), (first.low, last.high))]
        sides.append(int(apart[0]) - int(apart[1]))
    share = min(item.over_features[0]["features"] / item.over_features[-1]["features"] for item in there)
    what = "With all features, AUROC is, by intervals that do not overlap,"
    return _sides(there, sides, what, f"that with random subsets of 1/{1 / share:.0f} of them")


def _rule(asked: Sequence[Asked]) -> str:
    """What a user does with this."""
    label_free = [name for name in _scores(asked) if labels_of(name) == "no"]
    trained = _trained(asked)
    wins = {
        name: sum(bounds(item.areas[name], "Q-Score less it").side() < 0 for item in trained if name in item.areas)
        for name in label_free
    }
    own = sum(_left(item, BOTH).side() > 0 for item in trained)
    most = max(wins.values(), default=0)
    best = [name for name in label_free if wins[name] == most] if most else ["no other score"]
    return (
        f"So where a classifier's confidence is at hand, something of Q-Score's own is shown for {own} of {len(trained)} trained "
        f"encoders; without labels, {_names(best)} {'tell' if best[1:] else 'tells'} more than it "
        f"{f'for {most} of {len(trained)}' if most else 'for any of them'}."
    )

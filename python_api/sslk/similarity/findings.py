"""What a comparison says, in sentences: on which rows it stands, which pairs are most and least alike, and how sure that is."""

from __future__ import annotations

from sslk.similarity.result import Place, Similarities
from sslk.similarity.settings import DISTANCES, MEASURES, SAMPLED, MeasureName, SimilaritySettings


def pairs_of(found: Similarities, both: bool = False) -> list[Place]:
    """Pairs of different representations, each once, or from both sides."""
    seen: set[frozenset[str]] = set()
    pairs = []
    for row in found.rows:
        for column in found.columns:
            if row != column and (both or frozenset((row, column)) not in seen):
                pairs.append((row, column))
                seen.add(frozenset((row, column)))
    return pairs


def findings(found: Similarities, settings: SimilaritySettings) -> list[str]:
    """One sentence a fact: what was left out, what was sampled, what stands at the ends of every measure, what is not settled."""
    return [*_rows(found, settings), *(_extremes(found, measure) for measure in settings.measures), *_tests(found, settings)]


def _rows(found: Similarities, settings: SimilaritySettings) -> list[str]:
    said = []
    if found.nonfinite:
        said.append(
            f"{found.nonfinite} of {found.nonfinite + found.samples} rows are not finite (NaN or infinity) in some store and "
            "left out of all."
        )
    drawn = [MEASURES[measure] for measure in settings.measures if measure in SAMPLED]
    if found.sampled and found.sampled < found.samples:
        what = [*drawn, *(["the permutation test"] if settings.permutations else [])]
        said.append(f"{', '.join(what)}: on {found.sampled} of {found.samples} rows, drawn with seed {settings.seed}.")
    thin = [name for name, rank in found.ranks.items() if found.samples < 10 * rank]
    if thin:
        said.append(
            f"{found.samples} rows are fewer than ten times the rank of {', '.join(thin)}: CCA, SVCCA and PWCCA are biased "
            "upwards, compare them only with each other and with the chance level."
        )
    return said


def _extremes(found: Similarities, measure: MeasureName) -> str:
    pairs = [pair for pair in pairs_of(found) if found.at(measure, pair).value == found.at(measure, pair).value]
    name = MEASURES[measure]
    if not pairs:
        return f"{name}: not defined, since a representation has no variance."
    ordered = sorted(pairs, key=lambda pair: found.at(measure, pair).value, reverse=measure not in DISTANCES)
    top, last = ordered[0], ordered[-1]
    if len(pairs) == 1:
        return f"{name}: {_said(found, measure, top)}."
    text = f"{name}: most alike {_said(found, measure, top)}, least {_said(found, measure, last)}"
    if len(ordered) < 3 or measure not in found.draws:
        return f"{text}."
    gap = found.difference(measure, top, ordered[1])
    settled = gap.low > 0 or gap.high < 0
    return f"{text}; {' ~ '.join(top)} and {' ~ '.join(ordered[1])} differ by {gap}: {'settled' if settled else 'not settled'}."


def _said(found: Similarities, measure: MeasureName, pair: Place) -> str:
    at = found.at(measure, pair)
    return f"{' ~ '.join(pair)} {at if at.low == at.low else f'{at.value:.3f}'}"


def _tests(found: Similarities, settings: SimilaritySettings) -> list[str]:
    """Pairs that look no more alike than samples paired at random."""
    said = []
    for measure in found.p_values:
        pairs = [pair for pair in pairs_of(found) if (q := _p(found, measure, pair)) == q]
        weak = [f"{' ~ '.join(pair)} (p = {_p(found, measure, pair):.3f})" for pair in pairs if _p(found, measure, pair) > 0.05]
        if weak:
            said.append(f"{MEASURES[measure]}: no more alike than random pairings of the samples: {', '.join(weak)}.")  # type: ignore[index]
        elif pairs:
            most = max(_p(found, measure, pair) for pair in pairs)
            said.append(
                f"{MEASURES[measure]}: {'every pair is' if len(pairs) > 1 else 'the pair is'} more alike than "  # type: ignore[index]
                f"{settings.permutations} random pairings of the samples (p {'at most' if len(pairs) > 1 else '='} {most:.3f})."
            )
    return said


def _p(found: Similarities, measure: str, pair: Place) -> float:
    return float(found.p_values[measure][found.rows.index(pair[0]), found.columns.index(pair[1])])

"""What a study found, in words: the paper's three expectations, confirmed or refuted model by model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from sslk.masked.similarity import Comparison, Matrix

#: Pairs the paper finds most similar, and pairs that share no pixel.
EXPECTED_TOP = {("original", "foreground"), ("original", "center")}
COMPLEMENTS = {("foreground", "background"), ("center", "border")}


def similarity_findings(found: Comparison, random_models: Sequence[str] = ()) -> list[str]:
    """One sentence per model and measure on the order of the pairs, one on how much structure each model has.

    Needs the paper's five variants; otherwise the most and least similar pair are named alone.
    """
    sentences = []
    complete = {name for pair in EXPECTED_TOP | COMPLEMENTS for name in pair} <= set(found.variants)
    for model in found.models:
        for measure, name in (("cka_debiased", "debiased CKA"), ("cca", "CCA")):
            matrix = found.within[model][measure]
            order = ordered_pairs(matrix.value, found.variants)
            if not order:
                continue
            if measure == "cca" and _forced(found, model):
                sentences.append(
                    f"{model}, CCA: with {found.samples} images two representations of these ranks must share directions, "
                    "so it says nothing here; more images or a ridge are needed."
                )
                continue
            top, last = order[0], order[-1]
            text = f"{model}, {name}: most similar {_pair(top, matrix, found)}, least {_pair(last, matrix, found)}."
            sentences.append(text + (f" {_verdict(order)}" if complete else ""))
    if complete:
        sentences += _structure(found, random_models)
    return sentences


def _forced(found: Comparison, model: str) -> bool:
    """Whether ranks alone make some correlations 1: subspaces of n - 1 dimensions whose ranks add up to more meet."""
    ranks = sorted(found.ranks[model].tolist())
    return sum(ranks[-2:]) >= found.samples


def ordered_pairs(matrix: Tensor, variants: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of variants, most similar first; NaN left out.

    >>> import torch
    >>> ordered_pairs(torch.tensor([[1.0, 0.2, 0.9], [0.2, 1.0, 0.4], [0.9, 0.4, 1.0]]), "abc")
    [('a', 'c'), ('b', 'c'), ('a', 'b')]
    """
    values = {
        (variants[u], variants[v]): float(matrix[u, v] + matrix[v, u]) / 2 for u, v in combinations(range(len(variants)), 2)
    }
    return sorted((pair for pair, value in values.items() if value == value), key=lambda pair: -values[pair])


def _verdict(order: list[tuple[str, str]]) -> str:
    top, last = {frozenset(pair) for pair in order[:2]}, {frozenset(pair) for pair in order[-2:]}
    most = top == {frozenset(pair) for pair in EXPECTED_TOP}
    least = last == {frozenset(pair) for pair in COMPLEMENTS}
    places = {frozenset(pair): number + 1 for number, pair in enumerate(order)}
    where = ", ".join(f"{a}–{b} {places[frozenset((a, b))]}" for a, b in (*EXPECTED_SORTED, *COMPLEMENTS_SORTED))
    return (
        f"Original–foreground and original–center most similar: {'confirmed' if most else 'refuted'}; "
        f"complements least: {'confirmed' if least else 'refuted'} (places among the {len(order)} pairs: {where})."
    )


EXPECTED_SORTED = (("original", "foreground"), ("original", "center"))
COMPLEMENTS_SORTED = (("foreground", "background"), ("center", "border"))


def _pair(pair: tuple[str, str], matrix: Matrix, found: Comparison) -> str:
    u, v = (found.variants.index(name) for name in pair)
    value, low, high = (float(part[u, v]) for part in (matrix.value, matrix.low, matrix.high))
    bounds = f" [{low:.2f}, {high:.2f}]" if low == low else ""
    return f"{pair[0]}–{pair[1]} {value:.2f}{bounds}"


def spread(matrix: Tensor) -> tuple[float, float]:
    """Lowest and highest off-diagonal entry, NaN left out."""
    values = [float(matrix[u, v]) for u in range(len(matrix)) for v in range(len(matrix)) if u != v]
    values = [value for value in values if value == value]
    return (min(values), max(values)) if values else (float("nan"), float("nan"))


def _structure(found: Comparison, random_models: Sequence[str]) -> list[str]:
    ranges = {model: spread(found.within[model]["cka_debiased"].value) for model in found.models}
    text = ", ".join(f"{model} {low:.2f} to {high:.2f}" for model, (low, high) in ranges.items())
    sentence = f"Range of debiased CKA between different variants: {text}."
    trained = [high - low for model, (low, high) in ranges.items() if model not in random_models]
    control = [high - low for model, (low, high) in ranges.items() if model in random_models]
    if trained and control:
        held = max(control) < min(trained)
        sentence += f" Random weights tell the variants apart less than trained ones: {_yes(held)}"
        sentence += f" (range {max(control):.2f} against {min(trained):.2f} or more)."
    return [sentence]


def _yes(held: bool) -> str:
    return "confirmed" if held else "refuted"

"""The numbers of a study as a run: what is computed, and what was found."""

from __future__ import annotations

from typing import Any

from sslk.masked.analysis import streams_of
from sslk.masked.extract import variant_width
from sslk.masked.findings import similarity_findings, spread
from sslk.masked.run_parts import RunParts, StudyNumbers
from sslk.masked.similarity import Comparison, compare_variants
from sslk.progress import Progress
from sslk.results.run import Measure, Run


def study_run(numbers: StudyNumbers, origin: dict[str, Any], say: Progress) -> Run:
    """Compute everything from the stores."""
    settings, stores = numbers.settings, numbers.stores
    parts = RunParts()
    parts.variants(numbers)
    widths = {model: variant_width(store) for model, store in stores.items()}
    say(0, len(stores), "similarities")
    found = compare_variants(
        streams_of(stores),
        widths,
        settings.variants,
        resamples=settings.resamples,
        seed=settings.seed,
        ridge=settings.ridge,
        progress=say,
    )
    parts.similarities(found)
    findings = [*_facts(numbers, found), *similarity_findings(found, numbers.random_models)]
    if settings.rbf_fraction is not None:
        parts.rbf(stores, settings)
    findings += parts.neighbors(stores, settings, say)
    findings += parts.evaluation(numbers, say)
    if settings.umap_share:
        parts.umap(stores, settings, say)
    summary: dict[str, float | int | str | None] = {"images": found.samples, "variants": len(settings.variants)}
    for model in found.models:
        low, high = spread(found.within[model]["cka_debiased"].value)
        summary |= {f"{model}: lowest debiased CKA": low, f"{model}: highest debiased CKA": high}
    title = f"Masked inputs: {len(settings.variants)} variants of {found.samples} images of {numbers.dataset}"
    return Run("masked", title, findings, origin, summary, parts.tables, parts.figures, _measures(found, numbers), parts.files)


def _measures(found: Comparison, numbers: StudyNumbers) -> list[Measure]:
    """Debiased CKA of every variant with the original, where that takes part."""
    if "original" not in found.variants:
        return []
    origin = found.variants.index("original")
    matrices = {model: found.within[model]["cka_debiased"] for model in found.models}
    return [
        Measure(
            numbers.dataset,
            model,
            f"masked inputs: {variant}",
            "debiased CKA with the original",
            float(matrix.value[origin, v]),
            float(matrix.low[origin, v]),
            float(matrix.high[origin, v]),
            found.samples,
        )
        for model, matrix in matrices.items()
        for v, variant in enumerate(found.variants)
        if v != origin
    ]


def _facts(numbers: StudyNumbers, found: Comparison) -> list[str]:
    """What was done to the images, and what bears on the estimates."""
    sentences = []
    if numbers.segmenter is not None:
        masks = numbers.images.masks
        bad = ", ".join(f"{count} {kind}" for kind, count in numbers.images.bad_masks.items())
        assert masks is not None
        sentences.append(
            f"Foreground by {numbers.segmenter}: {masks.share.mean():.0%} of the centre square on average; "
            f"of {len(masks)} masks {bad}, "
            f"{'kept' if numbers.settings.on_bad_mask == 'keep' else 'these images dropped'}."
        )
    for model, count in numbers.upsampled.items():
        if count:
            sentences.append(f"{model}: {count} images are smaller than its crop and were enlarged.")
    for model in found.models:
        ranks = found.ranks[model].tolist()
        if found.samples < 10 * max(ranks):
            sentences.append(
                f"{model}: {found.samples} images for representations of rank {min(ranks)} to {max(ranks)}: CCA, SVCCA "
                "and PWCCA are biased upwards, compare them only with each other."
            )
    return sentences

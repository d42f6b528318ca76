"""The numbers of a study into a run folder: what is computed, what was found, `results.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslk.masked.analysis import streams_of
from sslk.masked.extract import variant_width
from sslk.masked.findings import similarity_findings, spread
from sslk.masked.run_writer import RunWriter, StudyNumbers
from sslk.masked.similarity import Comparison, compare_variants
from sslk.results.run import Run


def write_study(
    folder: Path, numbers: StudyNumbers, origin: dict[str, Any], say: Callable[[str, int, int], None]
) -> Run:
    """Compute everything from the stores and save the run."""
    settings, stores = numbers.settings, numbers.stores
    writer = RunWriter(folder)
    writer.variants(numbers)
    widths = {model: variant_width(store) for model, store in stores.items()}
    done = iter(range(len(stores) + 1))
    say("similarities", next(done), len(stores))
    found = compare_variants(
        streams_of(stores), widths, settings.variants, resamples=settings.resamples, seed=settings.seed,
        ridge=settings.ridge, progress=lambda model: say("similarities", next(done), len(stores)),
    )  # fmt: skip
    writer.similarities(found)
    findings = [*_facts(numbers, found), *similarity_findings(found, numbers.random_models)]
    if settings.rbf_fraction is not None:
        writer.rbf(stores, settings)
    findings += writer.neighbors(stores, settings, say)
    findings += writer.evaluation(numbers, say)
    if settings.umap_share:
        writer.umap(stores, settings, say)
    summary: dict[str, float | int | str | None] = {"images": found.samples, "variants": len(settings.variants)}
    for model in found.models:
        low, high = spread(found.within[model]["cka_debiased"].value)
        summary |= {f"{model}: lowest debiased CKA": low, f"{model}: highest debiased CKA": high}
    title = f"Masked inputs: {len(settings.variants)} variants of {found.samples} images of {numbers.dataset}"
    run = Run("masked", title, findings, origin, summary, writer.tables, writer.figures)
    run.save(folder)
    return run


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

"""The section of the results page on further training: tables of arms, of their differences, choices and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.reproduce.arms import READ
from examples.reproduce.arms_results import AUROC, MEAN_Q, TOP1, beside, difference, paper_difference, paper_row, run_of
from examples.reproduce.page_tables import markdown
from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import paired
from sslk.results.run import Run
from sslk.training.config import ARMS

_PAIRS = (("qscore", "baseline"), ("qscore", "lasso"), ("lasso", "baseline"))


def arms_section(study: Study) -> list[str]:
    """Parts in Markdown, none where no encoder was trained further.

    Args:
        study: with the runs `arms` and `gradients` of its encoders.
    """
    trained = [(found, run) for found in study.encoders if (run := run_of(study, found, "arms")) is not None]
    weighed = [(found, run) for found in study.encoders if (run := run_of(study, found, "gradients")) is not None]
    parts = ["### Further training in three arms"] if trained or weighed else []
    if weighed:
        parts += [_ABOUT_GRADIENTS, gradients_table(weighed), _vanishing(weighed)]
    if trained:
        parts += [
            _about(study, [run for _, run in trained]),
            table_a1(trained),
            _ABOUT_DIFFERENCES,
            differences_table(study, trained, _PAIRS),
            *_beside_the_paper(study, trained),
            "What every arm chose, and what its best trial reached on the validation images:",
            choices_table(trained),
            *_further(study, trained),
        ]
    return parts


_ABOUT_GRADIENTS = (
    "How large the penalties' gradients in the encoder's parameters are beside the SSL loss's, at the paper's weight 1e-4, mean "
    "over batches [95 %]; they are linear in lambda, and the last columns say at which lambda they are as large. The first term "
    "of the regulariser is a mean over the rows of a batch, the second a sum over rows and columns."
)
_ABOUT_DIFFERENCES = (
    "Differences in pairs, same seed and same test images, with intervals over seeds and images together; the last row is the "
    "mean over the encoders with Student's interval over them:"
)

_ABOUT_FURTHER = (
    "Further arms, with choices of their own by as many trials: what the paper leaves open (`qscore-quarter`: alpha is the lower "
    "quartile of the batch's scores; `qscore-raw`: the penalty on the projector's input as it is, not normalised; "
    "`qscore-again`: S is found again every epoch; `qscore-eps4`: S is found at the paper's eps = 4), and the paper's own "
    "setting without a choice (`paper-`: learning rate 1e-5, lambdas 1e-4):"
)


def _about(study: Study, runs: Sequence[Run]) -> str:
    config = study.config.arms
    read = sum(int(run.summary.get(READ) or 0) for run in runs)
    kept = (
        f" {read} trainings and evaluations were read from the committed ones, `--arms.retrain` does them again." if read else ""
    )
    return (
        f"Each arm goes on from encoder and heads for {config.epochs} epochs of {config.images:,} training images (LARS, batches "
        f"of 256), {config.seeds} seeds; learning rate and lambdas were chosen for each arm by {config.trials} trials of "
        f"{config.trial_epochs} epochs, the paper's setting among them, judged on {config.validation_images:,} other images of "
        f"the training split. No test image chose anything.{kept} Mean over seeds ± deviation of the linear probe's top-1 [%], "
        "and the paper's table A.1 (CIFAR-10):"
    )


def table_a1(trained: Sequence[tuple[EncoderResults, Run]]) -> str:
    """Top-1 of every arm beside the paper's."""
    rows = []
    for found, run in trained:
        mine = {row["arm"]: row for row in records(table(run, "Arms"))}
        cells = [_mean(mine[arm]) if arm in mine else "" for arm in ("before", *ARMS)]
        theirs = paper_row(found)
        rows.append([found.encoder.name, *cells, *(theirs.get(arm, "") for arm in ARMS)])
    return markdown(["encoder", "before", *ARMS, *(f"paper: {arm}" for arm in ARMS)], rows)


def differences_table(study: Study, trained: Sequence[tuple[EncoderResults, Run]], pairs: Sequence[tuple[str, str]]) -> str:
    """Differences of arms, one row an encoder and pair, and the mean over encoders."""
    rows: list[list[Any]] = []
    quantities = ((TOP1, 2), (MEAN_Q, 4), (AUROC, 3))
    for pair in pairs:
        values: dict[str, list[float]] = {name: [] for name, _ in quantities}
        for found, _ in trained:
            cells = []
            for name, digits in quantities:
                measured = difference(study, found, *pair, name)
                cells.append("" if measured is None else measured.interval.text(digits))
                values[name] += [] if measured is None else [measured.interval.value]
            if any(cells):
                rows.append([f"{pair[0]} less {pair[1]}", found.encoder.name, *cells])
        means = [paired(values[name]).text(digits) if values[name] else "" for name, digits in quantities]
        if max(len(found) for found in values.values()) > 1:
            rows.append([f"{pair[0]} less {pair[1]}", "**mean**", *means])
    return markdown(["arms", "encoder", "probe top-1 [points]", "mean Q", "Q-Score AUROC"], rows)


def _beside_the_paper(study: Study, trained: Sequence[tuple[EncoderResults, Run]]) -> list[str]:
    """Whether the intervals leave room for differences as large as the paper's."""
    said = []
    for other in ("baseline", "lasso"):
        places = []
        for found, _ in trained:
            measured, theirs = difference(study, found, "qscore", other, TOP1), paper_difference(found, "qscore", other)
            if measured is not None and theirs is not None:
                places.append(beside(measured.interval, theirs))
        counts = [f"{place} the interval of {places.count(place)}" for place in ("above", "inside", "below") if place in places]
        if counts:
            said.append(f"less {other} lies {', '.join(counts)} of {len(places)} encoders")
    return [f"In top-1, the paper's difference qscore {'; qscore '.join(said)}."] if said else []


def choices_table(trained: Sequence[tuple[EncoderResults, Run]]) -> str:
    """Learning rate and lambdas that every arm chose."""
    rows = []
    for found, run in trained:
        best: dict[str, float] = {}
        for trial in records(table(run, "All trials")):
            if trial["validation top-1 [%]"] is not None:
                best[trial["arm"]] = max(best.get(trial["arm"], 0.0), trial["validation top-1 [%]"])
        for row in records(table(run, "Chosen")):
            if row["arm"] in best:
                numbers = [
                    "" if row[name] is None else f"{row[name]:g}" for name in ("learning rate", "lambda1", "lambda2", "lasso")
                ]
                rows.append([found.encoder.name, row["arm"], *numbers, f"{best[row['arm']]:.2f}"])
    columns = ["encoder", "arm", "learning rate", "lambda1", "lambda2", "lasso", "validation top-1 [%]"]
    return markdown(columns, rows)


def gradients_table(weighed: Sequence[tuple[EncoderResults, Run]]) -> str:
    """Shares at 1e-4 and the lambdas of equal size."""
    rows = []
    for found, run in weighed:
        shares = _shares(run)
        terms = ("lambda1 term", "lambda2 term", "lasso term")
        cells = [_share(shares[term]) for term in terms]
        equal = [1e-2 / shares[term]["encoder [%]"] if shares[term]["encoder [%]"] else None for term in terms]
        rows.append([found.encoder.name, *cells, *("" if value is None else _digits(value, 1) for value in equal)])
    names = ("lambda1", "lambda2", "lasso")
    columns = ["encoder", *(f"{name} term [%]" for name in names), *(f"equal at {name}" for name in names)]
    return markdown(columns, rows)


def _vanishing(weighed: Sequence[tuple[EncoderResults, Run]]) -> str:
    """What the table says of the paper's weight."""
    shares = [_shares(run) for _, run in weighed]
    largest = max(share["lambda1 term"]["encoder high [%]"] for share in shares)
    second = [share["lambda2 term"]["encoder [%]"] for share in shares]
    vanishes = ": it vanishes there" if largest < 0.1 else ""
    return (
        f"At 1e-4 the first term, which alone lifts low Q-Scores, has at most {_digits(largest, 1)} % of the SSL loss's "
        f"gradient{vanishes}. The second has {_digits(min(second), 2)} to {_digits(max(second), 2)} %."
    )


def _shares(run: Run) -> dict[str, dict[str, Any]]:
    """The row of each term at the paper's weight."""
    return {row["term"]: row for row in records(table(run, "Gradient over")) if abs(row["lambda"] - 1e-4) < 1e-9}


def _further(study: Study, trained: Sequence[tuple[EncoderResults, Run]]) -> list[str]:
    """Of the arms that the paper leaves open, and of its own setting, where they were trained."""
    names = list(dict.fromkeys(row["arm"] for _, run in trained for row in records(table(run, "Arms"))))
    pairs = [(name, "baseline") for name in names if name.startswith("qscore-")]
    pairs += [("paper-qscore", f"paper-{other}") for other in ("baseline", "lasso") if "paper-qscore" in names]
    if not pairs:
        return []
    return [_ABOUT_FURTHER, differences_table(study, trained, pairs)]


def _share(row: dict[str, Any]) -> str:
    value, low, high = (_digits(row[name], 2) for name in ("encoder [%]", "encoder low [%]", "encoder high [%]"))
    return f"{value} [{low}, {high}]"


def _digits(value: float, count: int) -> str:
    """So many significant digits, large numbers without an exponent.

    >>> _digits(99.6, 2), _digits(21.3, 1), _digits(6.84e-6, 2)
    ('100', '20', '6.8e-06')
    """
    return f"{float(f'{value:.{count}g}'):g}"


def _mean(row: dict[str, Any]) -> str:
    return f"{row['probe top-1 [%]']:.2f} ± {row['top-1 deviation']:.2f}"

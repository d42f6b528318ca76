"""What a study took, by kind of step, from the state that its evaluation keeps."""

from __future__ import annotations

import json
from pathlib import Path

from examples.reproduce.page_tables import markdown
from examples.reproduce.results import Study
from sslk.evaluation.run import STATE


def cost_section(folder: Path, study: Study) -> list[str]:
    """Seconds of every kind of step, and the steps that were not done; empty without a state."""
    path = folder / STATE
    if not path.is_file():
        return []
    outcomes = json.loads(path.read_text())["steps"]
    names = {found.encoder.name for found in study.encoders}
    kinds: dict[str, list[float]] = {}
    for name, outcome in outcomes.items():
        owner, _, what = name.partition("/")
        kind = f"{what}, of each encoder" if owner in names else owner
        if outcome.get("seconds"):
            kinds.setdefault(kind, []).append(outcome["seconds"])
    rows = [
        [kind, len(seconds), f"{max(seconds):.0f}", f"{sum(seconds) / 60:.1f}"]
        for kind, seconds in sorted(kinds.items(), key=lambda item: -sum(item[1]))
    ]
    total = sum(sum(seconds) for seconds in kinds.values()) / 3600
    run = next((run for found in study.encoders for run in found.runs.values()), None)
    where = "" if run is None else f" ({run.provenance['machine']}, torch {run.provenance['torch']})"
    text = (
        f"{total:.2f} hours of processes that each take one step at a time{where}: with `--workers 2`, two run at once. Times "
        "are of the wall, other work may have shared the machine, and a step that was interrupted has that of its last go."
    )
    failed = [name for name, outcome in outcomes.items() if outcome["state"] != "done"]
    more = [f"Steps not done: {', '.join(failed)}."] if failed else []
    return ["## Cost", text, markdown(["step", "times", "longest [s]", "all [min]"], rows), *more]

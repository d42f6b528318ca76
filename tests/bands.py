"""The probe accuracy that tests/test_science.py expects of every packaged encoder, measured when the encoders are packed.

    python -m tests.bands

writes tests/bands.json: an entry per encoder of the registry, with the hash of the weights that it was measured on.
"""

import json
from pathlib import Path

import torch

from sslk.data.sample import load_sample
from sslk.models import load_backbone
from sslk.models.project import project_encoders
from sslk.probes.batched import fit_linear_probes
from sslk.quality.subsets import standardized
from sslk.results.atomic import write_atomically

BANDS = Path(__file__).with_name("bands.json")
PENALTY = 3e-2  # the best for the sample's 2,000 training images at D = 256, see sslk.probes.settings.PENALTIES


def probe_accuracy(model: str) -> float:
    """Top-1 on the sample's test images of one logistic regression on its training images, under an encoder by name."""
    backbone = load_backbone(model).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    features, labels = [], []
    for split in ("train", "test"):
        images, numbers = load_sample(split)
        with torch.inference_mode():
            features.append(torch.cat([backbone((batch.float() / 255 - mean) / std) for batch in images.split(500)]))
        labels.append(torch.as_tensor(numbers).long())
    train, test = standardized(*features, None)
    probe = fit_linear_probes(train, labels[0], l2=torch.tensor([PENALTY], dtype=torch.float64))
    return float((probe.predict(test)[0] == labels[1]).float().mean())


def main() -> None:
    """Measure and write."""
    bands = {
        name: {"sha256": entry.sha256, "top1": round(probe_accuracy(f"project:{name}"), 4)}
        for name, entry in project_encoders().items()
    }
    write_atomically(BANDS, (json.dumps(bands, indent=1) + "\n").encode())
    print(f"{BANDS.name}: {len(bands)} encoders")


if __name__ == "__main__":
    main()

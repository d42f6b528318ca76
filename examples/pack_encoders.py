"""Packs pre-trained encoders into the package, where `load_backbone("project:NAME")` finds them.

    python examples/pack_encoders.py --runs DIR [--methods simclr byol ...] [--unfinished]

`DIR/METHOD` is what `examples/pretrain.py` has left, `DIR/supervised` what `examples/reproduce/supervised.py` has. NAME is
METHOD-cifar10, with D behind the method where it is not 256: simclr512-cifar10. Written, all of it in float16:

    weights/NAME.safetensors   the encoder, with how it was trained
    states/NAME.safetensors    for further training: heads, momentum copies, queue or centre, the optimiser's momentum
    weights/registry.json      which encoders there are, with the hashes of both files

Wheels and source distributions leave `states` out. The same runs give the same bytes; other encoders' entries stay.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrain import SETTINGS, read_run
from safetensors.torch import save
from torch import Tensor

import sslk.models
from sslk.files.tensors import read_tensors
from sslk.files.text import read_json
from sslk.models.project import ABOUT, BUFFER, REGISTRY, ProjectEncoder
from sslk.results.atomic import write_atomically
from sslk.training.run import steps_done

MOST_MEGABYTES = 25  # of all weights: they are in every wheel
METHODS = (*SETTINGS, "supervised")
ORIGIN = ("ssl_kernels", "torch", "numpy", "python", "machine", "date", "commit")  # of the provenance; paths are none of them


class UnfinishedError(ValueError):
    """A run has not reached the end of its schedule."""


@dataclass(frozen=True, eq=False)
class Trained:
    """An encoder as its run has left it.

    Attributes:
        about: how it was trained, JSON.
        encoder: its tensors.
        state: what else further training takes up.
    """

    about: dict[str, Any]
    encoder: dict[str, Tensor]
    state: dict[str, Tensor]

    @property
    def features(self) -> int:
        """D."""
        return self.about["architecture"]["channels"][-1]

    @property
    def name(self) -> str:
        """In the registry.

        Raises:
            ValueError: the network is none that the name stands for.
        """
        if self.about["architecture"]["channels"][:3] != [16, 32, 64]:
            raise ValueError(f"the encoder's channels must be 16 32 64 D, got {self.about['architecture']['channels']}.")
        return f"{self.about['method']}{'' if self.features == 256 else self.features}-cifar10"


def read_self_supervised(folder: Path, unfinished: bool = False) -> Trained:
    """A run of `examples/pretrain.py`.

    Raises:
        UnfinishedError: it has not reached the end of its schedule.
        ValueError: its files do not belong together.
    """
    file = folder / "model.safetensors"
    shipped, metadata = read_tensors(file, "the run's model")
    run, kept = read_json(folder / "config.json", "the run's settings"), read_run(folder)
    config, (data, fingerprint, images) = run["config"], run["data"]
    per_epoch, steps = images // config["batch_size"], steps_done(folder)
    if steps < config["epochs"] * per_epoch and not unfinished:
        done = f"{steps} of {config['epochs'] * per_epoch} steps"
        raise UnfinishedError(f"{folder} has done {done}: finish it, or add --unfinished.")
    split = _split(kept.tensors)
    if steps == config["epochs"] * per_epoch and not all(
        bool((shipped[name] == tensor.to(shipped[name].dtype)).all()) for name, tensor in kept.tensors.items()
    ):
        raise ValueError(f"{file} and last.ckpt beside it are of different steps: give the command that trained them again.")
    epochs = steps / per_epoch
    about = {
        "method": kept.method,
        "options": kept.options,
        "architecture": {"name": "CifarResNet", "channels": kept.channels, "blocks": 1},
        "mean": json.loads(metadata["mean"]),
        "std": json.loads(metadata["std"]),
        "dataset": f"{dataset_name(data)}, {images:,} images",
        "fingerprint": fingerprint,
        "epochs": int(epochs) if epochs.is_integer() else round(epochs, 3),
        "schedule": config["epochs"],
        "settings": config,
        "start": json.loads(metadata.get("start", "{}")),
        "provenance": {key: value for key, value in json.loads(metadata["provenance"]).items() if key in ORIGIN},
    }
    return Trained(about, split[0], split[1] | {BUFFER + name: buffer for name, buffer in kept.momentum.items()})


def read_supervised(folder: Path) -> Trained:
    """What `examples/reproduce/supervised.py` writes when it has done its epochs: network and head."""
    tensors, metadata = read_tensors(folder / "model.safetensors", "the supervised model")
    encoder, head = _split(tensors)
    channels = [len(encoder[f"stages.{stage}.0.conv1.weight"]) for stage in range(4)]
    read = {key: json.loads(metadata[key]) for key in ("images", "epochs", "settings", "mean", "std")}
    about = {
        "method": "supervised",
        "architecture": {"name": "CifarResNet", "channels": channels, "blocks": 1},
        "dataset": f"{read['images']:,} training images with labels",
        **read,
        "provenance": {"torch": metadata["torch"]},
    }
    return Trained(about, encoder, head)


def _split(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder's tensors by its own names, and the rest."""
    encoder = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    return encoder, {name: tensor for name, tensor in tensors.items() if not name.startswith("backbone.")}


def dataset_name(data: str) -> str:
    """A data set's name for a reader, without folders and endings of its files.

    >>> dataset_name("npz:/data/cifar/train.npz+npz:../test.npz"), dataset_name("sample/train")
    ('train + test', 'train')
    """
    return " + ".join(Path(part.rpartition(":")[2]).stem for part in data.split("+"))


def packed(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    """A safetensors file in float16, the same bytes for the same content.

    Raises:
        ValueError: a value is above what float16 holds.
    """
    half = {}
    for name, tensor in tensors.items():
        half[name] = tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
        if not half[name].isfinite().all():
            raise ValueError(f"{name} does not fit float16: its largest value is {float(tensor.abs().max()):g}.")
    return save(half, {ABOUT: json.dumps(about, sort_keys=True)})


def write(found: list[Trained], into: Path) -> None:
    """Write the files of all encoders, then the registry, and print what there is.

    Raises:
        ValueError: weights would be more than a wheel should hold, or do not fit float16; nothing is written.
    """
    weights, registry = into / "weights", into / "weights" / REGISTRY
    entries = read_json(registry, "the registry") if registry.is_file() else {}
    contents: dict[Path, bytes] = {}
    for trained in found:
        files = {"weights": packed(trained.encoder, trained.about), "states": packed(trained.state, trained.about)}
        contents |= {into / folder / f"{trained.name}.safetensors": content for folder, content in files.items()}
        sha256, state_sha256 = (hashlib.sha256(content).hexdigest() for content in files.values())
        entry = ProjectEncoder(sha256, trained.about["method"], trained.about["epochs"], trained.features, state_sha256)
        entries[trained.name] = asdict(entry)
    sizes = {file: file.stat().st_size for file in weights.glob("*.safetensors")}
    sizes |= {file: len(content) for file, content in contents.items() if file.parent == weights}
    total = sum(sizes.values()) / 1e6
    if total > MOST_MEGABYTES:
        raise ValueError(f"all weights together must be at most {MOST_MEGABYTES} MB, they would be {total:.1f} MB.")
    for file, content in contents.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    kept = {name: entries[name] for name in sorted(entries) if (weights / f"{name}.safetensors").is_file()}  # not the deleted
    write_atomically(registry, (json.dumps(kept, indent=1) + "\n").encode())
    for trained in found:
        print(f"project:{trained.name}: {trained.about['epochs']} epochs, D = {trained.features}")
    print(f"in the registry: {len(kept)}; all weights {total:.1f} MB of at most {MOST_MEGABYTES}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of METHOD/model.safetensors and METHOD/last.ckpt")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="all finished ones by default")
    parser.add_argument("--unfinished", action="store_true", help="pack runs that have not reached the end of their schedule")
    parser.add_argument("--into", type=Path, default=Path(sslk.models.__file__).parent, help="the package's models folder")
    args = parser.parse_args()
    methods = args.methods or [name for name in METHODS if (args.runs / name / "model.safetensors").is_file()]
    if not methods:
        raise SystemExit(f"--runs {args.runs} holds no METHOD/model.safetensors, as examples/pretrain.py leaves them.")
    found = []
    try:
        for name in methods:
            folder = args.runs / name
            try:
                found.append(read_supervised(folder) if name == "supervised" else read_self_supervised(folder, args.unfinished))
            except UnfinishedError as error:
                if args.methods:
                    raise
                print(f"left out: {error}")
        write(found, args.into)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()

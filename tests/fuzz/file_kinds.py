"""The kinds of files that the package reads by a name that a user or another file gives: a small valid one, and its reader."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from sslk import config_file
from sslk.commands.reverse_inputs import load_accuracies, load_assignment
from sslk.data import load_dataset
from sslk.evaluation.carry_out import _quality
from sslk.evaluation.run import STATE, Evaluation
from sslk.features import FeatureStore, StoreSpec, StoreWriter
from sslk.interpret import concepts as image_concepts
from sslk.interpret.atlas.statistics import collect
from sslk.interpret.correctness import read_correct
from sslk.interpret.masks import MaskFolder
from sslk.interpret.parts import Parts
from sslk.interpret.salient_imagenet import read_answers
from sslk.masked.masks import Masks, build_masks
from sslk.masked.segmenters import FileSegmenter, Scene
from sslk.models.checkpoints import load_checkpoint
from sslk.probes.rows import StoreRows
from sslk.quality.ablation import _read_journal
from sslk.quality.discover import DiscriminativeFeatures
from sslk.quality.transfer import TransferResult, read_result
from sslk.report.page import render_page
from sslk.report.run import RESULTS, Run
from sslk.reverse.concepts import ClassAttributes, ConceptTable
from sslk.reverse.concepts.build import read_part
from sslk.reverse.concepts.by_name import read_names, read_prompts
from sslk.reverse.quantizer import KMeansSettings, quantize
from sslk.training.checkpoints import LAST, load_method, save_method
from sslk.training.run import claim, read_logs, steps_done


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: of the kind.
        write: makes the valid files in an empty folder.
        files: those to damage, relative to the folder.
        read: reads them as the package does, and uses what was read.
        exact: whether damage to any byte is noticed, so that what is read at all must be what was written.
    """

    name: str
    write: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Any]
    exact: bool = False


def write_store(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    spec = StoreSpec(
        "m", "0" * 64, "d", "0" * 64, "none", samples=12, num_features=4, shard_rows=8, classes=("cat", "dog", "é")
    )
    with StoreWriter(folder, spec) as writer:
        for number, rows in enumerate(torch.arange(12).split(8)):
            skipped = ((11, "cannot be read"),) if number else ()
            rows = rows[: len(rows) - len(skipped)]
            writer.write(number, torch.randn(len(rows), 4, generator=generator).relu(), rows % 3, rows, skipped)
    list(FeatureStore(folder).shards())  # leaves the times of its checks


def read_store(folder: Path) -> Any:
    store = FeatureStore(folder)
    rows = [batch.features.tolist() for batch in store.batches(5, shuffle=True)]
    loaded = store.load()
    found = DiscriminativeFeatures.from_counts(torch.tensor([1, 2, 3, 4]), 11, eps=1.0)
    statistics = collect(store, found, torch.arange(2), top=2)
    return (rows, loaded.features.tolist(), loaded.indices.tolist(), store.labels().tolist(), store.spec,
            StoreRows(store).position.tolist(), statistics.class_sizes.tolist(), store.manifest.rows)  # fmt: skip


def write_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(
        folder / "images.npz", images=pixels, labels=np.array([0, 1, 2, 0, 1, 2]), classes=np.array(["a", "b", "c"])
    )
    np.savez_compressed(folder / "grey.npz", images=pixels[..., 0], labels=np.array([0, 1, 2, 0, 1, 2]))


def read_images(name: str, folder: Path) -> Any:
    dataset = load_dataset(f"npz:{folder / name}")
    labels = None if dataset.labels is None else dataset.labels.tolist()
    return [np.array(image).tolist() for image, _ in dataset], labels, dataset.classes, dataset.fingerprint


def write_image_folder(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        Image.new("RGB", (8, 8), "red").save(folder / name / "0.png")


def read_image_folder(folder: Path) -> Any:
    return [np.array(image).tolist() for image, _ in load_dataset(f"folder:{folder}")]


def write_tiny(folder: Path) -> None:
    (folder / "val/images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n2\nn1\n")
    (folder / "words.txt").write_text("n1\tcat\nn2\tdog\n")
    (folder / "val/val_annotations.txt").write_text("0.png\tn1\t0\t0\t3\t3\n1.png\tn2\t1\t1\t5\t5\n")
    for number in range(2):
        Image.new("RGB", (8, 8), "red").save(folder / f"val/images/{number}.png")


def read_tiny(folder: Path) -> Any:
    dataset = load_dataset(f"tiny-imagenet:{folder}", "val")
    return dataset.labels.tolist(), dataset.classes, [dataset.annotation(i).boxes.tolist() for i in range(len(dataset))], [
        image.size for image, _ in dataset]  # fmt: skip


def write_class_list(folder: Path) -> None:
    (folder / "list.txt").write_text("n1 cat\nn2 dog\n")
    for name in ("n1", "n2"):
        (folder / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / "val" / name / "0.png")


def read_class_list(folder: Path) -> Any:
    return load_dataset(f"imagenet-100:{folder / 'list.txt'}", "val", root=folder).classes


def write_table(folder: Path) -> None:
    ConceptTable.from_rows([[0], [1, 2], [], [2]], ["red", "blue", "round"], ["colour", "colour", "shape"]).save(
        folder / "t.safetensors"
    )


def read_table(folder: Path) -> Any:
    table = ConceptTable.load(folder / "t.safetensors")
    joined = table.join(table.samples.flip(0))
    return (
        table.dense().tolist(),
        repr(table),
        table.constant(),
        table.counts.tolist(),
        joined.dense().tolist(),
        repr(table.about),
    )


def write_clusterings(folder: Path) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    quantize(x, KMeansSettings(clusters=2, clusterings=2, restarts=1)).save(folder / "c.safetensors")


def read_clusterings(folder: Path) -> Any:
    found = load_assignment(str(folder / "c.safetensors"), "given")
    assigned = found.assign(torch.ones(2, 3)).tolist() if found.centroids is not None else None
    return found.sizes().tolist(), found.samples.tolist(), assigned, found.inertia.tolist(), found.about.get("settings")


def write_image_concepts(folder: Path) -> None:
    matrix = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
    np.savez(folder / "c.npz", matrix=matrix, names=np.array(["red", "blue"]))
    (folder / "c.csv").write_text("index,red,blue\n1,0,1\n0,1,0\n2,1,1\n")


def read_image_concepts(name: str, folder: Path) -> Any:
    table = image_concepts.ConceptTable.load(folder / name)
    return table.matrix.tolist(), list(table.names)


def write_discriminative(folder: Path) -> None:
    DiscriminativeFeatures.from_counts(torch.tensor([1, 2, 3, 4]), 10, eps=1.0).save(folder / "s.safetensors")


def read_discriminative(folder: Path) -> Any:
    found = DiscriminativeFeatures.load(folder / "s.safetensors")
    return (
        found.summary(),
        found.mask.tolist(),
        found.lower_tail.tolist(),
        found.upper_tail.tolist(),
        found.two_sided,
        found.model,
    )


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def write_checkpoints(folder: Path) -> None:
    from safetensors.torch import save_file

    state = small_net().state_dict()
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "s.safetensors")


def read_checkpoint(name: str, folder: Path) -> Any:
    net = small_net()
    load_checkpoint(net, folder / name)
    return [tensor.shape for tensor in net.state_dict().values()]


def write_training(folder: Path) -> None:
    torch.save({"global_step": 7, "state_dict": {"w": torch.ones(3)}}, folder / LAST)
    save_method(small_net(), folder / "start.safetensors", {"method": "m"})
    claim(folder, {"arm": "baseline", "config": {"seed": 0, "epochs": 3}}, True)
    (folder / "logs/version_0").mkdir(parents=True)
    (folder / "logs/version_0/metrics.csv").write_text("epoch,loss,step\n0,1.5,0\n0,1.25,1\n")


def read_training(folder: Path) -> Any:
    net = small_net()
    load_method(net, folder / "start.safetensors")
    claim(folder, {"arm": "baseline", "config": {"seed": 0, "epochs": 3}}, True)
    return steps_done(folder), read_logs(folder)


def write_csvs(folder: Path) -> None:
    (folder / "accuracies.csv").write_text("model,top1\nsimclr,70.5\nbyol,71\n")
    (folder / "assignment.csv").write_text("sample,cluster\n0,1\n1,0\n2,1\n")
    (folder / "attributes.csv").write_text("class,wings,wheels\ncat,0,0\nplane,1,1\n")
    (folder / "correct.csv").write_text("index,correct\n0,1\n1,0\n2,true\n")
    (folder / "answers.csv").write_text(
        "Input.wordnet_id,Input.class_index,Input.feature_index,Answer.main\nn00000001,0,3,background\nn00000001,0,3,main_object\n"
    )
    (folder / "scores.csv").write_text("index,label,qscore\n0,1,0.5\n1,0,0.25\n2,1,0.125\n")
    DiscriminativeFeatures.from_counts(torch.tensor([1, 2, 3, 4]), 10, eps=1.0).save(
        folder / "discriminative.safetensors"
    )


def write_mask_folder(folder: Path) -> None:
    (folder / "masks.csv").write_text("image,mask,kind\na,a.png,core\nb,a.png,spurious\n")
    Image.new("L", (8, 8), 255).save(folder / "a.png")
    np.save(folder / "b.npy", np.eye(8, dtype=np.uint8))


def named_images() -> Any:
    from sslk.data import Dataset

    return Dataset("set", lambda i: Image.new("RGB", (8, 8)), ["x/a.png", "x/b.png"], None)


def read_mask_folder(folder: Path) -> Any:
    masks = MaskFolder(folder, named_images())
    return (
        [{kind: mask.tolist() for kind, mask in masks(i, 8, 8).items()} for i in range(2)],
        masks.kinds,
        masks.unmatched,
    )


def read_mask_files(folder: Path) -> Any:
    segmenter, dataset = FileSegmenter(folder), named_images()
    return [
        segmenter(Scene(dataset.image(i), dataset.image_name(i), [], dataset.annotation)).tolist() for i in range(2)
    ]


def write_masks(folder: Path) -> None:
    (folder / "files").mkdir()
    write_mask_folder(folder / "files")
    build_masks(named_images(), FileSegmenter(folder / "files"), folder / "masks")


def read_masks(folder: Path) -> Any:
    masks = Masks(folder / "masks")
    return (
        [masks[k].tolist() for k in range(len(masks))],
        masks.share.tolist(),
        masks.resized.tolist(),
        repr(masks),
        masks.empty.tolist(),
    )


def write_states(folder: Path) -> None:
    (folder / "journal.json").write_text("[[0.1, 0.0, 0, 0.5], [0.2, 0.0, 1, 0.625]]")
    result = TransferResult("d", 3, 10, 10, 0.5, 0.25, 0.75, 0.5, 0.5, 0.1, 0.0)
    (folder / "result.json").write_text(json.dumps({"key": {"epochs": 3}, "result": asdict(result)}))
    steps = {"a": {"state": "done", "arguments": {"x": 1}, "seconds": 1.5, "error": None}}
    (folder / STATE).write_text(
        json.dumps({"format": "sslk-evaluation-1", "about": {"data": "d", "seed": 0}, "steps": steps})
    )
    (folder / "part.json").write_text(
        '{"rows": [[0], [1]], "samples": [0, 1], "left_out": [[2, "damaged"]], "seconds": [0.5]}'
    )
    (folder / "prompts.json").write_text('{"cat": "a photo of a cat", "dog": "a photo of a dog"}')
    (folder / "names.txt").write_text("cat\ndog\n")


def read_evaluation(folder: Path) -> Any:
    found = Evaluation(folder, [], {"data": "d", "seed": 0})
    return {name: asdict(outcome) for name, outcome in found.outcomes.items()}


def read_transfer(folder: Path) -> Any:
    """None where it has to be measured again."""
    found = read_result(folder / "result.json", {"epochs": 3})
    return None if found is None else f"{found.dataset} {found.top1:.3f} {found.classes:d}"


def write_run(folder: Path) -> None:
    Run("probe", "Probe", ["Top-1 is 70 %."], {"seed": 0}, {"top1": 0.7}).save(folder)


def read_run(folder: Path) -> Any:
    run = Run.load(folder)
    return run, "Probe" in render_page([folder])


def write_parts(folder: Path) -> None:
    parts = Parts(folder / "parts", "me", seconds=0)
    parts.add({"values": torch.ones(3)})
    parts.add({"values": torch.zeros(3)})


def read_parts(folder: Path) -> Any:
    return [part["values"].tolist() for part in Parts(folder / "parts", "me").finished]


def write_config(folder: Path) -> None:
    (folder / "options.yaml").write_text("store: s\njson: true\n")


def read_config(folder: Path) -> Any:
    """The lines, and then what the command itself makes of the file: one line on stderr."""
    import contextlib
    import io

    from sslk.cli import main

    file = str(folder / "options.yaml")
    lines = config_file.option_lines(file, {"store", "json", "config"})
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(["store", "info", "--config", file])
    assert status in (0, 1, 2) and "Traceback" not in said.getvalue(), said.getvalue()
    return lines


CSV = functools.partial(Kind, write=write_csvs)
STATES = functools.partial(Kind, write=write_states)
KINDS: tuple[Kind, ...] = (
    Kind("store", write_store, ("manifest.json", "shard-000000.safetensors", ".checked.json"), read_store, exact=True),
    Kind("npz", write_images, ("images.npz",), functools.partial(read_images, "images.npz")),
    Kind("compressed npz", write_images, ("grey.npz",), functools.partial(read_images, "grey.npz")),
    Kind("image folder", write_image_folder, ("a/0.png",), read_image_folder),
    Kind("tiny-imagenet", write_tiny, ("wnids.txt", "words.txt", "val/val_annotations.txt", "val/images/0.png"), read_tiny),
    Kind("class list", write_class_list, ("list.txt",), read_class_list),
    Kind("concept table", write_table, ("t.safetensors",), read_table),
    Kind("clusterings", write_clusterings, ("c.safetensors",), read_clusterings),
    Kind("image concepts npz", write_image_concepts, ("c.npz",), functools.partial(read_image_concepts, "c.npz")),
    Kind("image concepts csv", write_image_concepts, ("c.csv",), functools.partial(read_image_concepts, "c.csv")),
    Kind("discriminative set", write_discriminative, ("s.safetensors",), read_discriminative),
    Kind("checkpoint zip", write_checkpoints, ("zip.pth",), functools.partial(read_checkpoint, "zip.pth")),
    Kind("checkpoint legacy", write_checkpoints, ("legacy.pth",), functools.partial(read_checkpoint, "legacy.pth")),
    Kind("checkpoint safetensors", write_checkpoints, ("s.safetensors",), functools.partial(read_checkpoint, "s.safetensors")),
    Kind("training", write_training, (LAST, "config.json", "start.safetensors", "logs/version_0/metrics.csv"), read_training),
    CSV("accuracies", files=("accuracies.csv",), read=lambda folder: load_accuracies(str(folder / "accuracies.csv"))),
    CSV("assignment", files=("assignment.csv",),
        read=lambda folder: load_assignment(str(folder / "assignment.csv"), "given").sizes().tolist()),
    CSV("attributes", files=("attributes.csv",), read=lambda folder: ClassAttributes(folder / "attributes.csv", ["cat"]).names),
    CSV("correct", files=("correct.csv",), read=lambda folder: read_correct(folder / "correct.csv", [0, 1, 2]).tolist()),
    CSV("answers", files=("answers.csv",), read=lambda folder: read_answers(folder / "answers.csv")),
    CSV("scores", files=("scores.csv",), read=lambda folder: _quality(folder, "m")),
    Kind("mask folder", write_mask_folder, ("masks.csv", "a.png"), read_mask_folder),
    Kind("mask files", write_mask_folder, ("b.npy", "a.png"), read_mask_files),
    Kind("masks", write_masks, ("masks/masks.json", "masks/masks-000000.safetensors"), read_masks),
    STATES("journal", files=("journal.json",), read=lambda folder: _read_journal(folder / "journal.json")),
    STATES("transfer result", files=("result.json",), read=read_transfer),
    STATES("evaluation", files=(STATE,), read=read_evaluation),
    STATES("concept part", files=("part.json",), read=lambda folder: read_part(folder / "part.json", 1, 2)),
    STATES("prompts", files=("prompts.json",), read=lambda folder: read_prompts(folder / "prompts.json")),
    STATES("class names", files=("names.txt",), read=lambda folder: read_names(folder / "names.txt")),
    Kind("results", write_run, (RESULTS,), read_run),
    Kind("parts", write_parts, ("parts/part-000000.safetensors", "parts/part-000001.safetensors"), read_parts),
    Kind("config", write_config, ("options.yaml",), read_config),
)  # fmt: skip

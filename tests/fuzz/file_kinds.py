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

from sslk.cli import config_file
from sslk.concepts import ClassAttributes
from sslk.concepts.build import read_part
from sslk.concepts.by_name import read_names, read_prompts
from sslk.evaluation.run import STATE, Evaluation
from sslk.interpret.correctness import read_correct
from sslk.interpret.masks import MaskFolder
from sslk.interpret.parts import Parts
from sslk.interpret.salient_imagenet import read_answers
from sslk.masked.masks import Masks, build_masks
from sslk.masked.segmenters import FileSegmenter, Scene
from sslk.models.checkpoints import load_checkpoint
from sslk.quality.ablation import _read_journal
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.linear_evaluation import TransferResult, read_result
from sslk.report.page import render_page
from sslk.results.run import RESULTS, Run
from sslk.reverse.study import read_accuracies, read_assignment
from sslk.training.checkpoints import LAST, load_method, save_method
from sslk.training.run import claim, read_logs, steps_done
from tests.fuzz.data_files import (
    read_class_list,
    read_clusterings,
    read_discriminative,
    read_image_concepts,
    read_image_folder,
    read_images,
    read_outputs,
    read_store,
    read_table,
    read_tiny,
    write_class_list,
    write_clusterings,
    write_discriminative,
    write_image_concepts,
    write_image_folder,
    write_images,
    write_outputs,
    write_store,
    write_table,
    write_tiny,
)


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
    DiscriminativeFeatures.from_counts(torch.tensor([1, 2, 3, 4]), 10, eps=1.0).save(folder / "discriminative.safetensors")


def write_mask_folder(folder: Path) -> None:
    (folder / "masks.csv").write_text("image,mask,kind\na,a.png,core\nb,a.png,spurious\n")
    Image.new("L", (8, 8), 255).save(folder / "a.png")
    np.save(folder / "b.npy", np.eye(8, dtype=np.uint8))


def named_images() -> Any:
    from sslk.data import Dataset

    return Dataset("set", lambda i: Image.new("RGB", (8, 8)), ["x/a.png", "x/b.png"], None)


def read_mask_folder(folder: Path) -> Any:
    masks = MaskFolder(folder, named_images())
    return ([{kind: mask.tolist() for kind, mask in masks(i, 8, 8).items()} for i in range(2)], masks.kinds, masks.unmatched)


def read_mask_files(folder: Path) -> Any:
    segmenter, dataset = FileSegmenter(folder), named_images()
    return [segmenter(Scene(dataset.image(i), dataset.image_name(i), [], dataset.annotation)).tolist() for i in range(2)]


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
    result = TransferResult("d", 3, 10, 10, 0.5, 0.25, 0.75, 0.5, 0.5, 0.1, 0.0, 4)
    (folder / "result.json").write_text(json.dumps({"key": {"epochs": 3}, "result": asdict(result)}))
    steps = {"a": {"state": "done", "arguments": {"x": 1}, "seconds": 1.5, "error": None}}
    (folder / STATE).write_text(json.dumps({"format": "sslk-evaluation-1", "about": {"data": "d", "seed": 0}, "steps": steps}))
    (folder / "part.json").write_text('{"rows": [[0], [1]], "samples": [0, 1], "left_out": [[2, "damaged"]], "seconds": [0.5]}')
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
    CSV("accuracies", files=("accuracies.csv",), read=lambda folder: read_accuracies(str(folder / "accuracies.csv"))),
    CSV(
        "assignment",
        files=("assignment.csv",),
        read=lambda folder: read_assignment(str(folder / "assignment.csv"), "given").sizes().tolist(),
    ),
    CSV("attributes", files=("attributes.csv",), read=lambda folder: ClassAttributes(folder / "attributes.csv", ["cat"]).names),
    CSV("correct", files=("correct.csv",), read=lambda folder: read_correct(folder / "correct.csv", [0, 1, 2]).tolist()),
    CSV("answers", files=("answers.csv",), read=lambda folder: read_answers(folder / "answers.csv")),
    Kind("mask folder", write_mask_folder, ("masks.csv", "a.png"), read_mask_folder),
    Kind("mask files", write_mask_folder, ("b.npy", "a.png"), read_mask_files),
    Kind("masks", write_masks, ("masks/masks.json", "masks/masks-000000.safetensors"), read_masks),
    STATES("journal", files=("journal.json",), read=lambda folder: _read_journal(folder / "journal.json")),
    STATES("transfer result", files=("result.json",), read=read_transfer),
    STATES("evaluation", files=(STATE,), read=read_evaluation),
    STATES("concept part", files=("part.json",), read=lambda folder: read_part(folder / "part.json", 1, 2)),
    STATES("prompts", files=("prompts.json",), read=lambda folder: read_prompts(folder / "prompts.json")),
    STATES("class names", files=("names.txt",), read=lambda folder: read_names(folder / "names.txt")),
    Kind("probe outputs", write_outputs, ("outputs.safetensors",), read_outputs),
    Kind("results", write_run, (RESULTS,), read_run),
    Kind("parts", write_parts, ("parts/part-000000.safetensors", "parts/part-000001.safetensors"), read_parts),
    Kind("config", write_config, ("options.yaml",), read_config),
)

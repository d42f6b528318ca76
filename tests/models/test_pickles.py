"""Whatever a pickle names, nothing of it is imported, called or unpacked without end; plain ones are read as torch does."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pickle
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_pickles import call, endless, named, running, text, write
from torch import Tensor, nn

from sslk.models import Checkpoint, CheckpointError, load_checkpoint, read_checkpoint
from sslk.models.checkpoint_files import read_content
from sslk.models.stand_ins import StandIn

AUDITED = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(folder), sys.argv[2]]
import hostile_pickles
from sslk.models import CheckpointError, read_checkpoint
(folder / "canary_module.py").write_text(f"open({str(folder / 'canary')!r}, 'w')\\nclass Thing: pass")
class Canary:
    def __setattr__(self, *unused):
        open(folder / "canary", "w")
files = {name: hostile_pickles.write(pickled, folder / f"{i}.pt") for i, (name, pickled) in
         enumerate(hostile_pickles.running(folder / "canary").items())}
import encodings.cp437, encodings.raw_unicode_escape, torch  # of names and strings, whatever the file
torch.save({"a": torch.ones(2)}, folder / "plain.pt")
read_checkpoint(folder / "plain.pt")  # what the reader itself imports is imported now
before, seen = set(sys.modules), []
harmless = ("open", "mmap", "fcntl", "marshal", "sys._getframe", "object.__getattr__")
def hook(event, args):
    if not event.startswith(harmless) or (event == "open" and "r" not in str(args[1])):
        seen.append((event, repr(args)[:100]))
sys.addaudithook(hook)
failures = []
for name, file in files.items():
    seen.clear()
    try:
        read_checkpoint(file)
    except CheckpointError:
        pass
    if seen or (folder / "canary").exists() or set(sys.modules) != before:
        failures.append((name, list(seen), sorted(set(sys.modules) - before)))
        (folder / "canary").unlink(missing_ok=True)
assert not failures, failures
print(len(files))
"""


def test_nothing_that_a_file_names_is_imported_or_called(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", AUDITED, str(tmp_path), str(Path(__file__).parent)]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout) == len(running(tmp_path)) > 30


def test_the_hostile_pickles_run_where_they_are_let(tmp_path: Path) -> None:
    """The test above can fail: Python's own unpickler runs the same bytes."""
    for i, name in enumerate(("os.system", "exec in state", "STACK_GLOBAL", "INST", "OBJ", "a stand-in called")):
        canary = tmp_path / str(i)
        try:
            pickle.loads(running(canary)[name])
        except TypeError:
            assert name in ("OBJ", "a stand-in called")  # system() gives a number, or is no class
        assert canary.exists() or name == "OBJ"


BOUNDED = """
import pathlib, sys, time
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.path.insert(0, sys.argv[2])
import hostile_pickles
from sslk.models import CheckpointError, read_checkpoint
folder = pathlib.Path(sys.argv[1])
for name, pickled in hostile_pickles.endless().items():
    file = hostile_pickles.write(pickled, folder / "x.pt")
    before, begin = peak(), time.process_time()
    try:
        read_checkpoint(file)
        print(name, "was read")
    except CheckpointError as error:
        assert str(error).count("\\n") == 0 and len(str(error)) < 500, (name, str(error))
    grown = (peak() - before) / 1024
    seconds = time.process_time() - begin
    if grown > 150 or seconds > 10:
        print(name, f"{grown:.0f} MB, {seconds:.1f} s")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the memory")
def test_small_files_that_are_endless_are_refused_in_little_memory(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", BOUNDED, str(tmp_path), str(Path(__file__).parent)]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == ""
    assert len(endless()) > 20


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_zip_bomb_is_refused(member: str, tmp_path: Path) -> None:
    path, storage = tmp_path / "bomb.pt", b"(" + text("storage") + named("torch.FloatStorage") + text("0") + text("cpu")
    size = 50_000_000
    view = call(
        named("torch._utils._rebuild_tensor_v2"),
        storage + b"J" + size.to_bytes(4, "little") + b"tQ",
        b"K\0",
        b"J" + size.to_bytes(4, "little") + b"\x85",
        b"K\1\x85",
        b"\x89",
        b"N",
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a/data.pkl", b"}" + text("a") + view + b"s." if member == "data/0" else b"0" * 4 * size)
        archive.writestr("a/data/0", bytes(4 * size) if member == "data/0" else b"")
    assert path.stat().st_size < 1_000_000
    with pytest.raises(CheckpointError, match="unpacks to more than 16 times its size"):
        read_checkpoint(path)


class Colour(enum.Enum):
    RED = 1


class Options(dict):
    """A class of one's own that is a dictionary."""


Point = collections.namedtuple("Point", "x y")


def settings() -> dict[str, Any]:
    import omegaconf

    return {
        "omegaconf": omegaconf.OmegaConf.create({"lr": 0.1, "sizes": [1, 2], "nested": {"a": "${lr}"}}),
        "path": Path("/data"),
        "enum": Colour.RED,
        "argparse": argparse.Namespace(lr=0.3, milestones=[1, 2]),
        "own": Options(a=1),
        "tuple": Point(1, 2),
        "date": datetime.datetime(2026, 1, 1),
        "optimiser": torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1),
        "function": collections.OrderedDict.fromkeys,
        "partial": argparse.FileType("r"),
        "random": np.random.RandomState(0).get_state(),
        "generator": np.random.default_rng(0),
        "module": nn.Linear(2, 2),
        "counter": collections.Counter("abca"),
        "complex": 1 + 2j,
        "slice": slice(1, 2),
        "set": {1, 2},
        "deque": collections.deque([1, 2], 4),
        "exception": ValueError("x"),
    }


@pytest.mark.parametrize("name", settings())
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 5])
def test_settings_of_any_class_do_not_keep_the_tensors_away(name: str, zipped: bool, protocol: int, tmp_path: Path) -> None:
    net = nn.Conv2d(3, 4, 3)
    path = tmp_path / "x.ckpt"
    content = {"state_dict": {f"m.{k}": v for k, v in net.state_dict().items()}, "hyper_parameters": {name: settings()[name]}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    loaded = nn.Conv2d(3, 4, 3)
    report = load_checkpoint(loaded, path)[1]
    assert report.share_matched == 1
    assert torch.equal(loaded.weight, net.weight)
    plain = ("counter", "complex", "slice", "set", "deque", "random")
    assert bool(report.ignored) == (name not in plain)


def test_ignored_names_are_reported_once_each(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"w": torch.ones(2), "a": Path("/a"), "b": [Path("/b")], "c": Colour.RED}, path)
    content = read_content(path)
    assert content.ignored == ("pathlib.PosixPath", f"{__name__}.Colour")
    assert isinstance(content.value["a"], StandIn)
    assert content.value["a"].name == "pathlib.PosixPath"


BASE = torch.arange(24.0)
TENSORS: dict[str, Tensor] = {
    **{
        str(dtype): torch.arange(6).to(dtype).reshape(2, 3)
        for dtype in (
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int32,
            torch.int16,
            torch.int8,
            torch.uint8,
            torch.uint16,
            torch.uint32,
            torch.uint64,
            torch.bool,
            torch.complex64,
            torch.complex128,
            torch.float8_e4m3fn,
            torch.float8_e5m2,
        )
    },
    "transposed": BASE[2:14].view(3, 4).t(),
    "strided": BASE[1::3],
    "expanded": BASE[:1].expand(5, 1),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5),
    "parameter": nn.Parameter(torch.ones(3)),
    "conjugate view": torch.view_as_real(torch.randn(3, dtype=torch.complex64)),
}


NEW_DTYPES = ("torch.float8", "torch.uint16", "torch.uint32", "torch.uint64")


def raw(tensor: Tensor) -> list[int]:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_files_are_read_as_torch_reads_them(zipped: bool, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    plain = {
        "number": 3,
        "large": 2**70,
        "negative": -5,
        "float": 0.1,
        "text": "ü",
        "none": None,
        "yes": True,
        "bytes": b"\xff",
        "list": [1, [2, (3, 4, 5, 6)]],
        "set": {1, 2},
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "ordered": collections.OrderedDict(a=1),
        "array": bytearray(b"ab"),
    }
    # torch itself cannot read its older format where tensors have these.
    tensors = {name: t for name, t in TENSORS.items() if zipped or not name.startswith(NEW_DTYPES)}
    torch.save({**tensors, **plain}, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    expected = torch.load(path, weights_only=protocol == 2)
    found = read_content(path).value
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not isinstance(value, Tensor):
            assert found[name] == value, name
            continue
        mine = found[name]
        assert (mine.dtype, mine.shape, mine.storage_offset()) == (value.dtype, value.shape, value.storage_offset()), name
        assert mine.numel() == 0 or mine.stride() == value.stride(), name
        assert raw(mine) == raw(value), name
    # Storages that tensors share are shared.
    assert found["transposed"].untyped_storage().data_ptr() == found["strided"].untyped_storage().data_ptr()
    found["strided"].zero_()
    assert torch.equal(torch.load(path, weights_only=protocol == 2)["strided"], BASE[1::3])  # the file is not written to


UNREADABLE = {
    "sparse": torch.eye(3).to_sparse(),
    "compressed": torch.eye(3).to_sparse_csr(),
    "meta": torch.ones(3, device="meta"),
    "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", UNREADABLE)
def test_tensors_that_no_network_has_are_refused_by_kind(name: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"state_dict": {"w": UNREADABLE[name]}}, path, _use_new_zipfile_serialization=zipped)
    kind = {"compressed": "sparse", "meta": "without values"}.get(name, name)
    with pytest.raises(CheckpointError, match=f"'state_dict/w' must be a plain tensor, got a .*{kind}"):
        read_checkpoint(path)


class Masked(Tensor):
    """A tensor subclass of one's own."""


def test_tensors_inside_wrappers_are_reached(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    parameter.note = "x"  # pickled with its state
    torch.save(
        {
            "own": torch.tensor([3.0]).as_subclass(Masked),
            "noted": parameter,
            "buffer": nn.Buffer(torch.ones(1)),
            "numpy": np.arange(3, dtype=">f4"),
            "scalar": np.float64(2.5),
        },
        path,
    )
    found = read_checkpoint(path).backbone
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "own": [3.0],
        "noted": [1.0, 2.0],
        "buffer": [1.0],
        "numpy": [0.0, 1.0, 2.0],
    }
    assert read_content(path).value["scalar"] == 2.5


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_pickled_whole_gives_its_tensors(zipped: bool, parallel: bool, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)))
    net.register_buffer("left_out", torch.ones(1), persistent=False)
    path = tmp_path / "net.pt"
    torch.save({"model": nn.DataParallel(net)} if parallel else net, path, _use_new_zipfile_serialization=zipped)
    loaded = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)))
    report = load_checkpoint(loaded, path)[1]
    assert not report.missing
    assert not report.unexpected
    assert "torch.nn.modules.conv.Conv2d" in report.ignored
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("compressed", [True, False])
def test_archives_made_anew_by_other_programs(compressed: bool, tmp_path: Path) -> None:
    """Members at odd places, and compressed ones, as zip programs write them."""
    path, again = tmp_path / "x.pt", tmp_path / "y.pt"
    torch.save({"a": torch.randn(50), "b": torch.arange(3)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(again, "w", 8 if compressed else 0) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    for name, tensor in torch.load(path).items():
        assert torch.equal(read_checkpoint(again).backbone[name], tensor)


def read_or_refused(path: Path) -> bool:
    """Whether it was read; a refusal is one sentence, and any other error fails the test."""
    try:
        return isinstance(read_checkpoint(path), Checkpoint)
    except CheckpointError as error:
        if "\n" in str(error):
            raise AssertionError(str(error)) from error
        return False


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes_are_refused_or_read(zipped: bool, tmp_path: Path) -> None:
    """Random damage gives a checkpoint or a sentence, soon, and no other error."""
    path, generator = tmp_path / "x.pt", random.Random(0)
    state = {"a.weight": torch.ones(4, 4), "b": torch.arange(5)}
    content = {"state_dict": state, "epoch": 3, "path": Path("/x"), "n": np.arange(3)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    begin, refused = time.process_time(), 0
    for _ in range(600):
        changed = bytearray(whole)
        for _ in range(generator.choice((1, 1, 3, 10))):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        if generator.random() < 0.1:
            del changed[generator.randrange(len(changed)) :]
        path.write_bytes(changed)
        refused += not read_or_refused(path)
    assert 20 < refused < 600
    assert time.process_time() - begin < 120


def test_damaged_instructions_are_refused_or_read(tmp_path: Path) -> None:
    """As above, where nothing but the pickle is damaged and the archive is sound."""
    generator = random.Random(1)
    torch.save({"a": torch.ones(4), "b": {"c": [1, 2.5, "x"]}, "p": Path("/x"), "n": np.arange(3)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        whole = archive.read("x/data.pkl")
    for _ in range(1500):
        changed = bytearray(whole)
        for _ in range(generator.choice((1, 2, 5))):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        read_or_refused(write(bytes(changed), tmp_path / "y.pt"))

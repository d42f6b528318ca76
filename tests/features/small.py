"""A small model and data set for the tests of extraction."""

import os
import resource
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from sslk.features.settings import ExtractSettings


class SmallData(Dataset):
    """n random images with labels; some unreadable, each taking `seconds` to load."""

    def __init__(self, n, *, labels=True, corrupt=(), seconds=0.0, name="small", classes=("cat", "dog", "emu")):
        self.name = name
        self.classes = list(classes)
        self.n = n
        self.corrupt = corrupt
        self.seconds = seconds
        self.labels = torch.randint(3, (n,), generator=torch.Generator().manual_seed(n)).tolist() if labels else None

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if self.seconds:
            time.sleep(self.seconds)
        if index in self.corrupt:
            raise OSError(f"cannot identify image file 'img_{index}.png'")
        image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))
        return (image, self.labels[index]) if self.labels else image


def small_model(width=24, seed=0):
    """Convolution, batch norm, ReLU, pooling: non-negative features."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def several_model(seed=0):
    """Three representations in a mapping: of 24 features, of 5 signed ones, and both side by side."""
    torch.manual_seed(seed)
    return Several()


class Several(nn.Module):
    """See `several_model`."""

    def __init__(self):
        super().__init__()
        self.early, self.late = small_model(), nn.Linear(24, 5)

    def forward(self, images):
        early = self.early(images)
        late = self.late(early)
        return {"early": early, "late": late, "both": torch.cat([early, late], 1)}


def kill_several(folder, after):
    """Extract three representations in a child process that kills itself after so many samples."""
    from sslk.features import extract_several

    def progress(done, total, stage):
        if done > after:
            os.kill(os.getpid(), signal.SIGKILL)

    out = {name: Path(folder) / name for name in ("early", "late", "both")}
    settings = ExtractSettings(batch_size=16, shard_rows=40, workers=0)
    extract_several(several_model(), SmallData(100), out, settings, progress=progress)


def store_bytes(folder):
    """Contents of all files of a store, hidden ones (locks, times of checks) left out."""
    return {file.name: file.read_bytes() for file in Path(folder).iterdir() if not file.name.startswith(".")}


def extract_logging(folder, log, seconds, rank=0, world_size=1, n=400):
    """Extract in a child process, writing the number of samples done to `log` after every batch."""
    from sslk.features import extract

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size))
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    extract(
        small_model(),
        SmallData(n, seconds=seconds),
        folder,
        ExtractSettings(batch_size=8, shard_rows=40, workers=0),
        progress=lambda *_: os.write(fd, b"."),
    )


def extract_refused(folder, limit, drop_rights):
    """Extract in a child process with files of at most `limit` bytes after half; exit with the number of the error."""
    from sslk.features import extract

    torch.set_num_threads(1)
    if drop_rights and os.geteuid() == 0:  # root may write anywhere
        with tempfile.TemporaryDirectory() as own:  # imports what writing and reading a store need while it may be read
            for _ in range(2):
                extract(small_model(), SmallData(8), own, ExtractSettings(workers=0))
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    def progress(done, total, stage):
        if done > 200:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    try:
        extract(
            small_model(), SmallData(400), folder, ExtractSettings(shard_rows=100, batch_size=50, workers=0), progress=progress
        )
    except OSError as error:
        os._exit(error.errno)


class Wide(nn.Module):
    """Needs 384 MB an image."""

    def forward(self, images):
        return images.mean((2, 3)).repeat(1, 32 << 20)[:, :5]


def extract_within(folder, limit):
    """Extract in a child process with an address space of `limit` bytes more than there is."""
    from sslk.features import extract

    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    with pytest.warns(UserWarning, match="8 images at once do not fit the memory of cpu"):
        extract(Wide(), SmallData(8), folder, ExtractSettings(workers=0, batch_size=8))


def second_writer(folder, message):
    """Try to write to a store that another process writes to; leave the error in a file."""
    from sslk.features import FeatureStore, StoreError, StoreWriter

    try:
        StoreWriter(folder, FeatureStore(folder).spec)
    except StoreError as error:
        Path(message).write_text(str(error))


def finished(child):
    """Run a child process; its exit status."""
    child.start()
    child.join()
    return child.exitcode


def import_within(features, out, megabytes, **settings):
    """Import in a child process that may take `megabytes` more of addresses than it has; exit with 0 when it could."""
    from sslk.features import ImportSettings, store_import

    torch.set_num_threads(1)
    store_import(torch.ones(64, 8), f"{out}-first")  # loads what an import needs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20),) * 2)
    store_import(features, out, ImportSettings(**settings))


def import_logging(out, log, seconds):
    """Import 400 rows with names in a child process, writing a byte to `log` after every block."""
    from sslk.features import ImportSettings, store_import

    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def progress(done, total, stage):
        if stage == "importing":
            os.write(fd, b".")
            time.sleep(seconds)

    rows = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    names, labels = [f"n{i}" for i in range(400)], [i % 3 for i in range(400)]
    store_import(rows, out, ImportSettings(shard_rows=10), labels=labels, names=names, progress=progress)

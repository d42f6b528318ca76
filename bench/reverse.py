"""Speed of reverse probing beside what one would write or call otherwise; both sides interleaved in one process.

    python bench/reverse.py epoch             one epoch of the sparse probe and of a dense nn.Linear loop
    python bench/reverse.py protocol          k-means and probe, and faiss's k-means alone, per clustering
    python bench/reverse.py gpu               256k x 2048 k-means and an epoch over 1.28M rows, on a GPU

Processor time is printed beside wall time: on a busy machine only its ratio, with one thread, says something.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from sslk.concepts import ConceptTable
from sslk.results.provenance import provenance
from sslk.reverse import KMeansSettings, ProbeSettings, quantize
from sslk.reverse.kmeans import lloyd, random_start
from sslk.reverse.protocol import reverse_probe
from sslk.reverse.sparse_rows import SparseRows
from sslk.reverse.standardize import Standardizer
from sslk.reverse.tiled_weights import TiledWeights


def concept_table(rows: int, concepts: int, bits: int) -> ConceptTable:
    """Every row shows `bits` different concepts, all equally often."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(concepts, (rows, 1), generator=generator)
    step = torch.randint(1, concepts // bits, (rows, bits - 1), generator=generator).cumsum(1)
    columns = ((torch.cat([torch.zeros(rows, 1, dtype=torch.int64), step], 1) + start) % concepts).sort(1).values
    names = [str(number) for number in range(concepts)]
    offsets = torch.arange(0, rows * bits + 1, bits)
    return ConceptTable(offsets, columns.flatten().int(), names, ["all"] * concepts, torch.arange(rows))


def features(rows: int, dim: int, device: str = "cpu") -> torch.Tensor:
    """Correlated, rectified: like pooled features, with no clean clusters."""
    generator = torch.Generator(device).manual_seed(0)
    mix = torch.randn(dim, dim, generator=generator, device=device) * torch.logspace(0, -1.5, dim, device=device)
    return (torch.randn(rows, dim, generator=generator, device=device) @ mix).relu()


def timed(call: Callable[[], object]) -> tuple[float, float, object]:
    """Wall and processor seconds, and the result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor, result


def epoch(rows: int, concepts: int, bits: int, clusters: int, rounds: int) -> dict[str, object]:
    table = concept_table(rows, concepts, bits)
    target = torch.randint(clusters, (rows,), generator=torch.Generator().manual_seed(0))
    weights = TiledWeights(concepts, clusters, torch.device("cpu"), torch.float32)
    data, velocity = SparseRows.of(table, target, torch.device("cpu")), weights.zeros()
    settings = ProbeSettings()
    linear = nn.Linear(concepts, clusters)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimiser = torch.optim.SGD(linear.parameters(), lr=1.0, momentum=0.9, weight_decay=3e-6)
    dense_bits = table.dense().float()

    def sparse() -> float:
        return weights.epoch(data, velocity, torch.Generator().manual_seed(1), 1.0, settings) / rows

    def dense() -> float:
        loss = torch.zeros(())
        for index in torch.randperm(rows, generator=torch.Generator().manual_seed(1)).split(512):
            value = nn.functional.cross_entropy(linear(dense_bits[index]), target[index])
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            loss += value.detach() * len(index)
        return float(loss) / rows

    pairs = [(timed(sparse), timed(dense)) for _ in range(rounds)]
    return {
        "sparse_seconds": statistics.median(a[0] for a, _ in pairs),
        "dense_seconds": statistics.median(b[0] for _, b in pairs),
        "ratio_wall": statistics.median(b[0] / a[0] for a, b in pairs),
        "ratio_processor": statistics.median(b[1] / a[1] for a, b in pairs),
        "sparse_loss": pairs[-1][0][2],
        "dense_loss": pairs[-1][1][2],
    }


def protocol(rows: int, dim: int, clusters: int, restarts: int, concepts: int, bits: int) -> dict[str, object]:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    x, table = features(rows, dim), concept_table(rows, concepts, bits)
    standard = Standardizer.fit(x)(x).numpy()

    def ours() -> float:
        settings = KMeansSettings(clusters=clusters, restarts=restarts, clusterings=1)
        found = quantize(x, settings)
        reverse_probe(found, table, ProbeSettings())
        return float(found.inertia.min())

    def theirs() -> float:
        kmeans = faiss.Kmeans(dim, clusters, niter=100, nredo=restarts, min_points_per_centroid=1, max_points_per_centroid=rows)
        kmeans.train(standard)
        return float(kmeans.obj[-1])

    def quantised() -> float:
        return float(quantize(x, KMeansSettings(clusters=clusters, restarts=restarts, clusterings=1)).inertia.min())

    a, b, c = timed(ours), timed(theirs), timed(quantised)
    return {
        "protocol_seconds": a[0],
        "faiss_kmeans_seconds": b[0],
        "quantise_seconds": c[0],
        "ratio_wall": a[0] / b[0],
        "ratio_processor": a[1] / b[1],
        "inertia_over_faiss": float(a[2]) / float(b[2]),  # type: ignore[arg-type]
    }


def gpu(rows: int, dim: int, clusters: int) -> dict[str, object]:
    x = Standardizer.fit(features(rows, dim, "cuda"))(features(rows, dim, "cuda"))
    start = random_start(x, clusters, torch.Generator().manual_seed(0))
    lloyd(x[:10000], start, 2)
    seconds, _, fit = timed(lambda: lloyd(x, start, 100))
    table = concept_table(1_280_000, 1300, 30)
    target = torch.randint(1000, (len(table),))
    device = torch.device("cuda")
    weights, data = TiledWeights(1300, 1000, device, torch.float32), SparseRows.of(table, target, device)
    velocity = weights.zeros()

    def one_epoch() -> None:
        weights.epoch(data, velocity, torch.Generator().manual_seed(0), 1.0, ProbeSettings())

    one_epoch()
    return {"kmeans_seconds": seconds, "iterations": fit.iterations, "epoch_seconds": timed(one_epoch)[0]}  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("epoch", "protocol", "gpu"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.what == "epoch":
        found = epoch(given.rows or 50_000, 1300, 30, 1000, given.rounds)
    elif given.what == "protocol":
        found = protocol(given.rows or 50_000, 256, 100, 5, 1300, 30)
    else:
        found = gpu(given.rows or 256_000, 2048, 1000)
    print(json.dumps(provenance({"bench": f"reverse {given.what}", "rows": given.rows, **found}), indent=1))


if __name__ == "__main__":
    main()

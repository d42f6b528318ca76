"""`sslk codes`: sparse codes of features."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from sslk.cli.console import FLAT, Output
from sslk.codes.settings import CodesComparison, CodesSettings
from sslk.quality.settings import DiscoverSettings


def fit(
    store: str,
    *,
    out: str,
    settings: Annotated[CodesSettings, FLAT] = CodesSettings(),  # noqa: B008 (frozen)
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Fit a TopK sparse autoencoder to the features of a store; interrupted, the same command goes on at the last epoch.

    Examples:
        $ sslk codes fit runs/sample-train --latents 512 --epochs 5 --out runs/codes.safetensors
        $ sslk codes fit runs/vit-train --latents 8192 --k 32 --device cuda --out runs/vit-codes.safetensors

    Args:
        store: folder of the feature store, of training images; labels are not needed.
        out: file for the codes.
        device: where to compute.
    """
    from sslk.codes import fit_codes
    from sslk.files.regular import require_file_name

    require_file_name(out)
    with output.progress() as update:
        codes = fit_codes(store, settings, out=out, device=device, progress=update)
    output.fields({"file": out, **codes.described()})


def encode(
    store: str,
    *,
    codes: str,
    out: str,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    drop_dead: bool = False,
    device: str = "cpu",
    quiet: bool = False,
) -> None:
    """Write the codes of a store's rows into a feature store; interrupted, the same command goes on.

    Examples:
        $ sslk codes encode runs/sample-train --codes runs/codes.safetensors --out runs/sample-train-codes
        $ sslk codes encode runs/vit-test --codes runs/vit-codes.safetensors --drop-dead --dtype float16 --out runs/vit-test-codes

    Args:
        store: folder of the feature store, of the model that the codes were fitted on; refused for another.
        codes: file that `sslk codes fit` wrote.
        out: folder of the store of codes.
        dtype: of the stored codes; that of the store by default.
        drop_dead: leave out the latents that were active on no row of the fit.
        device: where to compute.
        quiet: show no progress.
    """
    from sslk.codes import Codes, encode_store
    from sslk.codes.encoding import codes_spec, size_of
    from sslk.features import FeatureStore

    source, fitted = FeatureStore(store).require(), Codes.load(codes)
    fitted = fitted.without_dead() if drop_dead else fitted
    if not quiet:
        print(f"sslk codes encode: {out} will hold {size_of(codes_spec(source, fitted, dtype))}", file=sys.stderr)
    with Output(quiet=quiet).progress() as update:
        encoded = encode_store(source, fitted, out, dtype=dtype, device=device, progress=update)
    print(encoded.summary())


def compare(
    test: str,
    *,
    train: str,
    outputs: str,
    codes: str,
    out: str,
    settings: Annotated[DiscoverSettings, FLAT] = DiscoverSettings(),  # noqa: B008
    comparison: Annotated[CodesComparison, FLAT] = CodesComparison(),  # noqa: B008
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Compare one-sided sets, two-sided sets and codes: AUROC of failure prediction, and accuracy of compressed features.

    Examples:
        $ sslk codes compare runs/sample-test --train runs/sample-train --outputs runs/linear --codes runs/codes.safetensors --out runs/codes-compared

    Args:
        test: labelled feature store whose samples are scored; features may be signed.
        train: labelled feature store the discriminative features are found on.
        outputs: a probe's run on the features, or its outputs.safetensors, for the test samples.
        codes: file that `sslk codes fit` wrote for this model.
        out: folder of the run.
        device: where to compute.
    """  # noqa: E501
    from sslk.codes import Codes, codes_study
    from sslk.features import FeatureStore
    from sslk.probes import ProbeOutputs

    stores, answers, fitted = (FeatureStore(train), FeatureStore(test)), ProbeOutputs.load(outputs), Codes.load(codes)
    with output.progress() as update:
        run = codes_study(*stores, answers, fitted, settings, comparison, device=device, progress=update)
    output.leave(run, out)

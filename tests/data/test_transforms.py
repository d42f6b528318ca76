"""The evaluation transform is the papers': bit-equal to torchvision's composition."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from sslk.models import EvaluationTransform, evaluation_transform, load_backbone

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(300, 260), (260, 300), (64, 64), (224, 300), (500, 333)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equals_torchvision(size: tuple[int, int], interpolation: str) -> None:
    reference = T.Compose(
        [T.Resize(224, InterpolationMode(interpolation)), T.CenterCrop(224), T.ToTensor(), T.Normalize(MEAN, STD)]
    )
    assert torch.equal(EvaluationTransform((224, 224), MEAN, STD, interpolation)(image(*size)), reference(image(*size)))


def test_cifar_images_are_not_resampled() -> None:
    transform = evaluation_transform(load_backbone("cifar:compact", "random"), normalize=False)
    source = image(32, 32)
    assert torch.equal(transform(source), T.functional.pil_to_tensor(source))
    assert transform(source).dtype == torch.uint8


def test_backbone_states_size_and_scale() -> None:
    backbone = load_backbone("cifar:compact", "random")
    transform = evaluation_transform(backbone)
    assert (transform.size, transform.mean, transform.std) == ((32, 32), backbone.mean, backbone.std)
    assert evaluation_transform(backbone, image_size=48)(image(70, 60)).shape == (3, 48, 48)
    with pytest.raises(ValueError, match="image_size must be positive, got 0"):
        evaluation_transform(backbone, image_size=0)


def test_grey_and_transparent_images() -> None:
    transform = EvaluationTransform((8, 8), (0.0,) * 3, (1.0,) * 3)
    for mode in ("L", "RGBA", "P", "CMYK"):
        assert transform(image(12, 9).convert(mode)).shape == (3, 8, 8)


def test_oblong_size_is_covered() -> None:
    transform = EvaluationTransform((40, 100), MEAN, STD, normalize=False)
    assert transform(image(80, 90)).shape == (3, 40, 100)
    assert transform(image(300, 30)).shape == (3, 40, 100)


def test_mask_follows_the_image() -> None:
    transform = EvaluationTransform((32, 32), (0.0,) * 3, (1.0,) * 3, "nearest")
    labels = np.random.default_rng(0).integers(0, 12, (48, 90), dtype=np.uint8)
    pixels = transform(Image.fromarray(np.repeat(labels[..., None], 3, axis=2)))
    assert torch.equal(transform.mask(labels), (pixels[0] * 255).round().to(torch.uint8))
    assert transform.mask(labels > 3).dtype == torch.bool


def test_repr_and_pickle_hold_everything() -> None:
    transform = EvaluationTransform((8, 8), MEAN, STD, "bicubic")
    assert eval(repr(transform)) == transform == pickle.loads(pickle.dumps(transform))

"""What the study of failure prediction sets beside Q-Score: the stores and scores it was given, and the scores they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.source import check_same_model, store_finite
from sslk.progress import Progress, renamed
from sslk.quality.failure_baselines import (
    neighbour_distance,
    neighbourhood_consistency,
    require_same_samples,
    same_samples,
    stored_view_variance,
    view_variance,
)
from sslk.quality.failure_mahalanobis import Gaussians, mahalanobis_scores
from sslk.quality.settings import FailureSettings

MOST_VIEW_BYTES = 2 << 30
CONSISTENCY, OVER_VIEWS = "neighbourhood consistency", "variance over views"


@dataclass(frozen=True, eq=False)
class FailureSources:
    """Stores and scores beside those of Q-Score.

    Attributes:
        train: the training samples under the model, for the k-NN distance and the Mahalanobis distance.
        others: the test samples under other models, for neighbourhood consistency.
        others_train: the training samples under these models, in the same order, as its reference; without them the reference
            are the other test samples.
        views: the test images under the same model, augmented, for the variance over views.
        scores: of others, `[N]` by name in the order of the test store's rows, higher meaning correct; a baseline that was
            computed elsewhere, by its name here, is not missed.
        settings: of the baselines and the combination.
    """

    train: FeatureStore | None = None
    others: Sequence[FeatureStore] = ()
    others_train: Sequence[FeatureStore] = ()
    views: Sequence[FeatureStore] = ()
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    settings: FailureSettings = field(default_factory=FailureSettings)

    def compared(self, test: FeatureStore, progress: Progress | None = None) -> tuple[dict[str, Tensor], list[str]]:
        """The scores `[N]` of a test store by name, and sentences on what they are of and which are absent.

        Raises:
            StoreError: stores are of other samples or of another model.
            ValueError: a setting is out of range.
        """
        scores: dict[str, Tensor] = {}
        said: list[str] = []
        absent: list[str] = []
        if self.train is None:
            absent.append("k-NN distance and Mahalanobis distance (they need the training store)")
        else:
            check_same_model(self.train, test)
            k, sentence = _within(self.settings.neighbors, _reference(self.train, test), "neighbors")
            scores["k-NN distance"] = neighbour_distance(test, self.train, k, progress=progress)
            scores |= mahalanobis_scores(test, Gaussians(self.train))
            said += sentence
            if same_samples(self.train, test):
                said.append("Training and test store hold the same samples: none is its own neighbour.")
        if self.others:
            found, sentences = self._consistency(test, progress)
            scores[CONSISTENCY] = found
            said += sentences
        elif CONSISTENCY not in self.scores:
            absent.append(f"{CONSISTENCY} (it needs stores of other models)")
        if self.views:
            scores[OVER_VIEWS] = stored_view_variance(test, self.views)
            said.append(f"The variance is over {len(self.views) + 1} views, the test store's own among them.")
        elif self.settings.random_views:
            scores[OVER_VIEWS] = self._random_views(test, progress)
            said.append(f"The variance is over {self.settings.random_views} random views of each image.")
        elif OVER_VIEWS not in self.scores:
            absent.append(f"{OVER_VIEWS} (it needs stores of augmented images, or random views)")
        if absent:
            said.append(f"Not compared: {'; '.join(absent)}.")
        return scores | dict(self.scores), said

    def _consistency(self, test: FeatureStore, progress: Progress | None) -> tuple[Tensor, list[str]]:
        tests = [test, *self.others]
        said = renamed(progress, "searching shared neighbours")
        if self.others_train:
            if self.train is None or len(self.others_train) != len(self.others):
                raise ValueError(
                    f"others_train must hold a store for each of {len(self.others)} others, and train one too, got "
                    f"{len(self.others_train)}{'' if self.train is not None else ' and no train'}."
                )
            banks = [self.train, *self.others_train]
            for own, bank in zip(tests, banks, strict=True):
                check_same_model(bank, own)
            k, sentence = _within(self.settings.shared_neighbors, _reference(self.train, test), "shared neighbors")
            return neighbourhood_consistency(tests, banks, k, progress=said), sentence
        require_same_samples(*tests)
        finite = int(torch.stack([store_finite(store) for store in tests]).all(0).sum())
        k, sentence = _within(self.settings.shared_neighbors, finite - 1, "shared neighbors")
        sentence.append(
            f"Neighbourhood consistency of {len(tests)} models is among the other test samples, not among training samples."
        )
        return neighbourhood_consistency(tests, k=k, progress=said), sentence

    def _random_views(self, test: FeatureStore, progress: Progress | None) -> Tensor:
        from sslk.quality.views import ViewSource

        count = self.settings.random_views
        wanted = 4 * count * len(test) * test.num_features
        if count < 2 or wanted > MOST_VIEW_BYTES:
            raise ValueError(
                f"random_views must be at least 2 and fit into {MOST_VIEW_BYTES >> 30} GiB, got {count} ({wanted >> 20} MiB): "
                "extract stores of augmented images instead."
            )
        views = ViewSource().of(test, images=test.spec.samples, views=count, progress=progress)
        if len(views) != len(test):
            raise ValueError(f"{len(views)} images can be read again, and {test.path} holds {len(test)}: it has other images.")
        return view_variance(views)


def _reference(train: FeatureStore, test: FeatureStore) -> int:
    """How many training samples can be neighbours of a test sample."""
    return int(store_finite(train).sum()) - int(same_samples(train, test))


def _within(k: int, most: int, name: str) -> tuple[int, list[str]]:
    """k, or as many neighbours as there are, which is then said."""
    if k < 1:
        raise ValueError(f"{name.replace(' ', '_')} must be at least 1, got {k}.")
    if k <= most:
        return k, []
    return most, [f"There are {most} samples to be neighbours: {name} is {most}, not {k}."]

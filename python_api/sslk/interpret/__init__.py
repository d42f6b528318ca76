"""What features look at: heatmaps, their agreement with annotated regions, the feature atlas, galleries."""

from sslk.interpret.heatmaps import Heatmaps, feature_heatmaps, heatmap_batches
from sslk.interpret.vit import attention_rollout

__all__ = ["Heatmaps", "attention_rollout", "feature_heatmaps", "heatmap_batches"]

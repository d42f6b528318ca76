"""The key layouts in which self-supervised checkpoints store a network, as one declarative table.

A file's nested dictionaries are flattened to *addresses*: `/` steps into a dictionary, `.` belongs to the tensor's own
name, the names of wrappers such as `module.` (DistributedDataParallel), `_orig_mod.` (torch.compile) and
`_fsdp_wrapped_module.` are dropped, and so are the containers `state_dict/`, `model/`, `module/` (DeepSpeed), ... Thus
`{"state_dict": {"module.encoder_q.conv1.weight": ...}}` has the address `encoder_q.conv1.weight` in the container
`state_dict`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

CONTAINERS = ("state_dict", "model", "module", "model_state_dict", "model_state")
_LIGHTLY_TRAIN = ("model_wrapper._model.", "model_wrapper._features.", "wrapped_model._model.", "wrapped_model._features.")


@dataclass(frozen=True)
class Layout:
    """Where one code base puts the backbone and the parts around it.

    Attributes:
        name: What `checkpoint_format=` calls it.
        backbone: Address prefixes of the backbone; the first that occurs is read.
        signature: Alternatives; each is the set of address prefixes that must all occur for the layout to be detected.
        parts: Role -> address prefixes. A tensor belongs to the longest prefix that fits, the backbone's included.
        container: The container the tensors must be in to be detected; None for any.
        absent: Address prefixes that rule the layout out.
    """

    name: str
    backbone: tuple[str, ...]
    signature: tuple[tuple[str, ...], ...]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    container: str | None = None
    absent: tuple[str, ...] = ()

    def fits(self, addresses: Collection[str], container: str) -> bool:
        """Whether addresses found in a container have this layout's signature."""

        def occurs(prefix: str) -> bool:
            return any(address.startswith(prefix) for address in addresses)

        if self.container is not None and self.container != container:
            return False
        return any(all(map(occurs, needed)) for needed in self.signature) and not any(map(occurs, self.absent))


_VISSL = "classy_state_dict/base_model/model/"
_PROTOTYPES = tuple(f"{_VISSL}heads/{head}.prototypes" for head in range(4))

# The order is that of detection: the more telling signature first.
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "vissl",
        backbone=(f"{_VISSL}trunk/_feature_blocks.", f"{_VISSL}trunk/"),
        signature=((f"{_VISSL}trunk/",),),
        parts={"projector": (f"{_VISSL}heads/",), "prototypes": _PROTOTYPES},
    ),
    Layout(
        "moco",
        backbone=("encoder_q.", "base_encoder."),
        signature=(("encoder_q.",), ("base_encoder.", "momentum_encoder.")),
        parts={
            "projector": ("encoder_q.fc.", "base_encoder.fc.", "base_encoder.head."),
            "predictor": ("predictor.",),
            "momentum_encoder": ("encoder_k.", "momentum_encoder."),
            "momentum_projector": ("encoder_k.fc.", "momentum_encoder.fc.", "momentum_encoder.head."),
        },
    ),
    Layout(
        "byol",
        backbone=("online_encoder.net.", "online_network_state_dict/encoder."),
        signature=(("online_encoder.net.",), ("online_network_state_dict/encoder.",)),
        parts={
            # The one-t spelling is that of the published code.
            "projector": ("online_encoder.projector.", "online_network_state_dict/projetion."),
            "predictor": ("online_predictor.", "predictor_network_state_dict/"),
            "momentum_encoder": ("target_encoder.net.", "target_network_state_dict/encoder."),
            "momentum_projector": ("target_encoder.projector.", "target_network_state_dict/projetion."),
        },
    ),
    Layout(
        "dinov2",
        backbone=("teacher/backbone.", "teacher.backbone.", ""),
        signature=(
            ("teacher/backbone.cls_token", "teacher/dino_head."),
            ("teacher.backbone.cls_token", "teacher.dino_head."),
            ("cls_token", "mask_token", "patch_embed.", "blocks."),
        ),
        parts={
            "projector": ("teacher/dino_head.", "teacher.dino_head."),
            "prototypes": ("teacher/dino_head.last_layer.", "teacher.dino_head.last_layer."),
            "student": ("student.backbone.",),
            "student_projector": ("student.dino_head.",),
        },
        absent=("decoder_embed.",),
    ),
    Layout(
        "dino",
        backbone=("teacher/backbone.", ""),
        signature=(("teacher/backbone.", "student/backbone."),),
        parts={
            "projector": ("teacher/head.",),
            "prototypes": ("teacher/head.last_layer.",),
            "student": ("student/backbone.",),
            "student_projector": ("student/head.",),
        },
    ),
    Layout(
        "mae",
        backbone=("",),
        signature=(("cls_token", "patch_embed.", "decoder_embed."), ("cls_token", "pos_embed", "patch_embed.")),
        parts={"decoder": ("decoder_", "mask_token")},
        container="model",
        absent=("head.",),
    ),
    Layout(
        "lightly",
        backbone=("backbone.vit.", "backbone.", "teacher_backbone."),
        signature=(("backbone.", "projection_head."), ("teacher_backbone.", "student_backbone."), ("backbone.vit.", "decoder.")),
        parts={
            "projector": ("projection_head.", "teacher_head."),
            "predictor": ("prediction_head.",),
            "momentum_encoder": ("backbone_momentum.",),
            "momentum_projector": ("projection_head_momentum.",),
            "prototypes": ("prototypes.", "teacher_head.last_layer."),
            "student": ("student_backbone.",),
            "student_projector": ("student_head.",),
            "decoder": ("decoder.",),
            "criterion": ("criterion.",),  # of this package's own runs: MoCo's queue, DINO's centre
        },
    ),
    Layout(
        "solo-learn",
        backbone=("backbone.", "encoder."),
        signature=(("backbone.", "classifier."), ("encoder.", "classifier.", "projector.")),
        parts={
            "projector": ("projector.",),
            "predictor": ("predictor.",),
            "momentum_encoder": ("momentum_backbone.", "momentum_encoder."),
            "momentum_projector": ("momentum_projector.",),
            "prototypes": ("prototypes.",),
            "classifier": ("classifier.",),
        },
        container="state_dict",
    ),
    Layout(
        "lightly-train",
        backbone=tuple(f"{copy}embedding_model.{name}" for copy in ("teacher_", "") for name in _LIGHTLY_TRAIN),
        signature=(("teacher_embedding_model.",), ("embedding_model.model_wrapper.",), ("embedding_model.wrapped_model.",)),
        parts={
            "projector": ("projection_head.", "teacher_projection_head."),
            "predictor": ("prediction_head.",),
            "student": tuple(f"student_embedding_model.{name}" for name in _LIGHTLY_TRAIN),
            "student_projector": ("student_projection_head.",),
        },
    ),
    Layout(
        "openmmlab",
        backbone=("backbone.",),
        signature=(("backbone.", "neck."), ("backbone.", "head."), ("backbone.", "data_preprocessor.")),
        parts={"projector": ("neck.",), "predictor": ("head.predictor.",), "classifier": ("head.fc.",)},
        container="state_dict",
    ),
    Layout(
        "simsiam",
        backbone=("encoder.",),
        signature=(("encoder.conv1.", "encoder.fc.", "predictor."),),
        parts={"projector": ("encoder.fc.",), "predictor": ("predictor.",)},
    ),
    Layout(
        "swav",
        backbone=("",),
        signature=(("conv1.", "projection_head.", "prototypes."),),
        parts={"projector": ("projection_head.",), "prototypes": ("prototypes.",)},
    ),
    Layout(
        "barlow-twins",
        backbone=("backbone.", ""),
        signature=(("backbone.", "projector.", "bn."),),
        parts={"projector": ("projector.",)},
        container="model",
    ),
    Layout(
        "vicreg",
        backbone=("backbone.", ""),
        signature=(("backbone.", "projector."),),
        parts={"projector": ("projector.",)},
        container="model",
    ),
    Layout(
        "torchvision",
        backbone=("",),
        signature=(("conv1.", "layer1."), ("features.",), ("conv_proj.", "encoder.")),
        absent=("projection_head.", "patch_embed."),
    ),
    Layout("timm", backbone=("",), signature=(("patch_embed.",), ("conv_stem.",), ("stem.",), ("stages.",))),
    # Any prefix, as a Lightning module's attribute or a hand-written file has it: found by the names of the network.
    Layout("lightning", backbone=(), signature=()),
)

LAYOUT_NAMES = tuple(layout.name for layout in LAYOUTS)

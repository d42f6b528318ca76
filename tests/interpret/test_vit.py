"""Transformers: roll-out and gradient x token against the equations, on timm, torchvision and transformers."""

import warnings

import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer

import sslk
from sslk.interpret import attention_rollout
from sslk.interpret.heatmaps import HeatmapSettings
from sslk.interpret.raw_maps import resize_and_scale
from sslk.models import Backbone
from sslk.models.huggingface import HuggingFaceEncoder


def timm_vit(**options):
    torch.manual_seed(0)
    return timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=0, **options
    ).eval()


def torchvision_vit():
    torch.manual_seed(0)
    net = VisionTransformer(32, 8, 3, 2, 24, 48)
    net.heads = nn.Identity()
    return net.eval()


def huggingface_vit():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48
    )
    return HuggingFaceEncoder(ViTModel(config, add_pooling_layer=False), torch.zeros(2, 3, 32, 32)).eval()


MAKERS = {
    "timm": timm_vit,
    "timm-mean": lambda: timm_vit(global_pool="avg", class_token=False),
    "torchvision": torchvision_vit,
    "transformers": huggingface_vit,
}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pooled", [False, True])
def test_rollout_equals_the_product_of_the_attention_that_timm_computes_unfused(pooled):
    net = MAKERS["timm-mean" if pooled else "timm"]()
    found = attention_rollout(net, IMAGES)
    attention = []
    for block in net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, args, output: attention.append(args[0].detach().double()))
    net(IMAGES)
    tokens = attention[0].shape[-1]
    assert len(attention) == 3 and tokens == 16 + (not pooled)
    for i in range(3):
        rollout = torch.eye(tokens, dtype=torch.float64)
        for a in attention:
            rollout = (0.5 * a[i].mean(0) + 0.5 * torch.eye(tokens, dtype=torch.float64)) @ rollout
        wanted = rollout.mean(0) if pooled else rollout[0, 1:]
        torch.testing.assert_close(found[i], resize_and_scale(wanted.view(4, 4), (32, 32)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["torchvision", "transformers"])
def test_rollout_follows_attention_that_is_made_to_look_at_one_patch(name):
    """With keys that grow along the marked patch's embedding only, every block attends there."""
    net = MAKERS[name]()
    maps = attention_rollout(net, IMAGES)
    assert maps.shape == (3, 32, 32) and torch.isfinite(maps).all()
    assert maps.amax((1, 2)).tolist() == [1.0] * 3 and not net.training
    # The same network without attention differences: zero queries attend evenly, and so does the roll-out.
    with torch.no_grad():
        for parameter_name, parameter in net.named_parameters():
            if "in_proj" in parameter_name:
                parameter[:24] = 0
            elif "query" in parameter_name or "q_proj" in parameter_name:
                parameter.zero_()
    even = attention_rollout(net, IMAGES)
    torch.testing.assert_close(even, torch.ones_like(even))


@pytest.mark.parametrize("name", MAKERS)
def test_gradient_x_token_is_the_derivative_of_scaling_a_patch_token(name):
    """`sum_c t_pc dh_j/dt_pc` is d h_j / d s for a token scaled to `s t_p`, at s = 1."""
    net = MAKERS[name]().double()
    model, x = Backbone(net.float(), name=name, input_size=(32, 32)), IMAGES.double()
    net.double()
    with pytest.warns(UserWarning, match="using gradient x token at"):
        found = sslk.feature_heatmaps(model, x, settings=HeatmapSettings(size=(4, 4)), features=[3, 11])
    assert found.method == "gradient x token" and not any(p.grad is not None for p in model.parameters())
    prefix = 0 if name == "timm-mean" else 1
    layer, step = model.get_submodule(found.layer), 1e-5
    slopes = torch.zeros(3, 2, 16, dtype=torch.float64)
    for p in range(16):
        values = []
        for s in (1 - step, 1 + step):

            def scale(module, args, output, p=p, s=s):
                tokens = (output[0] if isinstance(output, tuple) else output).clone()
                tokens[:, prefix + p] *= s
                return (tokens, *output[1:]) if isinstance(output, tuple) else tokens

            handle = layer.register_forward_hook(scale)
            values.append(model(x).detach()[:, [3, 11]])
            handle.remove()
        slopes[:, :, p] = (values[1] - values[0]) / (2 * step)
    assert slopes.abs().max() > 1e-3  # not the zero of a class token behind the last attention, or in front of a norm
    wanted = resize_and_scale(slopes.relu().view(3, 2, 4, 4), (4, 4))
    torch.testing.assert_close(found.per_feature, wanted, rtol=1e-4, atol=1e-5)


def test_models_without_patch_tokens_are_refused():
    with pytest.raises(ValueError, match=r"neither scaled_dot_product_attention nor nn\.MultiheadAttention ran"):
        attention_rollout(nn.Conv2d(3, 2, 3), IMAGES)
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, img_size=64, window_size=4)
    for module in swin.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    with pytest.raises(ValueError, match="attends within windows"):
        attention_rollout(swin, torch.randn(1, 3, 64, 64))
    backbone = Backbone(swin, name="swin", input_size=(64, 64))
    with pytest.raises(ValueError, match="channels-last"), warnings.catch_warnings():
        sslk.feature_heatmaps(backbone, torch.randn(1, 3, 64, 64), features=[0])

"""Transformers as small as tests want them, under names of timm's kind: registered when this is imported."""

from functools import partial
from typing import Any

import timm
from timm.models import Eva, VisionTransformer, generate_default_cfgs, register_model
from torch import nn

DINOV2, DINOV3, PLAIN = "vit_test_patch14_reg4_dinov2", "vit_test_patch16_dinov3", "vit_test_patch16_56"
OF_SUBCELL = "vit_test_patch16_subcell"

# Of one side, as timm notes of its own.
_NOTES = {"fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head"}
default_cfgs = generate_default_cfgs(
    {
        f"{DINOV2}.none": {**_NOTES, "input_size": (3, 70, 70)},
        f"{DINOV3}.none": {**_NOTES, "input_size": (3, 64, 64)},
        f"{OF_SUBCELL}.none": {**_NOTES, "input_size": (3, 64, 64)},
        f"{PLAIN}.none": {**_NOTES, "input_size": (3, 64, 64)},
    }
)
_SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2}
_OF_BUILDING = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def _small(name: str, kind: Any, size: int, options: dict[str, Any], **own: Any) -> nn.Module:
    given = {key: value for key, value in options.items() if key not in _OF_BUILDING}
    network: nn.Module = kind(**{"img_size": size, **_SMALL, **own, **given})
    network.pretrained_cfg = timm.get_pretrained_cfg(name).to_dict()  # type: ignore[assignment]
    return network


@register_model
def vit_test_patch14_reg4_dinov2(pretrained: bool = False, **options: Any) -> nn.Module:
    """DINOv2 with registers: layer scale, and no position for tokens that are none of the field."""
    return _small(
        DINOV2,
        VisionTransformer,
        70,
        options,
        patch_size=14,
        init_values=0.5,
        reg_tokens=4,
        no_embed_class=True,
    )


@register_model
def vit_test_patch16_dinov3(pretrained: bool = False, **options: Any) -> nn.Module:
    """DINOv3: rotary position embedding, no learnt one."""
    return _small(
        DINOV3, Eva, 64, options, patch_size=16, use_rot_pos_emb=True, use_abs_pos_emb=False,
        num_reg_tokens=4, use_fc_norm=False,
        rope_type="dinov3", rope_rotate_half=True, init_values=0.5,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )  # fmt: skip


@register_model
def vit_test_patch16_56(pretrained: bool = False, **options: Any) -> nn.Module:
    """A plain ViT with a class token."""
    return _small(PLAIN, VisionTransformer, 64, options, patch_size=16)


@register_model
def vit_test_patch16_subcell(pretrained: bool = False, **options: Any) -> nn.Module:
    """As wide and deep as the tests' SubCell."""
    return _small(
        OF_SUBCELL, VisionTransformer, 64, options, patch_size=16, embed_dim=128, depth=2, mlp_ratio=1.5
    )

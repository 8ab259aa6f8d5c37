"""SubCell of a few blocks under the names of the published files, and what it says, worked out plainly."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

WIDTH, DEPTH, HIDDEN, GRID, PATCH = 128, 2, 192, 4, 16
Weights = dict[str, Tensor]


def encoder(channels: str = "rybg", seed: int = 0, dropout: bool = True) -> Weights:
    """Weights of an encoder with its pooling, by their published names."""
    rng = torch.Generator().manual_seed(seed)

    def linear(name: str, after: int, before: int, *kernel: int) -> None:
        made[f"{name}.weight"] = torch.randn(after, before, *kernel, generator=rng) * 0.08
        made[f"{name}.bias"] = torch.randn(after, generator=rng) * 0.1

    def norm(name: str) -> None:
        made[f"{name}.weight"] = 1 + torch.randn(WIDTH, generator=rng) * 0.1
        made[f"{name}.bias"] = torch.randn(WIDTH, generator=rng) * 0.1

    made: Weights = {
        "encoder.embeddings.cls_token": torch.randn(1, 1, WIDTH, generator=rng),
        "encoder.embeddings.position_embeddings": torch.randn(1, 1 + GRID**2, WIDTH, generator=rng) * 0.5,
    }
    linear("encoder.embeddings.patch_embeddings.projection", WIDTH, len(channels), PATCH, PATCH)
    for layer in range(DEPTH):
        start = f"encoder.encoder.layer.{layer}."
        for part in ("query", "key", "value"):
            linear(f"{start}attention.attention.{part}", WIDTH, WIDTH)
        linear(f"{start}attention.output.dense", WIDTH, WIDTH)
        linear(f"{start}intermediate.dense", HIDDEN, WIDTH)
        linear(f"{start}output.dense", WIDTH, HIDDEN)
        norm(f"{start}layernorm_before")
        norm(f"{start}layernorm_after")
    norm("encoder.layernorm")
    for part in ("v", "u"):
        linear(f"pool_model.attention_{part}.{int(dropout)}", 24, WIDTH)
    linear("pool_model.attention", 2, 24)
    return made


def classifier(seed: int = 0, places: tuple[int, ...] = (0, 3, 6)) -> Weights:
    """Weights of a classifier, by their published names."""
    rng = torch.Generator().manual_seed(100 + seed)
    widths, made = (2 * WIDTH, 20, 12, 31), {}
    for place, before, after in zip(places, widths, widths[1:], strict=False):
        made[f"{place}.weight"] = torch.randn(after, before, generator=rng) * 0.2
        made[f"{place}.bias"] = torch.randn(after, generator=rng) * 0.5
    return made


def write_files(folder: Path, channels: str = "rybg", classifiers: int = 2, seed: int = 0) -> list[Path]:
    """The files of an encoder and of classifiers, as published."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"encoder": encoder(channels, seed)}
    parts |= {f"classifier_s{number}": classifier(seed + number) for number in range(classifiers)}
    for name, weights in parts.items():
        torch.save(weights, folder / f"{name}.pth")
    return [folder / f"{name}.pth" for name in parts]


def said(crops: Tensor, weights: Weights, classifiers: list[Weights]) -> tuple[Tensor, Tensor]:
    """Features and probabilities of crops, each step as its authors' code takes it."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * scale + shift

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (WIDTH // 64, 64)).transpose(1, 2)

    low, high = (getattr(crops.flatten(1), name)(1).view(-1, 1, 1, 1) for name in ("amin", "amax"))
    crops = (crops - low) / (high - low + 1e-6)
    start = "encoder.embeddings."
    projection = f"{start}patch_embeddings.projection"
    maps = functional.conv2d(crops, weights[f"{projection}.weight"], weights[f"{projection}.bias"], PATCH)
    known = weights[f"{start}position_embeddings"]
    grid = known[:, 1:].view(1, GRID, GRID, WIDTH).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, maps.shape[-2:], mode="bicubic", align_corners=False)
    patches = (maps + grid).flatten(2).transpose(1, 2)
    first = (weights[f"{start}cls_token"] + known[:, :1]).expand(len(crops), -1, -1)
    tokens = torch.cat([first, patches], dim=1)
    for layer in range(DEPTH):
        name = f"encoder.encoder.layer.{layer}."
        seen = norm(f"{name}layernorm_before", tokens)
        query, key, value = (
            heads(linear(f"{name}attention.attention.{part}", seen)) for part in ("query", "key", "value")
        )
        mixed = ((query @ key.transpose(-1, -2)) / 8).softmax(-1) @ value
        tokens = tokens + linear(f"{name}attention.output.dense", mixed.transpose(1, 2).flatten(2))
        inner = functional.gelu(linear(f"{name}intermediate.dense", norm(f"{name}layernorm_after", tokens)))
        tokens = tokens + linear(f"{name}output.dense", inner)
    tokens = norm("encoder.layernorm", tokens)
    place = 1 if "pool_model.attention_v.1.weight" in weights else 0
    gated = linear(f"pool_model.attention_v.{place}", tokens).tanh() * functional.gelu(
        linear(f"pool_model.attention_u.{place}", tokens)
    )
    shares = linear("pool_model.attention", gated).softmax(dim=1)  # over tokens, the class token among them
    features = torch.einsum("bth,btw->bhw", shares, tokens).flatten(1)
    each = []
    for one in classifiers:
        found = features
        for number, layer in enumerate(sorted({int(key.split(".")[0]) for key in one})):
            found = (found.relu() if number else found) @ one[f"{layer}.weight"].T + one[f"{layer}.bias"]
        each.append(found.sigmoid())
    return features, torch.stack(each).mean(0)

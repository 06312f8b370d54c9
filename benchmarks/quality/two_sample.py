"""Can a network tell samples from photographs? A classifier two-sample test.

Lopez-Paz and Oquab 2017 (https://arxiv.org/abs/1610.06545): train a classifier on half of both sets, and
count how often it is right about the other half. 0.5 means that it cannot tell them apart.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

_EPOCHS, _BATCH, _RATE = 15, 32, 1e-3
_WIDTHS = (16, 32, 64, 128)


def accuracy(samples: torch.Tensor, real: torch.Tensor, seed: int = 0) -> float:
    """On the second half of equally many images of both kinds, `(N, C, S, S)` in [0, 1]."""
    half = len(real) // 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = _trained(samples[:half], real[:half])
    with torch.inference_mode():
        logits = classifier(_normalised(torch.cat([samples[half:], real[half:]])))
    return float(((logits > 0) == _labels(len(samples) - half, len(real) - half)).float().mean())


def _trained(samples: torch.Tensor, real: torch.Tensor) -> nn.Module:
    channels = (real.shape[1], *_WIDTHS)
    layers = [
        layer
        for narrow, wide in zip(channels[:-1], _WIDTHS, strict=True)
        for layer in (nn.Conv2d(narrow, wide, 3, 2, 1), nn.BatchNorm2d(wide), nn.ReLU())
    ]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_WIDTHS[-1], 1), nn.Flatten(0))
    classifier = nn.Sequential(*layers, *head)
    images, labels = torch.cat([samples, real]), _labels(len(samples), len(real)).float()
    steps = _EPOCHS * -(-len(images) // _BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(_EPOCHS):
        for rows in torch.split(torch.randperm(len(images)), _BATCH):
            batch = _normalised(images[rows])
            batch = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, batch, batch.flip(3))
            loss = functional.binary_cross_entropy_with_logits(classifier(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return classifier.eval()


def _labels(samples: int, real: int) -> torch.Tensor:
    return torch.cat([torch.ones(samples), torch.zeros(real)]).bool()


def _normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - 0.5) / 0.25

"""The standard recipe: a common convolutional VAE.

Pairs of 3×3 convolutions with BatchNorm and LeakyReLU, the first of stride 2, then CBAM attention
(Woo et al. 2018, https://arxiv.org/abs/1807.06521); fully connected layers to mu and logvar and back;
transposed convolutions up to a sigmoid.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (1, 2, 4, 8)


class StandardVAE(nn.Module):
    """Images `(B, 3, S, S)` in [0, 1], S a multiple of 16, to `latent_dim` values and back."""

    def __init__(self, latent_dim: int, base: int, size: int) -> None:
        super().__init__()
        widths = [base * width for width in WIDTHS]
        side = size // 2 ** len(widths)
        flat = widths[-1] * side * side
        self.encoder = nn.Sequential(
            *(down(before, after) for before, after in zip([3, *widths], widths, strict=False)),
            nn.Flatten(),
        )
        self.to_mu = nn.Linear(flat, latent_dim)
        self.to_logvar = nn.Linear(flat, latent_dim)
        rising = widths[::-1]
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, flat),
            nn.Unflatten(1, (widths[-1], side, side)),
            *(
                up(before, after)
                for before, after in zip(rising, [*rising[1:], rising[-1]], strict=True)
            ),
            nn.Conv2d(base, 3, 3, padding=1),
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mu and logvar, float32 `(B, latent_dim)`."""
        flat = self.encoder(x)
        return self.to_mu(flat).float(), self.to_logvar(flat).float().clamp(-30, 20)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Images in (0, 1), float32."""
        return torch.sigmoid(self.decoder(z).float())


def down(before: int, after: int) -> nn.Sequential:
    """Halves the side."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1),
        nn.BatchNorm2d(after),
        nn.LeakyReLU(0.2),
        nn.Conv2d(after, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.LeakyReLU(0.2),
        CBAM(after),
    )


def up(before: int, after: int) -> nn.Sequential:
    """Doubles the side."""
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(after),
        nn.LeakyReLU(0.2),
        nn.Conv2d(after, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.LeakyReLU(0.2),
        CBAM(after),
    )


class CBAM(nn.Module):
    """Channel attention, then spatial attention."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.shared = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channel = self.shared(x.mean(dim=(2, 3))) + self.shared(x.amax(dim=(2, 3)))
        x = x * torch.sigmoid(channel)[:, :, None, None]
        place = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(place))

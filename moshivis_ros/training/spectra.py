"""How far two sounds are apart: log-mel and log spectra."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from moshivis_ros.model.codec import SAMPLE_RATE


class Spectra:
    """Distance of two sounds in log-mel and log spectra at four resolutions."""

    def __init__(self) -> None:
        self.sizes = (256, 512, 1024, 2048)
        self.windows = [torch.hann_window(size) for size in self.sizes]
        self.mels = [mel_filters(size, min(80, size // 8)) for size in self.sizes]

    def __call__(self, out: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        mel, stft = out.new_zeros(()), out.new_zeros(())
        both = torch.cat((out, target))
        for size, window, filters in zip(self.sizes, self.windows, self.mels):
            spectrum = torch.stft(both, size, size // 4, window=window, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(-1)
            magnitude = (power + 1e-8).sqrt()
            x, y = magnitude.chunk(2)
            mel_x, mel_y = ((filters @ part + 1e-4).log() for part in (x, y))
            mel = mel + F.l1_loss(mel_x, mel_y)
            stft = stft + F.l1_loss((x + 1e-3).log(), (y + 1e-3).log()) * 0.25
            stft = stft + (x - y).norm() / (y.norm() + 1e-3) * 0.25
        return mel, stft


def mel_filters(size: int, bands: int) -> Tensor:
    """Triangular mel filters [bands, size / 2 + 1] for 24 kHz."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(up, down).clamp(min=0)
    return filters / filters.sum(1, keepdim=True).clamp(min=1e-3)

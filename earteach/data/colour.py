"""Colours of photographs: those with a profile of their own, as sRGB."""

from __future__ import annotations

import io
import logging
from functools import lru_cache

from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_log = logging.getLogger(__name__)


def in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture as RGB; its colours from those of an ICC profile to those of sRGB.

    Phones write Display P3, cameras Adobe RGB, and print shops CMYK. A profile that is damaged, or of
    another kind of picture, is ignored.
    """
    plain = picture.convert("CMYK" if picture.mode == "CMYK" else _without_alpha(picture.mode))
    own = _other_profile(profile) if profile else None
    if own is not None:
        try:
            converted = ImageCms.profileToProfile(plain, own, _SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, ValueError, OSError):
            return plain.convert("RGB")
        _log.info("photographs with a colour profile of their own are converted to sRGB")
        if converted is not None:
            return converted
    return plain.convert("RGB")


def _without_alpha(mode: str) -> str:
    return "L" if mode in ("L", "LA", "1") else "RGB"


@lru_cache(maxsize=8)
def _other_profile(profile: bytes) -> ImageCms.ImageCmsProfile | None:
    """The profile, unless it is sRGB or damaged."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return own

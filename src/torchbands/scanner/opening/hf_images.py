"""What a Hugging Face folder says of its images: size, scale, normalisation, order of the channels; obeyed or told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchbands.core.errors import Unsupported
from torchbands.core.modality import Modality
from torchbands.modalities.image import Image

from .files import Folder, parse_json
from .limits import MAX_CHANNELS, MAX_EDGE, MAX_JSON
from .refusal import malformed, shown
from .weights import Numbers, State

ONE, NESTED = "preprocessor_config.json", "processor_config.json"
#: Steps that are done here, or that change no square image of the right kind.
_DONE = {
    *("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb", "do_flip_channel_order"),
    *("do_reduce_labels", "do_thumbnail", "do_align_long_axis"),
}
#: A number that divides, closer to nought than this, is none.
_LEAST = 1e-6


def settings_of(folder: Folder, state: State) -> Mapping[str, Any]:
    """The settings of the image processor; empty where the folder has none, which is told."""
    if ONE in folder.names:
        return parse_json(folder.read(ONE, MAX_JSON), ONE)
    inner = parse_json(folder.read(NESTED, MAX_JSON), NESTED).get("image_processor") if NESTED in folder.names else None
    if isinstance(inner, Mapping):
        return inner
    state.facts["normalisation"] = "none"
    state.tell(f"the folder has no {ONE}: images go in as they are, in [0, 1]")
    return {}


def image_of(told: Mapping[str, Any], settings: Mapping[str, Any], given: Modality | None, state: State) -> Modality:
    """The images that the model reads; those that are given where the folder does not say their size.

    Raises Unsupported for those that are no squares.
    """
    scaled, cropped = _edge(settings.get("size")), None
    if settings.get("do_center_crop"):
        cropped = _edge(settings.get("crop_size"))
    said, channels = cropped or scaled or told["size"], told["channels"]
    edge = told["size"] or said
    if not edge:
        if given is None:
            raise Unsupported("the folder does not say how large its images are", hint="name some with --data")
        return given
    if not all(isinstance(n, int) and 1 <= n <= MAX_EDGE for n in (said, edge)) or not 1 <= channels <= MAX_CHANNELS:
        raise malformed(f"the folder says its images have size {shown(edge, 40)} and {channels} channels")
    if said != edge:
        state.tell(f"{ONE} says {said} pixels, config.json {edge}: images are scaled to {edge}")
    if cropped and scaled and scaled > cropped and settings.get("do_resize", True):
        state.tell(f"images are scaled to {edge} pixels, where transformers cuts {cropped} out of {scaled}")
    return Image(channels=channels, size=edge)


def _edge(size: Any) -> Any:
    if not isinstance(size, Mapping):
        return size
    height, width = size.get("height"), size.get("width")
    if height is not None and height != width:
        raise Unsupported(
            f"the model reads images of {shown(height, 20)} x {shown(width, 20)}; only squares are read here",
            hint="export it to ONNX with square inputs, or train it on squares",
        )
    return height or size.get("shortest_edge") or size.get("longest_edge")


def scale_of(settings: Mapping[str, Any], channels: int, state: State) -> tuple[Numbers | None, Numbers | None]:
    """(mean, std) by which pixels in [0, 1] become what the image processor makes of bytes; None where they stay.

    Bytes are multiplied by rescale_factor (1/255, or 1 where do_rescale is false), and then standardised.
    """
    factor = 255.0 * _number(settings.get("rescale_factor"), 1 / 255) if settings.get("do_rescale", True) else 255.0
    offset = 1.0 if settings.get("rescale_offset") and settings.get("do_rescale", True) else 0.0
    mean, std = [0.0] * channels, [1.0] * channels
    if settings.get("do_normalize", True):
        mean = _numbers(settings.get("image_mean"), channels) or mean
        std = _numbers(settings.get("image_std"), channels) or std
        if settings.get("image_processor_type") == "EfficientNetImageProcessor" and settings.get("include_top", True):
            std = [s * s for s in std]  # it divides by the deviation twice
    if abs(factor) < _LEAST or any(abs(s) < _LEAST for s in std):
        raise malformed(f"{ONE} multiplies or divides pixels by nothing", subject=ONE)
    if flipped(settings):  # channels are turned before they are standardised
        mean, std = mean[::-1], std[::-1]
    if abs(factor - 1) > 1e-3:
        state.tell(f"{ONE} (do_rescale, rescale_factor): pixels go in as 0 ... {factor:g}")
    for step in sorted(k for k, v in settings.items() if k.startswith("do_") and v and k not in _DONE):
        state.tell(f"{ONE} asks for {shown(step, 60)}, which is not done here")
    if abs(factor - 1) < 1e-9 and not offset and not any(mean) and all(s == 1 for s in std):
        return None, None
    return [(m + offset) / factor for m in mean], [s / factor for s in std]


def flipped(settings: Mapping[str, Any]) -> bool:
    """Whether channels go in from last to first."""
    return bool(settings.get("do_flip_channel_order"))


def _number(value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
        raise malformed(f"{ONE}: {shown(value, 40)} is no factor for pixels", subject=ONE)
    return float(value)


def _numbers(value: Any, channels: int) -> list[float] | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value] * channels
    if not isinstance(value, list) or not value:
        return None
    if len(value) != channels:
        raise malformed(f"{ONE} normalises {len(value)} channels, the model reads {channels}", subject=ONE)
    return [_number(v, 0.0) for v in value]

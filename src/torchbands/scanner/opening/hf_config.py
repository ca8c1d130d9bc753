"""A Hugging Face config.json made harmless: known model types, plain settings, sizes that the weights bear out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchbands.core.errors import Unsupported

from .limits import MAX_CLASSES
from .refusal import malformed, shown

TEXT = (
    *("albert", "bert", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra"),
    *("ernie", "funnel", "mobilebert", "mpnet", "nystromformer", "rembert", "roberta", "roformer", "squeezebert"),
    *("xlm-roberta", "gpt2", "modernbert"),
)
VISION = (
    *("beit", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit", "dinov2", "efficientnet", "focalnet"),
    *("levit", "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "poolformer", "pvt", "pvt_v2", "regnet"),
    *("resnet", "swiftformer", "swin", "swinv2", "van", "vit", "vit_msn"),
)
#: Settings that only concern loading, speed or what is answered beside the logits.
_DROPPED = {
    *("auto_map", "trust_remote_code", "_name_or_path", "name_or_path", "_commit_hash", "transformers_version"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "_attn_implementation_autoset"),
    *("experts_implementation", "_experts_implementation", "use_kernels", "torch_dtype", "dtype", "model_type"),
    *("architectures", "torchscript", "base_model_tp_plan", "base_model_pp_plan", "_num_labels", "use_cache"),
    *("output_attentions", "output_hidden_states", "return_dict", "use_return_dict", "_flash_attn_2_enabled"),
}
#: Settings that change what transformers computes, by code or files that are not taken from a suspect.
_REFUSED = {
    *("custom_pipelines", "quantization_config", "kernel_config", "distributed_config", "adapter", "peft_config"),
    *("backbone", "backbone_config", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone", "timm_model"),
}
_LARGEST = 1 << 24


def kind_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """("text" or "vision", model type). Raises InputError for types that are not opened here."""
    name = config.get("model_type")
    if name in TEXT:
        return "text", str(name)
    if name in VISION:
        return "vision", str(name)
    raise Unsupported(
        f"config.json has the model_type {shown(name)}, which is not opened here",
        hint=f"known: {', '.join((*TEXT, *VISION))}; others open as ONNX",
    )


def cleaned(config: Mapping[str, Any], tensors: int) -> dict[str, Any]:
    """Settings that may be given to the config class. Raises Refusal for sizes that no weights here could have."""
    if refused := [k for k, v in config.items() if v and k not in _DROPPED and (k in _REFUSED or k.startswith("_"))]:
        raise Unsupported(
            f"config.json has the setting {shown(refused[0])}, with which transformers would compute something else "
            "than what can be built here",
            hint="save the model without it (quantised or adapted weights: merged, in float32), or export it to ONNX",
        )
    kept = {k: v for k, v in config.items() if k not in _DROPPED | _REFUSED and not k.startswith("_")}
    _bounded("config", kept, 0)
    labels = kept.get("id2label")
    count = kept.get("num_labels", len(labels) if isinstance(labels, dict) else 2)
    if not isinstance(count, int) or not 2 <= count <= MAX_CLASSES:
        raise malformed(f"config.json claims {shown(count)} classes; 2 to {MAX_CLASSES:,} can be judged")
    for name, value in kept.items():
        if name.endswith(("layers", "n_layer", "depth", "blocks")) and isinstance(value, int) and value > tensors:
            raise malformed(f"config.json claims {shown(name)} = {value:,}, but there are only {tensors:,} tensors")
    return kept


def _bounded(name: str, value: Any, depth: int) -> None:
    if depth > 8:
        raise malformed("config.json is nested too deeply")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) <= _LARGEST:
        if not (isinstance(value, float) and value < 1e31):  # int(1e30) is how some mark "no limit"
            raise malformed(f"config.json: {shown(name)} is {value!r:.40}")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _bounded(str(key), inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _bounded(name, inner, depth + 1)


def class_names(config: Mapping[str, Any], classes: int) -> list[str]:
    """Names of the classes, cut to 200 characters."""
    labels = config.get("id2label")
    labels = labels if isinstance(labels, dict) else {}
    return [str(labels.get(str(k), k))[:200] for k in range(classes)]

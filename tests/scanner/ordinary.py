"""Makes the corpus of ordinary files and folders, as real tools write them: `python tests/scanner/ordinary.py DIR`.

Where a tool is not installed, what it writes is put together here, entry by entry. None of it is a finding.
"""

from __future__ import annotations

import argparse
import collections
import csv
import datetime
import gzip
import json
import pathlib
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

#: What the corpus's own network is called to the scanner, and its source.
ARCH = "ordinary_nets:net"
CODE = """from torch import nn

def net(classes=4):
    features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""


@dataclass(frozen=True)
class Case:
    """One file or folder.

    Attributes:
        opens: whether it must be opened; else it ends as `unsupported`, or as an error that says what to type.
        kind: "model", or "data" for rows. needs: modules that its maker imports.
        slow: needs a child process with large libraries.
    """

    name: str
    make: Callable[[Path], None]
    opens: bool = True
    kind: str = "model"
    needs: tuple[str, ...] = ()
    slow: bool = False


CASES: list[Case] = []
Maker = Callable[[Path], None]


def case(name: str, *, opens: bool = True, kind: str = "model", needs: tuple[str, ...] = (), slow: bool = False) -> Any:
    """Register a maker, called with where to write."""

    def wrap(make: Maker) -> Maker:
        CASES.append(Case(name, make, opens, kind, needs, slow))
        return make

    return wrap


def net() -> nn.Module:
    """A network that has seen a batch and an optimiser."""
    scope: dict[str, Any] = {}
    exec(CODE, scope)
    torch.manual_seed(0)
    made: nn.Module = scope["net"]()
    made(torch.rand(8, 3, 16, 16)).sum().backward()
    return made


def state(prefix: str = "") -> collections.OrderedDict[str, torch.Tensor]:
    return collections.OrderedDict((prefix + k, v) for k, v in net().state_dict().items())


def optimised(made: nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """States of an optimiser after a step, of a schedule and of a gradient scaler."""
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=10)
    optimizer.step()
    schedule.step()
    return optimizer.state_dict(), schedule.state_dict(), torch.amp.GradScaler("cpu", enabled=True).state_dict()


def saved(name: str, content: Callable[[], Any], **settings: Any) -> None:
    """A case that is one object through torch.save."""
    CASES.append(Case(name, lambda path: torch.save(content(), path, **settings)))


# --- torch --------------------------------------------------------------------------------------------------------

saved("state_dict.pt", state)
saved("legacy.pth", state, _use_new_zipfile_serialization=False)
CASES.append(Case("protocol_4.pt", lambda p: torch.save(state(), p, pickle_protocol=4), opens=False))
saved("data_parallel.pth", lambda: {"state_dict": state("module.")})
saved("compiled.pt", lambda: state("_orig_mod."))
saved("half.pt", lambda: net().half().state_dict())
saved("bfloat16.pt", lambda: net().bfloat16().state_dict())
saved("double.pt", lambda: net().double().state_dict())
saved("channels_last.pt", lambda: net().to(memory_format=torch.channels_last).state_dict())
saved("parameters.pt", lambda: dict(net().named_parameters()) | dict(net().named_buffers()))
saved("list_of_pairs_in_dict.pt", lambda: {"net": state(), "acc": np.float64(0.9), "epoch": np.int64(3)})


@case("resumable.ckpt")
def _(path: Path) -> None:
    made = net()
    optimizer, schedule, scaler = optimised(made)
    torch.save(
        {
            "epoch": 3,
            "model_state_dict": made.state_dict(),
            "optimizer_state_dict": optimizer,
            "scheduler": schedule,
            "scaler": scaler,
            "loss": torch.tensor(0.3),
            "rng": torch.get_rng_state(),
            "best": float("inf"),
        },
        path,
    )


@case("lightning.ckpt")
def _(path: Path) -> None:
    """As Lightning's Trainer dumps a checkpoint: loops, callbacks, hyperparameters, metrics and losses beside it."""
    optimizer, schedule, _ = optimised(net())
    progress = {"total": {"ready": 4, "completed": 4}, "current": {"ready": 4, "completed": 4}}
    torch.save(
        {
            "epoch": 3,
            "global_step": 128,
            "pytorch-lightning_version": "2.5.1",
            "state_dict": {
                **state("model."),
                "criterion.weight": torch.ones(4),
                "train_acc.tp": torch.zeros(4, dtype=torch.int64),
            },
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": progress}},
            "callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": {"best_model_score": torch.tensor(0.9), "kth": {}}},
            "optimizer_states": [optimizer],
            "lr_schedulers": [schedule],
            "MixedPrecision": {"scale": 65536.0},
            "hparams_name": "kwargs",
            "hyper_parameters": {"lr": 1e-3, "classes": 4, "root": pathlib.PosixPath("/data")},
            "datamodule_hparams_name": "kwargs",
        },
        path,
    )


@case("timm.pth.tar")
def _(path: Path) -> None:
    """As timm's CheckpointSaver: the parsed arguments, and an average of the weights beside them."""
    optimizer, _, scaler = optimised(net())
    args = argparse.Namespace(model="resnet18", data_dir="/data", lr=0.05, mean=None, bce_loss=False)
    torch.save(
        {
            "epoch": 12,
            "arch": "resnet18",
            "state_dict": state(),
            "optimizer": optimizer,
            "version": 2,
            "args": args,
            "amp_scaler": scaler,
            "state_dict_ema": state(),
            "metric": 81.2,
        },
        path,
    )


@case("torchvision_reference.pth")
def _(path: Path) -> None:
    optimizer, schedule, scaler = optimised(net())
    args = argparse.Namespace(data_path="/d", device="cuda", lr=0.1, output_dir=".", label_smoothing=0.0)
    made = {"model": state(), "optimizer": optimizer, "lr_scheduler": schedule, "epoch": 89, "args": args}
    averaged = torch.optim.swa_utils.AveragedModel(net())
    torch.save({**made, "model_ema": averaged.state_dict(), "scaler": scaler}, path)


@case("imagenet_example.pth.tar")
def _(path: Path) -> None:
    optimizer, schedule, _ = optimised(net())
    made = {"epoch": 1, "arch": "resnet18", "state_dict": state("module."), "best_acc1": torch.tensor(70.1)}
    torch.save({**made, "optimizer": optimizer, "scheduler": schedule}, path)


@case("openmmlab.pth")
def _(path: Path) -> None:
    meta = {
        "epoch": 100,
        "time": "20250101_010101",
        "mmengine_version": "0.10.7",
        "cfg": "model = dict(type='ImageClassifier')\n",
        "dataset_meta": {"classes": ["a", "b", "c", "d"]},
        "experiment_name": "r18",
    }
    torch.save({"meta": meta, "state_dict": state(), "message_hub": {"log_scalars": {}, "resumed_keys": {}}}, path)


@case("fastai.pth")
def _(path: Path) -> None:
    torch.save({"model": state(), "opt": {"state": [{"grad_avg": torch.ones(8)}], "hypers": [{"lr": 0.1}]}}, path)


@case("swa.pt")
def _(path: Path) -> None:
    torch.save(torch.optim.swa_utils.AveragedModel(net()).state_dict(), path)


@case("self_supervised.pth")
def _(path: Path) -> None:
    torch.save({"student": state("module."), "epoch": 3, "args": argparse.Namespace(arch="r18", patch_size=8)}, path)


@case("with_a_log.pt")
def _(path: Path) -> None:
    log = collections.defaultdict(list, {"loss": [0.3, 0.2]})
    kept = {"when": datetime.datetime(2026, 1, 2, 3, 4), "size": torch.Size([3, 16, 16]), "dtype": torch.float32}
    counts = collections.Counter({"a": 3})
    torch.save({"state_dict": state(), "log": log, "device": torch.device("cpu"), "counts": counts, **kept}, path)


@case("with_numpy.pt")
def _(path: Path) -> None:
    torch.save({"model": state(), "confusion": np.eye(4), "rng": np.random.RandomState(0).get_state()}, path)


@case("folds.pt")
def _(path: Path) -> None:
    torch.save([state(), state()], path)


@case("traced.pt")
def _(path: Path) -> None:
    torch.jit.trace(net().eval(), torch.rand(2, 3, 16, 16)).save(str(path))


@case("scripted.pt")
def _(path: Path) -> None:
    torch.jit.script(net().eval()).save(str(path))


@case("frozen_script.pt", opens=False)
def _(path: Path) -> None:
    torch.jit.freeze(torch.jit.script(net().eval())).save(str(path))


@case("exported.pt2", opens=False)
def _(path: Path) -> None:
    torch.export.save(torch.export.export(net().eval(), (torch.rand(2, 3, 16, 16),)), str(path))


@case("quantised.pt", opens=False)
def _(path: Path) -> None:
    torch.save(torch.ao.quantization.quantize_dynamic(net().eval(), {nn.Linear}).state_dict(), path)


@case("pruned.pt", opens=False)
def _(path: Path) -> None:
    from torch.nn.utils import prune

    made = net()
    prune.l1_unstructured(made[3], "weight", 0.3)
    torch.save(made.state_dict(), path)


@case("weight_normed.pt", opens=False)
def _(path: Path) -> None:
    made = net()
    torch.nn.utils.parametrizations.weight_norm(made[3])
    torch.save(made.state_dict(), path)


def _whole(path: Path, allow: Any = None) -> None:
    """A whole module, whose class lies in the user's own package."""
    package = types.ModuleType("my_project_models")
    scope = package.__dict__
    exec("from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n", scope)
    scope["Net"].__module__ = package.__name__
    sys.modules[package.__name__] = package
    try:
        made = scope["Net"]()
        made.body = net()
        torch.save(made, path)
    finally:
        del sys.modules[package.__name__]


CASES.append(Case("whole_module.pt", _whole, opens=False))


@case("whole_sequential.pt", opens=False)
def _(path: Path) -> None:
    torch.save(net(), path)


@case("gzipped.pt.gz", opens=False)
def _(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        torch.save(state(), file)


@case("archive.tar", opens=False)
def _(path: Path) -> None:
    torch.save(state(), path.with_suffix(".member"))
    with tarfile.open(path, "w") as file:
        file.add(path.with_suffix(".member"), "model.pt")
    path.with_suffix(".member").unlink()


@case("distributed_checkpoint", opens=False)
def _(path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": state()}, checkpoint_id=str(path), no_dist=True)


@case("deepspeed", opens=False)
def _(path: Path) -> None:
    (path / "global_step10").mkdir(parents=True)
    (path / "latest").write_text("global_step10")
    torch.save({"module": state(), "ds_version": "0.15"}, path / "global_step10" / "mp_rank_00_model_states.pt")
    (path / "zero_to_fp32.py").write_text("import torch\n")


# --- safetensors --------------------------------------------------------------------------------------------------


def tensors(path: Path, prefix: str = "", **metadata: str) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in state(prefix).items()}, path, metadata or None)


@case("model.safetensors")
def _(path: Path) -> None:
    tensors(path, format="pt")


@case("described.safetensors")
def _(path: Path) -> None:
    tensors(path, "model.", **{"modelspec.title": "a net", "ss_tag_frequency": '{"a": 3}', "format": "pt"})


@case("eight_bit.safetensors", opens=False)
def _(path: Path) -> None:
    from safetensors.torch import save_file

    held = state()
    save_file({**held, "3.weight": held["3.weight"].to(torch.int8), "3.weight_scale": torch.ones(4)}, path)


@case("lfs_pointer.safetensors", opens=False)
def _(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 99\n")


@case("failed_download.safetensors", opens=False)
def _(path: Path) -> None:
    path.write_text("<!doctype html>\n<html><body>Not found</body></html>")


@case("accelerate_state", opens=False)
def _(path: Path) -> None:
    """As accelerate's save_state: the weights, and pickles of what goes on beside them."""
    tensors(path / "model.safetensors", format="pt")
    optimizer, schedule, _ = optimised(net())
    torch.save(optimizer, path / "optimizer.bin")
    torch.save(schedule, path / "scheduler.bin")
    with (path / "random_states_0.pkl").open("wb") as file:
        pickle.dump({"step": 3, "random_state": (3, (1, 2), None), "torch_manual_seed": torch.get_rng_state()}, file)


# --- transformers and peft ----------------------------------------------------------------------------------------


def vit(path: Path, **settings: Any) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=3, id2label={0: "cat", 1: "dog", 2: "bird"}, label2id={"cat": 0, "dog": 1, "bird": 2},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(path, **settings)
    about = {"do_resize": True, "size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    about |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    (path / "preprocessor_config.json").write_text(json.dumps(about | {"image_processor_type": "ViTImageProcessor"}))


def bert(path: Path) -> None:
    import tokenizers
    import transformers

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "film", "bad", "##s"]
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    (path / "README.md").write_text("---\nlibrary_name: transformers\n---\n# a model\n")


HF = ("transformers", "tokenizers")


@case("hf_vit", needs=HF)
def _(path: Path) -> None:
    vit(path)


@case("hf_vit_sharded", needs=HF, slow=True)
def _(path: Path) -> None:
    vit(path, max_shard_size="8KB")


@case("hf_bert", needs=HF, slow=True)
def _(path: Path) -> None:
    bert(path)


@case("hf_trainer_checkpoint", needs=HF, slow=True)
def _(path: Path) -> None:
    """As the Trainer leaves a step: the model, and the states of its training beside it."""
    bert(path)
    optimizer, schedule, _ = optimised(net())
    torch.save(optimizer, path / "optimizer.pt")
    torch.save(schedule, path / "scheduler.pt")
    torch.save({"python": (3, (1, 2), None), "cpu": torch.get_rng_state()}, path / "rng_state.pth")
    torch.save(argparse.Namespace(output_dir="out", learning_rate=5e-5), path / "training_args.bin")
    (path / "trainer_state.json").write_text(json.dumps({"epoch": 1.0, "global_step": 4, "log_history": []}))


@case("hf_pytorch_model_bin", needs=HF, opens=False)
def _(path: Path) -> None:
    from safetensors.torch import load_file

    vit(path)
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


@case("hf_resnet", needs=HF, slow=True)
def _(path: Path) -> None:
    import transformers

    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    transformers.ResNetForImageClassification(config).save_pretrained(path)
    about = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    (path / "preprocessor_config.json").write_text(
        json.dumps(about | {"image_processor_type": "ConvNextImageProcessor"})
    )


@case("hf_resnet_without_a_size", needs=HF, opens=False, slow=True)
def _(path: Path) -> None:
    import transformers

    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    transformers.ResNetForImageClassification(config).save_pretrained(path)


@case("hf_causal_lm", needs=HF, opens=False)
def _(path: Path) -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)


@case("hf_without_a_head", needs=HF, opens=False)
def _(path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(path)


@case("peft_adapter", needs=(*HF, "peft"), opens=False)
def _(path: Path) -> None:
    import peft
    import transformers

    vit(path / "base")
    base = transformers.AutoModelForImageClassification.from_pretrained(path / "base")
    made = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["classifier"]))
    made.save_pretrained(path / "adapter")
    for file in (path / "adapter").iterdir():
        file.rename(path / file.name)


@case("diffusers", opens=False)
def _(path: Path) -> None:
    tensors(path / "unet" / "diffusion_pytorch_model.safetensors")
    (path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    (path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


# --- ONNX ---------------------------------------------------------------------------------------------------------


def onnx_of(path: Path, **settings: Any) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net().eval(), (torch.rand(2, 3, 16, 16),), path, dynamo=False, **settings)


ONNX = ("onnx", "onnxruntime")


@case("torchscript_exporter.onnx", needs=ONNX)
def _(path: Path) -> None:
    onnx_of(path, input_names=["input"], output_names=["output"], dynamic_axes={"input": {0: "batch"}})


@case("fixed_batch.onnx", needs=ONNX, slow=True)
def _(path: Path) -> None:
    onnx_of(path)


@case("old_opset.onnx", needs=ONNX, slow=True)
def _(path: Path) -> None:
    onnx_of(path, opset_version=11, dynamic_axes={"onnx::Conv_0": {0: "n"}}, input_names=["onnx::Conv_0"])


def _like_dynamo(path: Path, external: bool) -> None:
    """As the exporter of torch.export: symbolic batch, metadata on nodes, and (when large) weights beside the graph."""
    import onnx
    from onnx import helper

    rng = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(rng.normal(size=(768, 4)).astype(np.float32), "fc.weight")
    bias = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "fc.bias")
    flat = helper.make_node("Flatten", ["x"], ["view"], name="node_view", axis=1)
    gemm = helper.make_node("Gemm", ["view", "fc.weight", "fc.bias"], ["linear"], name="node_linear")
    for node in (flat, gemm):
        node.metadata_props.add(key="pkg.torch.onnx.fx_node", value=f"%{node.output[0]} : call_function")
    graph = helper.make_graph(
        [flat, gemm],
        "main_graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["s77", 3, 16, 16])],
        [helper.make_tensor_value_info("linear", onnx.TensorProto.FLOAT, ["s77", 4])],
        [weight, bias],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="pytorch", ir_version=10)
    if external:
        path.mkdir()
        onnx.save(made, path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=64)
    else:
        onnx.save(made, path)


CASES.append(Case("export_exporter.onnx", lambda p: _like_dynamo(p, False), needs=ONNX, slow=True))
CASES.append(Case("onnx_with_weights_beside", lambda p: _like_dynamo(p, True), opens=False, needs=ONNX))


@case("channels_last.onnx", needs=ONNX, slow=True)
def _(path: Path) -> None:
    """As tf2onnx: channels last, probabilities, a name with a colon."""
    import onnx
    from onnx import helper

    rng = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(rng.normal(size=(768, 4)).astype(np.float32), "dense/kernel")
    nodes = [
        helper.make_node("Reshape", ["input_1:0", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense/kernel"], ["dense"]),
        helper.make_node("Softmax", ["dense"], ["Identity:0"]),
    ]
    shape = onnx.numpy_helper.from_array(np.array([-1, 768], np.int64), "shape")
    graph = helper.make_graph(
        nodes,
        "tf2onnx",
        [helper.make_tensor_value_info("input_1:0", onnx.TensorProto.FLOAT, ["unk__6", 16, 16, 3])],
        [helper.make_tensor_value_info("Identity:0", onnx.TensorProto.FLOAT, ["unk__7", 4])],
        [weight, shape],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)


@case("scikit_learn.onnx", needs=ONNX, opens=False)
def _(path: Path) -> None:
    """As skl2onnx: a classifier of ai.onnx.ml whose probabilities are a list of dictionaries."""
    import onnx
    from onnx import helper

    ml = "ai.onnx.ml"
    linear = helper.make_node(
        "LinearClassifier", ["X"], ["label", "scores"], domain=ml, coefficients=[0.1] * 12, intercepts=[0.0] * 3,
        classlabels_ints=[0, 1, 2], post_transform="SOFTMAX",
    )  # fmt: skip
    zipped = helper.make_node("ZipMap", ["scores"], ["output_probability"], domain=ml, classlabels_int64s=[0, 1, 2])
    kind = helper.make_map_type_proto(
        onnx.TensorProto.INT64, helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    )
    graph = helper.make_graph(
        [linear, zipped],
        "skl",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, [None, 4])],
        [
            helper.make_tensor_value_info("label", onnx.TensorProto.INT64, [None]),
            helper.make_value_info("output_probability", helper.make_sequence_type_proto(kind)),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ml, 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, producer_name="skl2onnx", ir_version=8), path)


# --- other frameworks ---------------------------------------------------------------------------------------------


@case("scikit_learn.joblib", opens=False, needs=("sklearn", "joblib"))
def _(path: Path) -> None:
    import joblib
    from sklearn.linear_model import LogisticRegression

    joblib.dump(LogisticRegression().fit(np.eye(4), [0, 1, 0, 1]), path)


@case("scikit_learn.pkl", opens=False, needs=("sklearn",))
def _(path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    path.write_bytes(pickle.dumps(RandomForestClassifier(3).fit(np.eye(4), [0, 1, 0, 1])))


@case("keras.keras", opens=False)
def _(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.9.0", "date_saved": "2026-01-01@01:01:01"}))
        file.writestr("config.json", json.dumps({"module": "keras", "class_name": "Sequential", "config": {}}))
        file.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(64))


@case("keras.h5", opens=False)
def _(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2048))


@case("tensorflow_saved_model", opens=False)
def _(path: Path) -> None:
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x04\x0a\x02ok")
    (path / "variables" / "variables.index").write_bytes(bytes(32))
    (path / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(32))
    (path / "fingerprint.pb").write_bytes(bytes(8))


@case("lite.tflite", opens=False)
def _(path: Path) -> None:
    path.write_bytes(struct.pack("<I", 28) + b"TFL3" + bytes(256))


@case("llama.gguf", opens=False)
def _(path: Path) -> None:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))


@case("lightgbm.txt", opens=False)
def _(path: Path) -> None:
    path.write_text("tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=3\nobjective=binary\n")


@case("xgboost.json", opens=False)
def _(path: Path) -> None:
    path.write_text(json.dumps({"learner": {"attributes": {}, "objective": {"name": "binary:logistic"}}}))


@case("openvino.xml", opens=False)
def _(path: Path) -> None:
    path.write_text('<?xml version="1.0"?>\n<net name="torch_jit" version="11"><layers/></net>\n')


@case("numpy_weights.npz", opens=False)
def _(path: Path) -> None:
    np.savez(path, **{k: v.numpy() for k, v in state().items()})


# --- data ---------------------------------------------------------------------------------------------------------

ROWS = 24
TEXTS = [f"a {'fine' if i % 2 else 'dull'} film {i} 😀" for i in range(ROWS)]


def picture(i: int, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Any:
    from PIL import Image

    values = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


def class_folders(path: Path, suffix: str = "png", mode: str = "RGB", count: int = 4, **settings: Any) -> None:
    for name in ("cat", "dog"):
        (path / name).mkdir(parents=True)
        for i in range(count):
            picture(i, mode).save(path / name / f"{i:04}.{suffix}", **settings)


@case("imagefolder", kind="data")
def _(path: Path) -> None:
    for part in ("train", "val", "test"):
        class_folders(path / part)
    (path / ".DS_Store").write_bytes(b"\0")
    (path / "classes.txt").write_text("cat\ndog\n")


for _mode, _suffix in (("P", "png"), ("L", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("1", "tiff"), ("RGB", "webp")):
    CASES.append(
        Case(f"images_{_mode}_{_suffix}", lambda p, m=_mode, s=_suffix: class_folders(p, s, m), kind="data")  # type: ignore[misc]
    )


@case("images_with_exif", kind="data")
def _(path: Path) -> None:
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    class_folders(path, "jpg", exif=turned.tobytes(), quality=90)
    (path / "cat" / "Thumbs.db").write_bytes(b"\0")


@case("metadata_imagefolder", kind="data")
def _(path: Path) -> None:
    (path / "train").mkdir(parents=True)
    for i in range(8):
        picture(i).save(path / "train" / f"{i}.png")
    lines = [f"{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(8)]
    (path / "train" / "metadata.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")


def frame() -> Any:
    import pandas

    rng = np.random.default_rng(0)
    made = pandas.DataFrame(rng.normal(size=(ROWS, 3)), columns=["a", "b", "c"])
    made["target"] = ["x", "y"] * (ROWS // 2)
    return made


def texts() -> Any:
    import pandas

    return pandas.DataFrame({"text": TEXTS, "label": ["pos", "neg"] * (ROWS // 2)})


PANDAS = ("pandas",)
CASES += [
    Case("pandas.csv", lambda p: frame().to_csv(p), kind="data", needs=PANDAS),
    Case("pandas_texts.csv", lambda p: texts().to_csv(p), kind="data", needs=PANDAS),
    Case("pandas_no_index.tsv", lambda p: texts().to_csv(p, sep="\t", index=False), kind="data", needs=PANDAS),
    Case("pandas_semicolons.csv", lambda p: frame().to_csv(p, sep=";", index=False), kind="data", needs=PANDAS),
    Case("pandas.csv.gz", lambda p: texts().to_csv(p, index=False), kind="data", needs=PANDAS),
    Case("excel_bom.csv", lambda p: texts().to_csv(p, index=False, encoding="utf-8-sig"), kind="data", needs=PANDAS),
    Case("pandas.parquet", lambda p: frame().to_parquet(p), kind="data", needs=(*PANDAS, "pyarrow")),
    Case("pandas.feather", lambda p: texts().to_feather(p), kind="data", needs=(*PANDAS, "pyarrow")),
    Case("lines.jsonl", lambda p: texts().to_json(p, orient="records", lines=True), kind="data", needs=PANDAS),
    Case("records.json", lambda p: texts().to_json(p, orient="records"), opens=False, kind="data", needs=PANDAS),
    Case("pandas.pkl", lambda p: frame().to_pickle(p), opens=False, kind="data", needs=PANDAS),
]


@case("quoted.csv", kind="data")
def _(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        made = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        made.writerows([["label", "text"], *((str(i % 2), f'he said, "{t}"\nand left') for i, t in enumerate(TEXTS))])


@case("sst2_folder", kind="data")
def _(path: Path) -> None:
    """train.tsv and dev.tsv as GLUE has them."""
    path.mkdir()
    for part, n in (("train", ROWS), ("dev", 8)):
        lines = [f"{t}\t{i % 2}" for i, t in enumerate(TEXTS[:n])]
        (path / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")


@case("hf_saved_dataset", kind="data", needs=("pyarrow",))
def _(path: Path) -> None:
    import pyarrow

    info = {"features": {"text": {"_type": "Value"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}
    table = pyarrow.table({"text": TEXTS, "label": [i % 2 for i in range(ROWS)]})
    table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": info}).encode()})
    for part in ("train", "test"):
        (path / part).mkdir(parents=True)
        file = path / part / "data-00000-of-00001.arrow"
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        (path / part / "state.json").write_text(json.dumps({"_data_files": [{"filename": file.name}], "_split": part}))
        (path / part / "dataset_info.json").write_text(json.dumps(info))
    (path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


@case("download_that_never_began.safetensors", opens=False)
def _(path: Path) -> None:
    path.write_bytes(b"")


@case("arrays.npz", kind="data")
def _(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros((ROWS, 16, 16, 3), np.uint8), y=np.arange(ROWS) % 2)


@case("fortran_order.npz", kind="data")
def _(path: Path) -> None:
    np.savez(path, x=np.asfortranarray(np.eye(ROWS, 5)), y=(np.arange(ROWS) % 2).astype(np.int32))


@case("array.npy", opens=False, kind="data")
def _(path: Path) -> None:
    np.save(path, np.zeros((4, 3)))


@case("tensors.pt", opens=False, kind="data")
def _(path: Path) -> None:
    torch.save((torch.zeros(4, 3), torch.zeros(4)), path)


@case("book.xlsx", opens=False, kind="data")
def _(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")


def build(folder: Path, *, slow: bool = True) -> dict[str, Case]:
    """Write the corpus; the cases by the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for one in CASES:
        if slow or not one.slow:
            one.make(folder / one.name)
            found[str(folder / one.name)] = one
    return found


if __name__ == "__main__":
    print(f"{len(build(Path(sys.argv[1])))} files and folders in {sys.argv[1]}")

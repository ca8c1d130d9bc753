"""The commands of the scanner in the command tree: scan, refs, guard, repair."""

from __future__ import annotations

import argparse

Commands = argparse._SubParsersAction  # the type that add_subparsers gives has no public name

FORMATS = "text, json, sarif, junit, html, markdown"
SOURCE = (
    "a folder of images with one subfolder per class (or a metadata.csv), a .npz or .safetensors file with x and y, "
    "a .csv of numbers, a .csv, .tsv or .jsonl of texts, a .parquet of any of these, a Hugging Face data folder, or a "
    "task such as vision/fashion-mnist"
)
ARCH = (
    "how to build the network: package.module:factory or ./file.py:factory in your own code, the name of a built-in "
    "network, or its JSON spec"
)

_SUSPECT = ".safetensors, a state dict, TorchScript, ONNX, or a model folder"


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add them all."""
    _scan(commands)
    _refs(commands)
    _guard(commands)
    _repair(commands)


def _scan(commands: Commands[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "scan", "look for signs of a backdoor in a model or a data set")
    model = _verb(verbs, "model", "scan:model", "look for signs of a backdoor in a model file or folder")
    model.add_argument("suspect", metavar="SUSPECT", help=_SUSPECT)
    _scan_model(model)

    each = _verb(verbs, "each", "scan_each:each", "scan several models one after another, for hooks and CI")
    each.add_argument("suspects", metavar="SUSPECT", nargs="+", help=_SUSPECT)
    each.add_argument(
        "--accept-inconclusive", action="store_true", help="exit with 0 if nothing was found, even if the scan "
        "was inconclusive (for example without references or --arch, where only the file itself is checked)",
    )  # fmt: skip
    _scan_model(each)

    data = _verb(verbs, "data", "scan:data", "rank the rows of a training set by suspicion; no trusted data needed")
    data.add_argument("source", metavar="SOURCE", help=SOURCE)
    data.add_argument("--model", metavar="SUSPECT", help="a model trained on this data; without it, one is trained")
    data.add_argument("--clean", metavar="SOURCE", help="additional trusted rows, if you have any")
    data.add_argument(
        "--false-alarms",
        type=_share,
        default=0.01,
        metavar="A",
        help="fraction of ordinary rows that may be flagged (default: 0.01)",
    )
    _opening(data)
    _depth(data, "fast: one pass; full: try deleting more words of texts and, if nothing is found, plant triggers in a "
           "copy to measure what would have been detected (default: full)")  # fmt: skip
    _reports(data)


def _scan_model(model: argparse.ArgumentParser) -> None:
    """What a scan of a model may be told."""
    model.add_argument("--data", metavar="SOURCE", help=f"clean labelled data: {SOURCE}")
    model.add_argument(
        "--refs", metavar="DIR", action="append", default=[], help="reference models made by `bands refs train`"
    )
    model.add_argument(
        "--train-references", metavar="DIR", nargs="?", const="", help="train reference models on --data first, kept "
        "in DIR (default: NAME-refs in the current folder); prints a time estimate; run again to resume",
    )  # fmt: skip
    model.add_argument(
        "-n", "--count", type=int, default=40, metavar="N", help="number of reference models (default: 40)"
    )
    _training(model)
    _opening(model)
    _depth(model)
    model.add_argument(
        "--alpha",
        type=_share,
        default=0.05,
        metavar="A",
        help="significance level: accepted false alarm rate (default: 0.05)",
    )
    _reports(model)


def _refs(commands: Commands[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "refs", "train and inspect the clean reference models that a scan compares with")
    train = _verb(
        verbs, "train", "refs:train", "train clean reference models with the suspect's recipe; run again to resume"
    )
    train.add_argument("--like", metavar="SUSPECT", help="the model whose architecture and training recipe they share")
    train.add_argument("--data", metavar="SOURCE", help=f"clean labelled data: {SOURCE}")
    train.add_argument(
        "-n",
        "--count",
        type=int,
        default=40,
        metavar="N",
        help="number of models (default: 40; alpha 0.05 needs at least 19, alpha 0.01 at least 99)",
    )
    train.add_argument("-o", "--out", required=True, metavar="DIR", help="output folder")
    _opening(train)
    _depth(train)
    _training(train)
    _json(train)
    add = _verb(verbs, "add", "refs:add", "add your own clean checkpoints as reference models")
    add.add_argument("refs", metavar="DIR", help="folder of references, or a new one (then --data is needed)")
    add.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", help="clean models of the suspect's architecture")
    add.add_argument("--data", metavar="SOURCE", help=f"clean labelled data, for a new folder: {SOURCE}")
    _opening(add)
    _depth(add)
    _json(add)
    show = _verb(
        verbs, "show", "refs:show", "show how the reference models were trained and the smallest p-value they allow"
    )
    show.add_argument("refs", metavar="DIR")
    _json(show)


def _training(parser: argparse.ArgumentParser) -> None:
    """How references are trained: what is not said is varied (a pool over recipes)."""
    group = parser.add_argument_group(
        "training references",
        "settings that are not given vary between references, unless the suspect's card names its recipe",
    )
    group.add_argument(
        "--train", action="append", default=[], metavar="CODE:FUNCTION",
        help="your own training function, my_module:fit or ./my_file.py:fit; fit(network, x, y, seed) trains the "
        "network in place; images are in [0, 1]",
    )  # fmt: skip
    for flag, kind, about in (
        ("epochs", int, "number of epochs"),
        ("lr", float, "peak learning rate"),
        ("batch", int, "batch size"),
        ("label-smoothing", float, "label smoothing of the cross-entropy"),
        ("augment", str, "augmentation: none, shift or crop-flip"),
        ("optimizer", str, "optimizer: sgd or adamw"),
    ):
        group.add_argument(f"--{flag}", type=kind, metavar=flag.split("-")[0].upper(), help=about)
    group.add_argument("--rows", type=int, metavar="N", help="training rows per reference, drawn separately for each")
    group.add_argument(
        "--recipe", action="append", default=[], metavar="JSON",
        help="settings of one recipe, such as '{\"epochs\": 10, \"augment\": \"shift\"}'; "
        "given several times, they are used in turn",
    )  # fmt: skip
    group.add_argument("--one-recipe", action="store_true", help="the training recipe is known: vary nothing")
    group.add_argument(
        "--add",
        action="store_true",
        help="add N references of this recipe to a folder with references of other recipes",
    )


def _guard(commands: Commands[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "guard", "detect triggered inputs: fit a detector for a model, then check inputs")
    fit = _verb(verbs, "fit", "guard:fit", "fit an input detector on clean data and save it with its model")
    fit.add_argument("model", metavar="MODEL", help=".safetensors, a state dict, ONNX, or a model folder")
    fit.add_argument("--data", required=True, metavar="SOURCE", help=f"clean labelled data: {SOURCE}")
    fit.add_argument("-o", "--out", required=True, metavar="DIR", help="output folder of the guard")
    fit.add_argument(
        "--detector",
        default="badexpert",
        metavar="NAME",
        help="detector: strip, badexpert or scale-up (default: badexpert)",
    )
    fit.add_argument(
        "--alpha",
        type=_share,
        default=0.05,
        metavar="A",
        help="fraction of ordinary inputs that may be flagged (default: 0.05)",
    )
    fit.add_argument(
        "--batch",
        type=_count,
        default=100,
        metavar="N",
        help="batch size assumed when reporting what a check can detect (default: 100)",
    )
    _opening(fit)
    _seed(fit)
    _json(fit)
    check = _verb(
        verbs, "check", "guard:check", "compute a p-value for every input; exit code 1 if the batch is suspicious"
    )
    check.add_argument("guard", metavar="GUARD", help="a guard made by `bands guard fit`")
    check.add_argument(
        "inputs", metavar="INPUTS", help="an image, a folder of images, .npy, a .txt with one text per line, or "
        f"{SOURCE}; labels are not needed",
    )  # fmt: skip
    check.add_argument(
        "--model", metavar="MODEL", help="the guarded model, if the guard cannot rebuild it (`guard fit` tells)"
    )
    _opening(check)
    _reports(check)


def _repair(commands: Commands[argparse.ArgumentParser]) -> None:
    about = "try repairs from cheapest to most expensive and keep the first that passes a new scan"
    repair = _verb(commands, "repair", "repair:repair", about)
    repair.epilog = (
        "exit codes: 0 repaired; 1 no repair succeeded; 2 something went wrong; 3 no trigger to repair against; "
        "4 wrong usage; 5 a repaired model was written but not verified by a calibrated scan"
    )
    repair.add_argument("suspect", metavar="SUSPECT", help=".safetensors, a state dict, or a model folder")
    repair.add_argument("--data", metavar="SOURCE", help=f"clean labelled data: {SOURCE}")
    repair.add_argument("-o", "--out", required=True, metavar="DIR", help="output folder of the repaired model")
    repair.add_argument(
        "--refs", metavar="DIR", action="append", default=[], help="reference models made by `bands refs train`"
    )
    repair.add_argument(
        "--max-drop",
        type=_share,
        default=0.02,
        metavar="A",
        help="largest acceptable drop in clean accuracy (default: 0.02)",
    )
    repair.add_argument(
        "--alpha",
        type=_share,
        default=0.05,
        metavar="A",
        help="significance level: accepted false alarm rate (default: 0.05)",
    )
    _opening(repair)
    _depth(repair)
    _reports(repair, out=False)


def _group(commands: Commands[argparse.ArgumentParser], name: str, about: str) -> Commands[argparse.ArgumentParser]:
    made = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
    return made.add_subparsers(metavar="COMMAND", required=True)


def _verb(verbs: Commands[argparse.ArgumentParser], name: str, calls: str, about: str) -> argparse.ArgumentParser:
    made = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
    made.set_defaults(calls=calls, parser=made)
    return made


def _opening(parser: argparse.ArgumentParser) -> None:
    """How a model file is opened, and what it may cost."""
    group = parser.add_argument_group("opening the model")
    group.add_argument("--arch", metavar="ARCH", help=ARCH)
    group.add_argument(
        "--settings", metavar="FILE", help="a suspect.toml of an earlier scan, for settings that no flag gives; "
        "the one in the current folder is used automatically, unless the suspect is in that folder too",
    )  # fmt: skip
    group.add_argument("--classes", type=int, metavar="K", help="number of classes, if it cannot be inferred")
    group.add_argument(
        "--class-names", metavar="A,B,...", help="the model's class names, in its order; data are matched by name"
    )
    group.add_argument(
        "--labels", metavar="NAME=CLASS,...", help="maps the classes of the data to classes of the model (name or "
        "number), if names do not match; or a .json file of such pairs; or `sorted`: the same classes in sorted order",
    )  # fmt: skip
    group.add_argument(
        "--output", metavar="NAME", help="name of the output with the class scores, if there are several"
    )
    group.add_argument("--mean", type=_numbers, metavar="M,...", help="channel means subtracted before the model")
    group.add_argument(
        "--std", type=_numbers, metavar="S,...", help="channel standard deviations divided by before the model"
    )
    group.add_argument("--size", type=int, metavar="PIXELS", help="side to which images of a folder are scaled")
    group.add_argument("--channels", type=int, choices=(1, 3), help="colour channels of the images of a folder")
    group.add_argument("--text-column", metavar="NAME", help="column with the text in a .csv, .tsv or .jsonl file")
    group.add_argument("--label-column", metavar="NAME", help="column with the label in such a file or a table")
    group.add_argument(
        "--allow-pickle", action="store_true", help="load pickle files, after inspecting their instructions"
    )
    group.add_argument("--time-limit", type=float, metavar="S", help="time limit for each step of opening, in seconds")
    group.add_argument(
        "--memory-limit", type=int, metavar="MB", help="limit on file size and on memory while opening, in MB"
    )


def _depth(
    parser: argparse.ArgumentParser, about: str = "fast takes seconds, full takes minutes (default: full)"
) -> None:
    parser.add_argument("--profile", choices=("fast", "full"), default="full", help=about)
    _seed(parser)


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")


def _reports(parser: argparse.ArgumentParser, *, out: bool = True) -> None:
    group = parser.add_argument_group("report", "written before the exit code is decided")
    group.add_argument("--format", action="append", metavar="FORMAT[=FILE]", help=f"one of {FORMATS}; repeatable")
    if out:
        group.add_argument("-o", "--out", metavar="DIR|FILE", help="destination of formats without a FILE of their own")
    group.add_argument(
        "--fail-on",
        choices=("low", "medium", "high"),
        default="medium",
        help="lowest severity of a finding that sets exit code 1 (default: medium)",
    )
    group.add_argument("--baseline", metavar="FILE", help="JSON list of fingerprints of accepted findings")
    group.add_argument("--write-baseline", metavar="FILE", help="write the fingerprints of all findings to FILE")
    _json(group)


def _json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print only JSON on stdout")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))

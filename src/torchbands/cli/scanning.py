"""The commands of the scanner in the command tree: scan, refs, guard, repair."""

from __future__ import annotations

import argparse

Commands = argparse._SubParsersAction  # the type that add_subparsers gives has no public name

FORMATS = "text, json, sarif, junit, html, markdown"
SOURCE = (
    "folder of class folders of images (or with a metadata.csv), .npz or .safetensors with x and y, .csv of numbers, "
    ".csv, .tsv or .jsonl of texts, .parquet of any of these, a Hugging Face data folder, or a task such as "
    "vision/fashion-mnist"
)
ARCH = "package.module:factory or ./file.py:factory of your own code, a known network's name, or a network's JSON spec"

_SUSPECT = ".safetensors, a state dict, TorchScript, ONNX, or a model folder"


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add them all."""
    _scan(commands)
    _refs(commands)
    _guard(commands)
    _repair(commands)


def _scan(commands: Commands[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "scan", "may I trust this model, this data set?")
    model = _verb(verbs, "model", "scan:model", "look for signs of a backdoor in a model file or folder")
    model.add_argument("suspect", metavar="SUSPECT", help=_SUSPECT)
    _scan_model(model)

    each = _verb(verbs, "each", "scan_each:each", "scan several models in turn, as hooks and build servers do")
    each.add_argument("suspects", metavar="SUSPECT", nargs="+", help=_SUSPECT)
    each.add_argument(
        "--accept-inconclusive", action="store_true", help="end with 0 where nothing was found and nothing could "
        "be concluded, as without references or --arch: the file itself was looked at",
    )  # fmt: skip
    _scan_model(each)

    data = _verb(
        verbs, "data", "scan:data", "rank suspicious training samples; nothing in the data needs to be trusted"
    )
    data.add_argument("source", metavar="SOURCE", help=SOURCE)
    data.add_argument(
        "--model", metavar="SUSPECT", help="the model that was trained on it; one is trained where none is given"
    )
    data.add_argument("--clean", metavar="SOURCE", help="trusted rows beside them, where there are some")
    data.add_argument(
        "--false-alarms",
        type=_share,
        default=0.01,
        metavar="A",
        help="share of ordinary rows that may be flagged (default: 0.01)",
    )
    _opening(data)
    _depth(data, "fast: look once; full: delete more words of texts and, where nothing is found, plant triggers into a "
           "copy and look again, to say what could have been seen (default: full)")  # fmt: skip
    _reports(data)


def _scan_model(model: argparse.ArgumentParser) -> None:
    """What a scan of a model may be told."""
    model.add_argument("--data", metavar="SOURCE", help=f"clean labelled rows: {SOURCE}")
    model.add_argument(
        "--refs", metavar="DIR", action="append", default=[], help="reference models made by `bands refs train`"
    )
    model.add_argument(
        "--train-references", metavar="DIR", nargs="?", const="", help="train reference models first, on --data, into "
        "DIR (default: NAME-refs in the working folder); the time is said first, and the same command again goes on",
    )  # fmt: skip
    model.add_argument("-n", "--count", type=int, default=40, metavar="N", help="how many references (default: 40)")
    _training(model)
    _opening(model)
    _depth(model)
    model.add_argument("--alpha", type=_share, default=0.05, metavar="A", help="false alarms accepted (default: 0.05)")
    _reports(model)


def _refs(commands: Commands[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "refs", "train and show the reference models that a scan compares with")
    train = _verb(verbs, "train", "refs:train", "train clean reference models of a suspect's recipe; again resumes")
    train.add_argument("--like", metavar="SUSPECT", help="the model whose architecture and recipe they share")
    train.add_argument("--data", metavar="SOURCE", help=f"clean labelled rows: {SOURCE}")
    train.add_argument(
        "-n",
        "--count",
        type=int,
        default=40,
        metavar="N",
        help="how many (default: 40; alpha 0.05 needs 19, 0.01 needs 99)",
    )
    train.add_argument("-o", "--out", required=True, metavar="DIR", help="where they are kept")
    _opening(train)
    _depth(train)
    _training(train)
    _json(train)
    add = _verb(verbs, "add", "refs:add", "keep clean checkpoints of your own as reference models")
    add.add_argument("refs", metavar="DIR", help="references that are there, or a new folder (then with --data)")
    add.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", help="clean models of the suspect's architecture")
    add.add_argument("--data", metavar="SOURCE", help=f"clean labelled rows, for a new folder: {SOURCE}")
    _opening(add)
    _depth(add)
    _json(add)
    show = _verb(verbs, "show", "refs:show", "what reference models were trained from, and what they can tell")
    show.add_argument("refs", metavar="DIR")
    _json(show)


def _training(parser: argparse.ArgumentParser) -> None:
    """How references are trained: what is not said is varied (a pool over recipes)."""
    group = parser.add_argument_group(
        "training references",
        "settings that are not given vary from reference to reference, unless the suspect's card names its recipe",
    )
    group.add_argument(
        "--train", action="append", default=[], metavar="CODE:FUNCTION",
        help="your own training function, as my_module:fit or ./my_file.py:fit; fit(network, x, y, seed) trains the "
        "network in place on images in [0, 1] (or what else the rows are)",
    )  # fmt: skip
    for flag, kind, about in (
        ("epochs", int, "passes over the data"),
        ("lr", float, "largest learning rate"),
        ("batch", int, "rows per step"),
        ("label-smoothing", float, "of the cross-entropy"),
        ("augment", str, "none, shift or crop-flip"),
        ("optimizer", str, "sgd or adamw"),
    ):
        group.add_argument(f"--{flag}", type=kind, metavar=flag.split("-")[0].upper(), help=about)
    group.add_argument("--rows", type=int, metavar="N", help="training rows of each reference, drawn anew for each")
    group.add_argument(
        "--recipe", action="append", default=[], metavar="JSON",
        help="settings of one recipe, such as '{\"epochs\": 10, \"augment\": \"shift\"}'; "
        "several are taken in turn (a pool of your own)",
    )  # fmt: skip
    group.add_argument("--one-recipe", action="store_true", help="the recipe is known: vary nothing")
    group.add_argument(
        "--add", action="store_true", help="add N references of this recipe to a folder that holds those of others"
    )


def _guard(commands: Commands[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "guard", "may I trust this input? fit a detector beside a model, then check inputs")
    fit = _verb(verbs, "fit", "guard:fit", "fit an input detector on clean rows and keep it with its model")
    fit.add_argument("model", metavar="MODEL", help=".safetensors, a state dict, ONNX, or a model folder")
    fit.add_argument("--data", required=True, metavar="SOURCE", help=f"clean labelled rows: {SOURCE}")
    fit.add_argument("-o", "--out", required=True, metavar="DIR", help="where the guard is kept")
    fit.add_argument(
        "--detector", default="badexpert", metavar="NAME", help="strip, badexpert or scale-up (default: badexpert)"
    )
    fit.add_argument(
        "--alpha", type=_share, default=0.05, metavar="A", help="share of ordinary inputs flagged (default: 0.05)"
    )
    fit.add_argument(
        "--batch",
        type=_count,
        default=100,
        metavar="N",
        help="inputs per check, to tell what it can see (default: 100)",
    )
    _opening(fit)
    _seed(fit)
    _json(fit)
    check = _verb(verbs, "check", "guard:check", "give every input a p-value; 1 where the batch is not ordinary")
    check.add_argument("guard", metavar="GUARD", help="made by `bands guard fit`")
    check.add_argument(
        "inputs", metavar="INPUTS", help="an image, a folder of images, .npy, a .txt of one text a line, or a "
        f"{SOURCE}; labels are not needed",
    )  # fmt: skip
    check.add_argument(
        "--model", metavar="MODEL", help="the guarded model, where the guard cannot build it (fit says so)"
    )
    _opening(check)
    _reports(check)


def _repair(commands: Commands[argparse.ArgumentParser]) -> None:
    about = "try repairs from cheap to dear and keep the first that passes the scan again"
    repair = _verb(commands, "repair", "repair:repair", about)
    repair.epilog = (
        "exit codes: 0 repaired; 1 no repair held; 2 something went wrong; 3 nothing to repair against; 4 wrong usage; "
        "5 a repaired model was written, but unproven: no calibrated scan judged it"
    )
    repair.add_argument("suspect", metavar="SUSPECT", help=".safetensors, a state dict, or a model folder")
    repair.add_argument("--data", metavar="SOURCE", help=f"clean labelled rows: {SOURCE}")
    repair.add_argument("-o", "--out", required=True, metavar="DIR", help="where the repaired model is kept")
    repair.add_argument(
        "--refs", metavar="DIR", action="append", default=[], help="reference models made by `bands refs train`"
    )
    repair.add_argument(
        "--max-drop", type=_share, default=0.02, metavar="A", help="most clean accuracy lost (default: 0.02)"
    )
    repair.add_argument("--alpha", type=_share, default=0.05, metavar="A", help="false alarms accepted (default: 0.05)")
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
        "--settings", metavar="FILE", help="a suspect.toml that a scan wrote, for what flags leave out; the one in the "
        "working folder is read by itself, unless the suspect lies there too",
    )  # fmt: skip
    group.add_argument("--classes", type=int, metavar="K", help="number of classes, where nothing else tells")
    group.add_argument(
        "--class-names", metavar="A,B,...", help="names of the model's classes, in its order; rows are matched by name"
    )
    group.add_argument(
        "--labels", metavar="NAME=CLASS,...", help="which class of the model (name or number) each class of the rows "
        "is, where the names do not tell; a .json file of such pairs; or sorted: they are the same, in sorted order",
    )  # fmt: skip
    group.add_argument("--output", metavar="NAME", help="of several outputs, the one that holds the classes")
    group.add_argument("--mean", type=_numbers, metavar="M,...", help="subtracted from each channel before the model")
    group.add_argument("--std", type=_numbers, metavar="S,...", help="divides each channel before the model")
    group.add_argument("--size", type=int, metavar="PIXELS", help="side that the images of a folder are scaled to")
    group.add_argument("--channels", type=int, choices=(1, 3), help="of the images of a folder")
    group.add_argument("--text-column", metavar="NAME", help="column of texts in a .csv, .tsv or .jsonl file")
    group.add_argument("--label-column", metavar="NAME", help="column of labels in such a file or a table")
    group.add_argument(
        "--allow-pickle", action="store_true", help="read pickles, after their instructions were inspected"
    )
    group.add_argument("--time-limit", type=float, metavar="S", help="longest time of each step of opening, in seconds")
    group.add_argument("--memory-limit", type=int, metavar="MB", help="largest file, and memory that opening may take")


def _depth(parser: argparse.ArgumentParser, about: str = "seconds or minutes (default: full)") -> None:
    parser.add_argument("--profile", choices=("fast", "full"), default="full", help=about)
    _seed(parser)


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="tells this repetition from another")


def _reports(parser: argparse.ArgumentParser, *, out: bool = True) -> None:
    group = parser.add_argument_group("report", "written first; the exit code is set after it")
    group.add_argument(
        "--format", action="append", metavar="FORMAT[=FILE]", help=f"of {FORMATS}; may be given several times"
    )
    if out:
        group.add_argument("-o", "--out", metavar="DIR|FILE", help="where formats without a FILE of their own go")
    group.add_argument(
        "--fail-on", choices=("low", "medium", "high"), default="medium", help="level from which a finding ends with 1"
    )
    group.add_argument("--baseline", metavar="FILE", help="JSON list of fingerprints of findings that are accepted")
    group.add_argument("--write-baseline", metavar="FILE", help="write the fingerprints of what was found")
    _json(group)


def _json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"a share between 0 and 1, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1, got {text}")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))

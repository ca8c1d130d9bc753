"""What every number of a report means, in words for a reader who has never met a backdoor."""

from __future__ import annotations

from torchbands.core.metric import Interval, Metric

_ALL = (
    Metric("ca", "Clean accuracy (CA)", "higher", about="How often the model is right on ordinary inputs."),
    Metric(
        "asr",
        "Attack success (ASR)",
        "lower",
        about="How often an input with the trigger gets the answer the attacker wants. Inputs that deserve that answer "
        "anyway are never counted.",
    ),
    Metric(
        "control_asr",
        "Control ASR",
        "",
        about="The same trigger shown to a model that was never poisoned. What happens there is no backdoor.",
    ),
    Metric("lift", "Lift", "", (-1.0, 1.0), about="ASR minus control ASR: what the backdoor itself adds."),
    Metric("ra", "Robust accuracy (RA)", "higher", about="How often a triggered input still gets its true answer."),
    Metric("clean_ca", "CA of the control", "higher", about="Clean accuracy of the never-poisoned model."),
    Metric(
        "auroc",
        "AUROC",
        "higher",
        unit="",
        about="The chance that a bad item scores as more suspicious than a good one. 1 tells them apart every time, "
        "0.5 is a coin toss. It needs no threshold.",
    ),
    Metric(
        "ties",
        "Ties",
        "",
        about="Share of the pairs of a bad and a good item that have one score. They count half in an AUROC: of many "
        "ties it says little.",
    ),
    Metric(
        "auroc_obeyed",
        "AUROC, obeyed",
        "higher",
        unit="",
        about="AUROC counting only triggered inputs that the model obeyed and ordinary inputs that it got right.",
    ),
    Metric(
        "tpr_at_1", "Found at 1 % alarms", "higher", about="Share of bad items found when 1 % of good ones are flagged."
    ),
    Metric(
        "tpr_at_5", "Found at 5 % alarms", "higher", about="Share of bad items found when 5 % of good ones are flagged."
    ),
    Metric("rule_recall", "Recall", "higher", about="Share of bad items that the paper's own rule flags."),
    Metric("rule_fpr", "False alarms", "lower", about="Share of good items that the paper's own rule flags."),
    Metric("rule_precision", "Precision", "higher", about="Share of the flagged items that are really bad."),
    Metric("flagged", "Models flagged", "", about="Share of the models that the paper's own rule flags."),
    Metric("target_hit", "Right target", "higher", about="How often the suspected class is the attacker's."),
    Metric("score", "Score", "", (None, None), "", about="A model's raw suspicion; comparable within one recipe only."),
    Metric("ca_drop", "CA lost", "lower", (-1.0, 1.0), about="Clean accuracy before the defense minus after it."),
    Metric(
        "der",
        "DER",
        "higher",
        unit="",
        about="Defense effectiveness rating: attack success removed, less accuracy lost. 1 is a perfect repair without "
        "cost, 0.5 is doing nothing, below that it harms.",
    ),
    Metric(
        "client_auroc",
        "Client AUROC",
        "higher",
        unit="",
        about="The chance that a malicious client looks more suspicious to the server than an honest one.",
    ),
    Metric("malicious_kept", "Malicious updates kept", "lower", about="Share of malicious updates that had a part."),
    Metric("honest_kept", "Honest updates kept", "higher", about="Share of honest clients' updates that had a part."),
    Metric("ca_before", "CA before", "higher", about="Clean accuracy before the defense."),
    Metric("asr_before", "ASR before", "lower", about="Attack success before the defense."),
    Metric(
        "psnr_db", "PSNR", "higher", (None, None), "dB", about="Size of the change in pixels; higher is harder to see."
    ),
    Metric("ssim", "SSIM", "higher", (-1.0, 1.0), "", about="Likeness of structure; 1 is the same image."),
    Metric("l0_pixels", "Pixels changed", "lower", (0.0, None), "px", about="How many pixels the trigger changes."),
    Metric("l2", "L2", "lower", (0.0, None), "", about="Euclidean size of the change."),
    Metric("linf", "L∞", "lower", (0.0, 1.0), "", about="Largest change of any one value."),
    Metric("high_frequency", "High-frequency energy", "lower", (None, None), "", about="Fine detail the trigger adds."),
    Metric("probe_auroc", "Probe AUROC", "lower", unit="", about="How well a linear probe tells features apart."),
    Metric("silhouette", "Silhouette", "lower", (-1.0, 1.0), "", about="How far apart the features cluster."),
    Metric(
        "stealth",
        "Stealth",
        "higher",
        unit="",
        about="1 minus the AUROC of a fixed cheap detector: higher is harder to notice.",
    ),
    Metric(
        "perplexity_ratio",
        "Perplexity ratio",
        "lower",
        (0.0, None),
        "",
        about="Perplexity with the trigger over perplexity without, under a trigram model of the training texts.",
    ),
    Metric(
        "trigger_frequency",
        "Trigger frequency",
        "higher",
        (0.0, None),
        "per million",
        about="How often the rarest added word occurs in ordinary text.",
    ),
    Metric(
        "false_trigger_rate",
        "False triggers",
        "lower",
        about="How often a part of the trigger already opens the backdoor.",
    ),
    Metric(
        "added_grammar_errors",
        "Grammar errors added",
        "lower",
        (None, None),
        "per text",
        about="Errors that the grammar checker Harper finds with the trigger, less those it finds without.",
    ),
    Metric(
        "sentence_similarity",
        "Sentence similarity",
        "higher",
        (-1.0, 1.0),
        "",
        about="Cosine of the sentence's MiniLM vectors without and with the trigger; 1 is the same meaning.",
    ),
    Metric("edit_words", "Words changed", "lower", (0.0, None), "words", about="Edit distance in words."),
    Metric("added_words", "Words added", "lower", (None, None), "words", about="Words more than without the trigger."),
    Metric("seconds", "Time", "lower", (0.0, None), "s", about="Wall-clock seconds."),
    Metric("cpu_seconds", "CPU time", "lower", (0.0, None), "s", about="Processor seconds over all threads."),
    Metric("peak_mb", "Peak memory", "lower", (0.0, None), "MB", about="Peak memory of the process."),
    Metric("forward_passes", "Forward passes", "lower", (0.0, None), "n", about="Inputs sent through the model."),
    Metric("clean_samples", "Clean samples", "lower", (0.0, None), "n", about="Trusted labelled inputs it was given."),
    Metric("poisoned", "Poisoned rows", "", (0.0, None), "n", about="Training rows the attacker changed."),
    Metric("rows", "Training rows", "", (0.0, None), "n", about="Training rows in all."),
)
TERMS: dict[str, Metric] = {m.name: m for m in _ALL}


def term(name: str) -> Metric:
    """The metric of a key; an unknown key is its own title."""
    return TERMS.get(name) or Metric(name, name.replace("_", " "), "", (None, None), "")


def number(name: str, value: float, *, unit: bool = True) -> str:
    """A value as a reader sees it: per cent, three significant digits, or a count, with a true minus sign."""
    kind = term(name).unit
    if kind == "%":
        text = f"{100 * value:.1f}" + (" %" if unit else "")
    elif kind == "n":
        text = f"{value:,.0f}"
    elif kind in ("s", "MB", "dB", "px"):
        text = f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}" + (f" {kind}" if unit else "")
    else:
        text = f"{value:.3f}"
    negative_zero = text.startswith("-") and not any(c in text for c in "123456789")
    return (text[1:] if negative_zero else text).replace("-", "−")


def spread(name: str, interval: Interval) -> str:
    """Half the width of the interval, as "±0.4", or its ends where it is lopsided; empty for a single value."""
    if interval.low is None or interval.high is None:
        return ""
    below, above = interval.mean - interval.low, interval.high - interval.mean
    if abs(below - above) > 0.02 * (below + above):
        low, high = (number(name, end, unit=False) for end in (interval.low, interval.high))
        return f"[{low}, {high}]"
    return f"±{number(name, (interval.high - interval.low) / 2, unit=False)}"


def shown(name: str, interval: Interval, *, unit: bool = True) -> str:
    """Mean and spread on one line."""
    return " ".join(filter(None, [number(name, interval.mean, unit=unit), spread(name, interval)]))


def about(name: str, interval: Interval) -> str:
    """The whole interval in words, for a tooltip."""
    count = f"{interval.n} value{'s' if interval.n != 1 else ''}"
    if interval.low is None or interval.high is None:
        return f"{term(name).title}: {number(name, interval.mean)} ({count}, no interval)"
    low, high = number(name, interval.low), number(name, interval.high)
    return f"{term(name).title}: {number(name, interval.mean)}, 95 % interval {low} to {high} ({count})"

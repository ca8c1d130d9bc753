"""What every metric in a report means, for readers who are new to backdoors."""

from __future__ import annotations

from torchbands.core.metric import Interval, Metric

_ALL = (
    Metric("ca", "Clean accuracy (CA)", "higher", about="Accuracy on ordinary inputs."),
    Metric(
        "asr",
        "Attack success (ASR)",
        "lower",
        about="Fraction of triggered inputs that get the answer the attacker wants. Inputs whose true answer is "
        "already "
        "that one are not counted.",
    ),
    Metric(
        "control_asr",
        "Control ASR",
        "",
        about="Attack success of the same trigger on a model that was never poisoned: the baseline without a backdoor.",
    ),
    Metric("lift", "Lift", "", (-1.0, 1.0), about="ASR minus control ASR: the effect of the backdoor itself."),
    Metric(
        "ra", "Robust accuracy (RA)", "higher", about="Fraction of triggered inputs that still get their true answer."
    ),
    Metric(
        "clean_ca",
        "CA of the control",
        "higher",
        about="Clean accuracy of the control model, which was never poisoned.",
    ),
    Metric(
        "auroc",
        "AUROC",
        "higher",
        unit="",
        about="Probability that a poisoned item scores higher than a clean one. 1 is perfect separation, 0.5 is "
        "chance. "
        "Independent of any threshold.",
    ),
    Metric(
        "ties",
        "Ties",
        "",
        about="Fraction of (poisoned, clean) pairs with equal scores. Ties count half in the AUROC; with many ties it "
        "says little.",
    ),
    Metric(
        "auroc_obeyed",
        "AUROC, obeyed",
        "higher",
        unit="",
        about="AUROC over only those triggered inputs that fooled the model and those ordinary inputs that it "
        "classified correctly.",
    ),
    Metric("tpr_at_1", "Found at 1 % alarms", "higher", about="True positive rate at a false positive rate of 1 %."),
    Metric("tpr_at_5", "Found at 5 % alarms", "higher", about="True positive rate at a false positive rate of 5 %."),
    Metric(
        "rule_recall", "Recall", "higher", about="Fraction of poisoned items flagged by the paper's own decision rule."
    ),
    Metric(
        "rule_fpr", "False alarms", "lower", about="Fraction of clean items flagged by the paper's own decision rule."
    ),
    Metric("rule_precision", "Precision", "higher", about="Fraction of flagged items that are actually poisoned."),
    Metric("flagged", "Models flagged", "", about="Fraction of models flagged by the paper's own decision rule."),
    Metric("target_hit", "Right target", "higher", about="How often the suspected class is the attacker's target."),
    Metric(
        "score",
        "Score",
        "",
        (None, None),
        "",
        about="Raw suspicion score of a model; comparable only between models of one training recipe.",
    ),
    Metric("ca_drop", "CA lost", "lower", (-1.0, 1.0), about="Clean accuracy before the defense minus after it."),
    Metric(
        "der",
        "DER",
        "higher",
        unit="",
        about="Defense effectiveness rating: attack success removed minus accuracy lost. 1 is a perfect repair at no "
        "cost, 0.5 is doing nothing, less is harmful.",
    ),
    Metric(
        "client_auroc",
        "Client AUROC",
        "higher",
        unit="",
        about="Probability that the server rates a malicious client as more suspicious than an honest one.",
    ),
    Metric(
        "malicious_kept",
        "Malicious updates kept",
        "lower",
        about="Fraction of malicious updates that entered the aggregate.",
    ),
    Metric(
        "honest_kept",
        "Honest updates kept",
        "higher",
        about="Fraction of honest clients' updates that entered the aggregate.",
    ),
    Metric("ca_before", "CA before", "higher", about="Clean accuracy before the defense."),
    Metric("asr_before", "ASR before", "lower", about="Attack success before the defense."),
    Metric(
        "psnr_db",
        "PSNR",
        "higher",
        (None, None),
        "dB",
        about="Peak signal-to-noise ratio of the triggered image; higher is harder to see.",
    ),
    Metric("ssim", "SSIM", "higher", (-1.0, 1.0), "", about="Structural similarity; 1 is the identical image."),
    Metric("l0_pixels", "Pixels changed", "lower", (0.0, None), "px", about="Number of pixels the trigger changes."),
    Metric("l2", "L2", "lower", (0.0, None), "", about="Euclidean norm of the change."),
    Metric("linf", "L∞", "lower", (0.0, 1.0), "", about="Largest change of a single value."),
    Metric(
        "high_frequency",
        "High-frequency energy",
        "lower",
        (None, None),
        "",
        about="High-frequency energy that the trigger adds.",
    ),
    Metric(
        "probe_auroc",
        "Probe AUROC",
        "lower",
        unit="",
        about="How well a linear probe separates the features of triggered and clean inputs.",
    ),
    Metric(
        "silhouette",
        "Silhouette",
        "lower",
        (-1.0, 1.0),
        "",
        about="How clearly the features of triggered and clean inputs form separate clusters.",
    ),
    Metric(
        "stealth",
        "Stealth",
        "higher",
        unit="",
        about="From 0 to 1: how close to chance a fixed, cheap detector is. Higher is harder to notice.",
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
        about="How often part of the trigger alone already activates the backdoor.",
    ),
    Metric(
        "added_grammar_errors",
        "Grammar errors added",
        "lower",
        (None, None),
        "per text",
        about="Errors found by the grammar checker Harper with the trigger minus those found without it.",
    ),
    Metric(
        "sentence_similarity",
        "Sentence similarity",
        "higher",
        (-1.0, 1.0),
        "",
        about="Cosine similarity of the sentence's MiniLM embeddings without and with the trigger; 1 means the "
        "same meaning.",
    ),
    Metric("edit_words", "Words changed", "lower", (0.0, None), "words", about="Edit distance in words."),
    Metric("added_words", "Words added", "lower", (None, None), "words", about="Words that the trigger adds."),
    Metric("seconds", "Time", "lower", (0.0, None), "s", about="Wall-clock seconds."),
    Metric("cpu_seconds", "CPU time", "lower", (0.0, None), "s", about="CPU seconds over all threads."),
    Metric("peak_mb", "Peak memory", "lower", (0.0, None), "MB", about="Peak resident memory of the process."),
    Metric(
        "forward_passes", "Forward passes", "lower", (0.0, None), "n", about="Number of inputs run through the model."
    ),
    Metric(
        "clean_samples",
        "Clean samples",
        "lower",
        (0.0, None),
        "n",
        about="Number of trusted labelled inputs the defense was given.",
    ),
    Metric("poisoned", "Poisoned rows", "", (0.0, None), "n", about="Number of training rows the attacker changed."),
    Metric("rows", "Training rows", "", (0.0, None), "n", about="Total number of training rows."),
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

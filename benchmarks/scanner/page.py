"""docs/scanner-results.md from the receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.fresh import refuse_stale
from torchbands.report.cells import unreproduced

from .page_parts import final_layer, same_trigger, ways
from .page_parts import interval as _interval
from .page_parts import number as _n
from .page_parts import share as _share
from .page_parts import table as _table

_HEAD = """# How well the scanner tells models apart

Written by `python -m benchmarks.scanner tables` from [`receipts/scanner.json`](../receipts/scanner.json); the models
come from `python -m benchmarks.scanner make`. Which models there are is in
[`benchmarks/scanner/plan.py`](../benchmarks/scanner/plan.py). No poisoned model fitted anything: every attack is
unseen. The settings of the views were fixed on other Fashion-MNIST models (clean, badnets, blended, wanet,
source-specific, all-to-all, low rate; 30 in all) before any model below was judged; the second data set and the
families that are not in that list were never tried before. The views of words were chosen on 17 other SST-2 models
(clean, badnets, add-sentence, syntactic; all training rows, other seeds) and one MiniLM; the other families of
`reviews` were never tried before.

AUROC is of the combined statistic against fresh never-poisoned models of the references' recipe, with its 95 %
interval (Newcombe). Power and false alarms are shares with p at most alpha, with Clopper-Pearson intervals; with n
references no p is below 1/(n + 1), so alpha 0.01 needs 99. A victim counts when its attack took: success at least
70 % (all-to-all: of its clean accuracy), and 50 points more than a never-poisoned model obeys the same trigger (the
control, where it was measured); a family of which none took is in no AUROC, and not in the worst family.

All models of a setting are compared with one and the same set of references: the intervals tell how much other suspects
would change a number, not how much other references would. Families are small, so read each with its interval. Power is
over all victims that count, in the mixture that the first table shows. The view of black boxes is not judged here.
"""


def page(
    receipt: Mapping[str, Any], public: Mapping[str, Any] | None = None, timing: Mapping[str, Any] | None = None
) -> str:
    """The whole page. Ends with SystemExit where a receipt is of other versions of methods than are installed."""
    make = "python -m benchmarks.scanner"
    told = [
        *((f"scanner.json, {name}", s, f"{make} make --settings {name}, then {make} tables --settings {name}")
          for name, s in receipt["settings"].items()),
        ("scanner-public.json", public, f"{make}.public --checkpoints DIR"),
        ("scanner-timing.json", timing, f"{make}.timing"),
    ]  # fmt: skip
    refuse_stale((f"receipts/{name}", found, command) for name, found, command in told if found is not None)
    parts = [_HEAD, "## In short\n", *(_short(n, v) for n, v in receipt["settings"].items()), _READING]
    parts.append(_calibrated(receipt["settings"]))
    parts += [] if public is None else [_public(public)]
    parts += [] if timing is None else [_timing(timing)]
    for name, setting in receipt["settings"].items():
        parts.append(_setting(name, setting))
    return "\n".join(parts).rstrip() + "\n"


def _calibrated(settings: Mapping[str, Any]) -> str:
    """Whether p-values of fresh models are uniform, over everything that was looked at."""
    found = [p["uniform"] for s in settings.values() for p in s["profiles"].values()]
    every = [u["p"] for told in found for u in told.values() if u]
    trigger = [told["p_trigger (combined)"]["p"] for told in found]
    return _CALIBRATED.format(
        n=len(trigger), low=sum(p <= 0.05 for p in trigger), least=min(trigger),
        every=len(every), lows=sum(p <= 0.05 for p in every), expected=0.05 * len(every),
    )  # fmt: skip


_CALIBRATED = """## Are the p-values uniform on fresh models?

All fresh models of a setting are ranked among the same references, so their p-values are not independent, and the usual
Kolmogorov-Smirnov test rejects 13 to 18 % of perfectly good sets at these sizes instead of 5 %. The p below is instead
the share of simulated sets, of as many fresh models among as many references of one kind, that are as far from uniform.
Of {n} tests of p_trigger {low} have p <= 0.05 (the least: {least:.3f}); of all {every}, the single views included,
{lows} do, and {expected:.0f} would be expected.

On `signs`, references and fresh models are trained alike on the same rows. Their accuracies differ only in what they
were measured on: the references' on held-out rows, whose neighbours of the same sign were trained on, the others' on
the official test set. `pytest -m slow tests/scanner/test_references.py` trains both kinds anew and compares them.
"""


def _public(told: Mapping[str, Any]) -> str:
    """Checkpoints of others."""
    body: list[tuple[str, ...]] = []
    for line in told["scans"]:
        refs, views = line["references"], line["views"]
        kind = "none" if refs is None else f"{refs['references']} of a cheap recipe"
        p = ", ".join(f"{k} {line[k]:.2f}" for k in ("p_trigger", "p_recipe") if line[k] is not None)
        body.append(
            (
                line["file"],
                _n(line["test_accuracy"], 4),
                kind,
                ", ".join(line["alerts"]) or "–",
                p or "–",
                line["verdict"],
                str(line["exit_code"]),
                *(_n(views[v]["score"], 2) for v in ("target-inversion", "universal-perturbation")),
                _n(line["cpu_seconds"], 0),
            )
        )
    head = ("Checkpoint", "test accuracy", "references", "alerts", "p", "verdict", "exit code", "target-inversion",
            "universal-perturbation", "CPU s")  # fmt: skip
    cheap = next((line for line in told["scans"] if line["references"]), None)
    refs = cheap["references"] if cheap else {"accuracy": [0, 0], "training_rows": 0}
    return _PUBLIC.format(
        source=told["source"], rows=told["rows"], table=_table(head, body), n=refs["training_rows"],
        low=refs["accuracy"][0], high=refs["accuracy"][1],
    )  # fmt: skip


_PUBLIC = """## Public checkpoints

`python -m benchmarks.scanner.public --checkpoints DIR` looks at the four CIFAR-10 ResNets of {source}, in the `fast`
profile, with {rows}. Nobody planted a backdoor in them, as far as is known. Their accuracies are those that their
authors state, so they are loaded right.

{table}
None is called backdoored, and none passes: without references nothing is calibrated. The two scores are the gap of the
cheapest class to the median class; they mean little alone. References of their recipe (200 epochs on 50,000 rows) take
hours each on a CPU and were not trained. What references of another recipe do is shown on ResNet-20: those were trained
for seconds ({n:,} rows, accuracy {low:.2f} to {high:.2f}), the scan sees that the suspect behaves unlike all of them,
and says that it cannot tell. So this shows that they are not flagged, not that the scanner would find a backdoor there.
"""


def _timing(told: Mapping[str, Any]) -> str:
    """Seconds and memory at the size of a CIFAR ResNet-18."""
    body: list[tuple[str, ...]] = []
    for name, t in told.items():
        views = ", ".join(f"{v} {s:g}" for v, s in t["views"].items())
        load = t.get("load")
        body.append((name, _n(t["seconds"], 0), _n(t["cpu_seconds"], 0), _n(load, 1), f"{t['peak_mb']:,.0f}", views))
    return _COST + _table(("Profile", "seconds", "CPU seconds", "load", "peak MB", "seconds of each view"), body)


_COST = """## Cost at the size of a CIFAR ResNet-18

`python -m benchmarks.scanner.timing --threads N`: PreAct-ResNet-18 (11.2 M parameters), weights as drawn, 1,000 clean
rows of CIFAR-10, once the references are there. Load is the number of busy processes on the 2 cores while it ran; CPU
seconds, of all threads together, suffer less from it.

"""


_READING = """
The aim was an AUROC of 0.95 in the worst family at 5 % false alarms. `p_trigger` alone does not reach it on either set
of real images. With `p_recipe` added it is reached there, at false alarms that so few models cannot tell from 5 %; but
that sum cannot say *backdoor*, only *unusual*.

Read it so. Only `p_trigger` may say *backdoor*; it is weak on families whose trigger is a faint pattern all over the
image. `p_recipe` sees nearly all of those, but it also turns away every never-poisoned model of another recipe: that
is why it says *unusual* and no more. If your references really are of the suspect's recipe, use `--fail-on low`: both
answers then stop a build, and false alarms may reach twice alpha. An inconclusive model does not pass either, but it
was not found: never-poisoned models of another recipe end there too. `fast` does not look at pairs of classes and
misses source-specific backdoors. The combination cannot be told
apart from the best single view of a data set, and it is kept for one reason: which view that is differs from one data
set to the next and is known only afterwards. On the two-class toys the trigger searches are calibrated, but on
some of them they find next to nothing: there a pixel or a field turns never-poisoned models too, so that a planted
trigger is no cheaper than they are by nature.
"""


def _short(name: str, s: Mapping[str, Any]) -> str:
    """One paragraph of a setting, from its full profile."""
    p = s["profiles"]["full"]
    rows = p["rows"]
    combined, every = rows["p_trigger (combined)"], rows["everything combined"]
    if combined["all"] is None:
        return f"* **{name}**: no valid victim.\n"
    single = {v: rows[v]["all"]["auroc"] for v in p["gain"] if v in rows and rows[v]["all"]}
    best = max(single, key=lambda v: single[v])
    worst = {f: v["auroc"] for f, v in combined["families"].items() if v}
    low = min(worst, key=lambda f: worst[f])
    bad = [v for g, v in p["verdicts"].items() if g != "fresh" and not g.startswith("foreign:")]
    fresh = p["verdicts"]["fresh"]
    stopped = [sum(v[k] for v in bad) for k in ("indicated", "inconclusive", "unusual")]
    n, clean = sum(sum(v.values()) for v in bad), sum(fresh.values())
    alarms = fresh["indicated"] + fresh["inconclusive"]
    gain = p["gain"][best]
    lowest = min(v["auroc"] for v in every["families"].values() if v)
    beats = "beats" if gain["low"] > 0 else "is below" if gain["high"] < 0 else "cannot be told apart from"
    return (
        f"* **{name}** (full): p_trigger {_interval(combined['all'])}, worst family {low} {worst[low]:.2f}; "
        f"it {beats} the best single view, {best} {_interval(rows[best]['all'])} (gain {gain['gain']:+.3f} "
        f"[{gain['low']:+.2f}, {gain['high']:+.2f}], paired bootstrap). "
        f"Power {_share(combined['power']['0.05'])} "
        f"at {_share(combined['false_alarms']['0.05'])} false alarms (alpha 0.05). With p_recipe added: "
        f"{_interval(every['all'])}, worst family {lowest:.2f}, at {_share(every['false_alarms']['0.05'])} false "
        f"alarms. Of {n} backdoored models {stopped[0] + stopped[1]} do not pass, and "
        f"{sum(stopped)} with `--fail-on low`; of {clean} fresh ones {alarms} and {alarms + fresh['unusual']}.\n"
    )


def _setting(name: str, s: Mapping[str, Any]) -> str:
    c = s["calibration"]
    out = [
        f"## {name}: {c['data']}, {c['architecture']['name']}\n",
        f"{c['references']} references (accuracy {c['accuracy'][0]:.3f} to {c['accuracy'][1]:.3f}, "
        f"{c['training_rows']:,} training rows, {c['seconds']:.0f} s of training in all).\n",
        _table(
            ("Models", "n", "attack took", "accuracy", "attack success", "worst", "control"),
            [
                (
                    g,
                    str(m["models"]),
                    str(m["valid"]),
                    _n(m["ca"]),
                    _n(m["asr"]),
                    _n(m["asr_worst"]),
                    _n(m["control_asr"]),
                )
                for g, m in s["members"].items()
            ],
        ),
    ]
    if "note" in s:
        out.insert(1, f"{s['note']}\n")
    for profile, p in s["profiles"].items():
        out.append(_profile(profile, p))
    out += [_rivals(s), _price(s.get("price")), final_layer(s.get("final_layer"))]
    out += [same_trigger(s.get("same_trigger")), ways(s.get("combining"))]
    return "\n".join(part for part in out if part)


def _profile(name: str, p: Mapping[str, Any]) -> str:
    rows = p["rows"]
    families = [f for f, v in rows["p_trigger (combined)"]["families"].items() if v is not None]
    head = ("AUROC", "all", "worst family", *families)
    body = []
    for view, r in rows.items():
        known = {f: r["families"].get(f) for f in families}
        worst = min((v["auroc"] for v in known.values() if v), default=None)
        body.append((view, _interval(r["all"]), _n(worst), *(_n(v["auroc"]) if v else "–" for v in known.values())))
    out = [f"### Profile `{name}`\n", _table(head, body), _families(rows["p_trigger (combined)"]["families"])]
    groups = list(rows["p_trigger (combined)"]["foreign"])
    out.append(
        _table(
            ("Share with p <= alpha", "power .05", "power .01", "false alarms .05", "false alarms .01",
             *(f"{g.split(':')[1]} .05" for g in groups)),
            [
                (
                    view,
                    _share(r["power"]["0.05"]),
                    _share(r["power"]["0.01"]),
                    _share(r["false_alarms"]["0.05"]),
                    _share(r["false_alarms"]["0.01"]),
                    *(_share(r["foreign"][g]["0.05"]) for g in groups),
                )
                for view, r in rows.items()
            ],
        )
    )  # fmt: skip
    u = p["uniform"]["p_trigger (combined)"]
    out.append(
        f"p_trigger of {u['n']} fresh models against the uniform distribution: Kolmogorov-Smirnov {u['ks']:.3f}, "
        f"p = {u['p']:.2f} (simulated, see above). The class that stands out most is the attacker's in "
        f"{p['target']['right']} of {p['target']['of']} models.\n"
    )
    out.append(
        "What `scan` says at alpha 0.05, and how many do not pass: with `--fail-on medium` (the default) those that "
        "are indicated or inconclusive, with `--fail-on low` the unusual ones too.\n"
    )
    out.append(
        _table(
            ("Models", "indicated", "unusual", "none", "inconclusive", "do not pass", "with `--fail-on low`"),
            [(g, *(str(v[k]) for k in _VERDICTS), *_stopped(v)) for g, v in p["verdicts"].items()],
        )
    )
    out.append(
        _table(
            ("References", "AUROC", "power .05", "false alarms .05"),
            [
                (n, _interval(r["all"]), _share(r["power"]), _share(r["false_alarms"]))
                for n, r in p["references"].items()
            ],
        )
    )
    seconds = ", ".join(f"{v} {t:g}" for v, t in p["seconds"].items())
    out.append(f"Median seconds of each view, one thread, while other work ran: {seconds}.\n")
    return "\n".join(out)


_VERDICTS = ("indicated", "unusual", "none", "inconclusive")


def _stopped(v: Mapping[str, int]) -> tuple[str, str]:
    n = sum(v.values())
    if n == 0:
        return "–", "–"
    medium = v["indicated"] + v["inconclusive"]
    return f"{medium} of {n}", f"{medium + v['unusual']} of {n}"


def _families(found: Mapping[str, Any]) -> str:
    """The combination's AUROC of every family with its interval; a dash where no attack of a family took."""
    body: list[tuple[str, ...]] = [(f, "0" if v is None else str(v["n"][0]), _interval(v)) for f, v in found.items()]
    return "p_trigger by family:\n\n" + _table(("Family", "victims that count", "AUROC"), body)


def _rivals(s: Mapping[str, Any]) -> str:
    out = []
    if s["meta_classifier"]:
        values = [v["auroc"] for v in s["meta_classifier"].values() if v]
        out += [
            "### A supervised rival\n",
            "Logistic regression on the same standard scores, trained on all other families and half of the fresh "
            f"models: mean AUROC {sum(values) / len(values):.3f}, worst {min(values):.3f}.\n",
            _table(tuple(s["meta_classifier"]), [tuple(_interval(v) for v in s["meta_classifier"].values())]),
        ]
    if s["baselines"]:
        families = [f for f in next(iter(s["baselines"].values()))["families"]]
        out += [
            "### Published detectors with their own rules\n",
            _published(s["baselines"]),
            _table(
                ("AUROC", "all", "rule: recall", "rule: false alarms", "seconds", *families),
                [
                    (
                        name + (" (unreproduced)" if unreproduced("model-detector", name) else ""),
                        _interval(b["all"]),
                        _n(b["rule_recall"]),
                        _n(b["rule_false_alarms"]),
                        _n(b["seconds"], 1),
                        *(_n(v["auroc"]) if v else "–" for v in b["families"].values()),
                    )
                    for name, b in s["baselines"].items()
                ],
            ),
        ]
    return "\n".join(out)


def _price(told: Mapping[str, Any] | None) -> str:
    """Supervised and unsupervised side by side."""
    if not told:
        return ""
    groups = list(next(iter(told.values()))["foreign"])
    body = [
        (
            name,
            _share(r["power"]),
            _n((r["fresh"] or {}).get("share"), 2),
            *(_share(r["foreign"].get(g)) for g in groups),
        )
        for name, r in told.items()
    ]
    head = ("At level .05", "power on unseen families", "fresh", *(g.split(":")[1] for g in groups))
    return _PRICE + _table(head, body)


_PRICE = """### The price of being supervised, and of not being it

The rival's level is set on the fresh models that it was not trained on. Under the recipes are false alarms on
never-poisoned models of a recipe that neither the rival nor the references are of; for the rival the mean over its
classifiers (one for every family left out), with the lowest and the highest of them in brackets.

"""


def _published(found: Mapping[str, Any]) -> str:
    n = next((b["all"]["n"] for b in found.values() if b["all"]), None)
    count = "" if n is None else f" ({n[0]} victims that count, {n[1]} fresh ones)"
    return f"On the models that all of them were run on{count}; no references, no calibration.\n"

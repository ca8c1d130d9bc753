"""The report of a made-up store: grouping, means, what is left out, and that nothing of a store becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import report_store
from torchbands import report
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.metric import Interval
from torchbands.core.registry import find
from torchbands.report import summary
from torchbands.report.fragments import harmless
from torchbands.report.glossary import number, spread
from torchbands.report.html import footer
from torchbands.report.means import between_models, mean_of, means, share_interval
from torchbands.report.results import Results
from torchbands.report.roles import quality, word

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_store.write(tmp_path_factory.mktemp("made-up") / "store")


@pytest.fixture(scope="module")
def results(store: Path) -> Results:
    return report.collect(store)


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cell(results: Results, attack: str, defense: str) -> Any:
    found = [c for c in results.tasks[0].cells if (c.attack, c.defense) == (attack, defense)]
    assert len(found) == 1
    return found[0]


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data


def test_means_and_intervals_are_those_of_the_records(store: Path, results: Results) -> None:
    values = [json.loads(p.read_text())["metrics"]["asr"] for p in sorted((store / "outcomes").glob("v-0-*.json"))]
    badnets = next(a for a in results.tasks[0].attacks if a.label == "badnets")
    mean = sum(values) / 3
    sd = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
    assert badnets.metrics["asr"].mean == pytest.approx(mean)
    assert badnets.metrics["asr"].high == pytest.approx(min(1.0, mean + 4.302652729749464 * sd / 3**0.5))
    assert badnets.valid == badnets.trained == 3
    assert badnets.undefined == {}


def test_an_attack_that_did_not_take_is_shown_and_counted_in_no_mean(results: Results) -> None:
    task = results.tasks[0]
    sig = next(a for a in task.attacks if a.label == "sig")
    assert (sig.state, sig.valid, sig.trained) == ("invalid", 0, 3)
    assert "under the floor" in sig.reason
    assert cell(results, "sig", "strip").state == "invalid"
    assert cell(results, "sig", "strip").quality is None
    strip = next(d for d in task.defenses if d.label == "strip")
    counted = [cell(results, a, "strip").metrics["auroc"].mean for a in ("badnets", "blended(alpha=0.1)", "wanet")]
    assert strip.mean is not None and strip.mean.mean == pytest.approx(sum(counted) / 3)
    assert strip.worst is not None and strip.worst[1].mean == pytest.approx(min(counted))


def test_the_worst_attack_of_a_repair_is_the_one_it_leaves_most_of(results: Results) -> None:
    anp = next(d for d in results.tasks[0].defenses if d.label == "anp")
    left = {a: cell(results, a, "anp").metrics["asr"].mean for a in ("badnets", "blended(alpha=0.1)", "wanet")}
    assert anp.worst is not None and anp.worst[0] == max(left, key=lambda a: left[a])


def test_invalid_seeds_leave_the_numbers_of_a_valid_attack(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s")
    edit(folder, "outcomes/v-0-2.json", metrics={"ca": 0.9, "asr": 0.03})
    edit(folder, "records/d-v-0-2-strip.json", metrics={"auroc": 0.0})
    found = report.collect(folder)
    badnets = next(a for a in found.tasks[0].attacks if a.label == "badnets")
    assert (badnets.state, badnets.valid, badnets.trained, badnets.seeds) == ("done", 2, 3, (0, 1))
    assert cell(found, "badnets", "strip").seeds == (0, 1)
    assert cell(found, "badnets", "strip").metrics["auroc"].mean > 0.5
    assert "seed 2" in cell(found, "badnets", "strip").reason


def test_declined_and_failed_cells_keep_their_reason_and_no_number(results: Results) -> None:
    declined = cell(results, "wanet", "spectral-signatures")
    assert (declined.state, declined.metrics) == ("not-applicable", {})
    assert declined.reason == "wanet controls training: there is no poisoned data set to filter"
    partly = cell(results, "blended(alpha=0.1)", "badexpert")
    assert (partly.state, partly.seeds) == ("done", (0, 2))
    assert "out of memory (seed 1)" in partly.reason


def test_the_floor_of_attack_success_is_the_last_grids(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    for floor, taken in ((0.1, "done"), (0.5, "invalid")):
        edit(folder, "grid.json", grid={"seeds": [0], "min_asr": floor})
        found = report.collect(folder)
        assert next(a for a in found.tasks[0].attacks if a.label == "sig").state == taken
        assert cell(found, "sig", "strip").state == taken


def test_clients_that_plant_nothing_are_held_to_no_floor(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    edit(folder, "grid.json", grid={"seeds": [0], "min_asr": 0.5})
    assert cell(report.collect(folder), "sig", "strip").state == "invalid"
    for path in (folder / "outcomes").glob("*.json"):
        if json.loads(path.read_text())["attack"] == "sig":
            edit(folder, f"outcomes/{path.name}", backdoor=False)
    assert cell(report.collect(folder), "sig", "strip").state == "done"


def test_a_seed_without_every_attack_takes_the_interval_from_the_mean(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s")
    (folder / "records" / "d-v-1-0-strip.json").unlink()
    strip = next(d for d in report.collect(folder).tasks[0].defenses if d.label == "strip")
    assert strip.mean is not None and strip.mean.low is None


def fail(folder: Path, attack: int, defense: str, seeds: int = 3, status: str = "failed") -> None:
    for seed in range(seeds):
        reason = "RuntimeError: out of memory" if status == "failed" else "it cannot be asked"
        edit(folder, f"records/d-v-{attack}-{seed}-{defense}.json", status=status, reason=reason, metrics={})


@pytest.mark.parametrize(
    ("defense", "worst"), [("strip", 0.0), ("spectral-signatures", 0.0), ("neural-cleanse", 0.0), ("anp", 1.0)]
)
def test_a_run_that_fails_counts_as_the_worst_value(tmp_path: Path, defense: str, worst: float) -> None:
    folder = report_store.write(tmp_path / "s")
    before = next(d for d in report.collect(folder).tasks[0].defenses if d.label == defense)
    fail(folder, 1, defense)
    found = report.collect(folder)
    after = next(d for d in found.tasks[0].defenses if d.label == defense)
    assert before.mean is not None and after.mean is not None and after.worst is not None
    assert after.worst[0] == "blended(alpha=0.1)" and after.worst[1].mean == worst and after.failed == 3
    assert abs(after.mean.mean - worst) < abs(before.mean.mean - worst) - 0.05
    assert cell(found, "blended(alpha=0.1)", defense).state == "failed"
    for path in report.write(folder, None, ["html", "md"]):
        assert f"{defense}: 3 failed runs count as" in path.read_text()


def test_one_failed_seed_lowers_the_mean_and_the_clean_models_count_too(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s")
    fail(folder, 2, "strip", seeds=1)
    for seed in range(3):  # a detector that fails on every clean model cannot tell anything apart
        edit(folder, f"records/d-v-4-{seed}-mm-bd.json", status="failed", reason="RuntimeError: no", metrics={})
    task = report.collect(folder).tasks[0]
    strip, detector = (next(d for d in task.defenses if d.label == n) for n in ("strip", "mm-bd"))
    left = next(c for c in task.cells if (c.attack, c.defense) == ("wanet", "strip")).metrics["auroc"].mean
    assert strip.worst is not None and strip.worst[0] == "wanet" and strip.worst[1].mean == pytest.approx(left * 2 / 3)
    assert detector.mean is not None and detector.mean.mean == 0.0


def test_a_victim_that_was_not_made_is_no_failure_of_the_defenses(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s")
    for victim in ("v-0-0", "v-4-0"):
        edit(folder, f"outcomes/{victim}.json", status="failed", reason="RuntimeError: diverged", metrics={})
        for path in (folder / "records").glob(f"d-{victim}-*.json"):
            edit(folder, f"records/{path.name}", status="failed", reason="its victim was not made", metrics={})
    defenses = report.collect(folder).tasks[0].defenses
    assert [d.label for d in defenses if d.failed] == ["badexpert"], "which failed on another victim"


@pytest.mark.parametrize("status", ["failed", "not-applicable"])
def test_no_defense_is_named_best_for_leaving_out_the_hardest_attack(tmp_path: Path, status: str) -> None:
    folder = report_store.write(tmp_path / "s")

    def said() -> str:
        lines = report.write(folder, None, ["md"])[0].read_text().splitlines()
        return next(line for line in lines if line.startswith("- **Input detectors**"))

    best = said().split(":")[1].split()[0]
    fail(folder, 2, best, status=status)
    assert f" {best} " not in said() and ("Not ranked" in said()) == (status == "not-applicable")


def test_what_differs_between_records_is_told_row_by_row_and_warned_about(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    for path in [*(folder / "outcomes").iterdir(), *(folder / "records").iterdir()]:
        name = f"{path.parent.name}/{path.name}"
        edit(folder, name, versions={"torch": "2.13.0", "device": "cpu"}, precision="float32")
    page, plain = (p.read_text() for p in report.write(folder, None, ["html", "md"]))
    assert not report.warnings(folder) and "Mixed" not in plain and "Not the same for all" not in page + plain
    for attack in range(5):
        edit(folder, f"records/d-v-{attack}-0-strip.json", versions={"torch": "2.13.0", "device": "NVIDIA"})
    edit(folder, "records/d-v-0-0-anp.json", precision="bfloat16")
    found = report.collect(folder)
    assert found.versions == {"torch": "2.13.0"} and found.mixed == ("device",)
    made = {d.label: d.made_with for d in found.tasks[0].defenses}
    assert made["strip"] == {"device": "NVIDIA", "precision": "float32"}
    assert made["anp"] == {"device": "cpu", "precision": "bfloat16, float32"}
    page, plain = (p.read_text() for p in report.write(folder, None, ["html", "md"]))
    assert [w for w in report.warnings(folder) if "made with the same device" in w]
    assert "made with the same device" in page and "| strip | NVIDIA | float32 |" in plain


def test_records_made_on_other_data_or_devices_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=2)
    keys: dict[str, list[str]] = {"outcomes": [], "records": []}
    others = 0
    for kind, asked in keys.items():
        for path in (folder / kind).iterdir():
            mine = json.loads(path.read_text())["seed"] == 1
            edit(folder, f"{kind}/{path.name}", identity={"data": "new" if mine else "old", "device": "cpu"})
            others += not mine
            if mine:
                asked.append(path.stem)
    edit(folder, "grid.json", keys=keys)
    found = report.collect(folder)
    assert {s for a in found.tasks[0].attacks for s in a.seeds} == {1}
    assert found.foreign == others > 0
    assert "were made with other data" in report.write(folder, None, ["md"])[0].read_text()


def test_a_method_far_from_its_paper_is_marked_in_every_table_that_names_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "the paper has 97 %, this has 12 %"
    for name, role in (("strip", "input-detector"), ("wanet", "attack")):
        monkeypatch.setattr(find(name, role), "unreproduced", why)
    page, plain, told = (p.read_text() for p in report.write(store, tmp_path / "r", ["html", "md", "json"]))
    tables = [t for t in re.findall("<table.*?</table>", page, re.S) if "strip" in t or "wanet" in t]
    assert len(tables) >= 6 and all("unreproduced" in t for t in tables)
    assert page.count(why) >= len(tables)
    named = [row for row in plain.splitlines() if row.startswith("| ") and re.search(r"strip|^\| wanet", row)]
    assert len(named) >= 6 and all(re.search(r"(strip|wanet) \(unreproduced\)", row) for row in named)
    task = json.loads(told)["tasks"][0]
    assert {m["label"] for m in [*task["attacks"], *task["defenses"]] if m["unreproduced"] == why} == {"strip", "wanet"}


def test_what_a_method_was_made_of_stands_beside_its_name(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    for attack in range(5):
        edit(folder, f"records/d-v-{attack}-0-strip.json", about="trigram of 256 clean rows")
    page, plain = (p.read_text() for p in report.write(folder, None, ["html", "md"]))
    heads = [line for line in plain.splitlines() if line.startswith("|") and "strip" in line]
    assert len(heads) == 2 and all("strip \\[trigram of 256 clean rows\\]" in line for line in heads)
    assert page.count("trigram of 256 clean rows") >= 2


def test_model_detectors_are_judged_by_ranking_models(store: Path, results: Results) -> None:
    def scores(attack: int) -> list[float]:
        paths = [store / "records" / f"d-v-{attack}-{seed}-mm-bd.json" for seed in range(3)]
        return [json.loads(p.read_text())["metrics"]["score"] for p in paths]

    wins = [a > b for a in scores(2) for b in scores(4)]
    found = cell(results, "wanet", "mm-bd").metrics
    assert found["auroc"].mean == pytest.approx(sum(wins) / 9)
    assert found["auroc"].n == 6 and "score" not in found
    assert "auroc" not in cell(results, "clean", "mm-bd").metrics


def test_intervals_of_shares_and_of_perfect_rankings_are_not_points() -> None:
    share = share_interval([1.0, 1.0, 1.0])
    assert share is not None and share.mean == 1 and share.low == pytest.approx(0.4385, abs=1e-3)
    ranking = between_models([2.0, 3.0, 4.0], [0.0, 1.0])
    assert ranking is not None and ranking.mean == 1 and ranking.low is not None and 0.2 < ranking.low < 0.8
    assert between_models([], [1.0]) is None


def test_an_auroc_that_may_be_chance_gets_no_good_shade() -> None:
    def shade(mean: float, low: float) -> str:
        return word(quality("model-detector", {"auroc": Interval(mean, low, 1.0, 3)}, False))

    assert [shade(1.0, 0.28), shade(1.0, 0.6), shade(0.8, 0.6), shade(0.5, 0.1)] == ["", "strong", "partial", "weak"]


def test_numbers_read_as_a_reader_expects() -> None:
    assert number("asr", 0.98765) == "98.8 %"
    assert number("lift", -0.031) == "−3.1 %"
    assert number("ca_drop", -0.0001) == "0.0 %"
    assert number("auroc", 0.98765) == "0.988"
    assert number("forward_passes", 12345.0) == "12,345"
    assert spread("asr", Interval(0.5, 0.4, 0.6, 3)) == "±10.0"
    assert spread("auroc", Interval(1.0, 0.5, 1.0, 3)) == "[0.500, 1.000]"
    assert spread("asr", Interval(0.5, None, None, 1)) == ""


def test_three_formats_are_written_and_hold_the_same(store: Path, tmp_path: Path) -> None:
    written = report.write(store, tmp_path / "out" / "r.html")
    assert [p.name for p in written] == ["r.html", "r.md", "r.json"]
    html, markdown, raw = (p.read_text() for p in written)
    data = json.loads(raw)
    strip = next(c for c in data["tasks"][0]["cells"] if (c["attack"], c["defense"]) == ("badnets", "strip"))
    shown = f"{strip['metrics']['auroc']['mean']:.3f}"
    assert shown in html and shown in markdown
    for words in ("Which defenses notice or remove", "did not take hold", "controls training", "RuntimeError"):
        assert words in html and words in markdown
    assert "bands bench run quick --store demo" in html and "bands bench run quick --store demo" in markdown
    assert not list(tmp_path.glob("out/.*"))


def test_one_format_goes_to_exactly_the_named_file(store: Path, tmp_path: Path) -> None:
    assert report.write(store, tmp_path / "x.htm", ["html"]) == [tmp_path / "x.htm"]
    assert report.write(store, tmp_path, ["md"]) == [tmp_path / "report.md"]
    assert report.write(store, None, ["json"]) == [store / "report.json"]


def test_the_page_asks_nothing_of_the_network_and_runs_only_its_own_script(store: Path, tmp_path: Path) -> None:
    text = report.write(store, tmp_path / "r.html", ["html"])[0].read_text()
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action"):
                assert (value or "").startswith(("data:image/", "#"))
    assert re.search(r"url\(|@import|https?://", re.sub(r"data:image/png;base64,[^\"]*", "", text)) is None
    policies = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and "default-src 'none'" in str(policies[0])
    assert "unsafe-inline" not in str(policies[0]).split("script-src")[1]


def test_the_page_has_every_part(store: Path, tmp_path: Path) -> None:
    page = Page(report.write(store, tmp_path / "r.html", ["html"])[0].read_text())
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert ids == {"summary", "verdict", "attacks", "looks", "scores", "cost", "read", "made"}
    assert sum(a.get("class") == "triple" for _, a in page.tags) == 4 * 3
    assert sum(t == "svg" and a.get("class") == "hist" for t, a in page.tags) == 3 * 5 + 2 * 4
    assert "planted" in page.text and "neural-cleanse" in page.text
    heads = [a for t, a in page.tags if t == "th" and a.get("scope") == "col"]
    assert heads and all(a.get("aria-sort") == "none" for a in heads)
    signs = {a.get("aria-label") for t, a in page.tags if a.get("class") == "sign"}
    assert signs == {"strong", "partial", "weak"}


def test_no_model_is_called_clean_or_safe(store: Path, tmp_path: Path) -> None:
    page = Page(report.write(store, tmp_path / "r.html", ["html"])[0].read_text())
    assert re.search(r"\bsafe\b|\bis clean\b|model is clean|not backdoored", page.text, re.I) is None
    assert "not proof that a model holds no backdoor" in " ".join(page.text.split())


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    names = {"badnets": f"badnets({EVIL})", "strip": f"strip{EVIL}", "class": f'"{EVIL}', "reason": f"because {EVIL}"}
    names |= {"question": f"Is it </title>{EVIL}?", "store": f"`{EVIL}"}
    folder = report_store.write(tmp_path / "s", rename=names)
    plain = report_store.write(tmp_path / "p")
    html, markdown, _ = (p.read_text() for p in report.write(folder))
    scripts = sum(tag == "script" for tag, _ in Page(html).tags)
    assert scripts == sum(tag == "script" for tag, _ in Page(report.write(plain)[0].read_text()).tags) == 1
    page = Page(html)
    assert page.text.count("alert(1)") > 10
    assert EVIL not in html
    command = next(line for line in markdown.splitlines() if line.startswith("`bands"))
    assert EVIL not in markdown.replace(command, "") and command.count("`") == 2
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.count(" | ") for line in tables if "alert" in line and "found" in line}) <= 2


def test_hostile_fragments_lose_everything_but_their_picture(tmp_path: Path) -> None:
    bad = (
        '<img src="data:image/png;base64,AAAA" onerror="alert(1)"><script>alert(2)</script>'
        '<img src="https://example.org/x.png"><a href="javascript:alert(3)">go</a><div><b>open'
    )
    assert harmless(bad) == '<img src="data:image/png;base64,AAAA"><img>go<div><b>open</b></div>'
    assert harmless("a &lt;b&gt; <mark>x</mark></p>") == "a &lt;b&gt; <mark>x</mark>"
    folder = report_store.write(tmp_path / "s", fragment=bad, seeds=1)
    html = report.write(folder, None, ["html"])[0].read_text()
    assert "onerror" not in html and "example.org" not in html and "javascript:" not in html
    assert "AAAA" in html


def test_victims_of_other_settings_are_another_task(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=2)
    for attack in range(5):
        edit(folder, f"outcomes/v-{attack}-1.json", task_spec={"name": "vision/digits", "params": {"rows": 500}})
    labels = [t.label for t in report.collect(folder).tasks]
    assert sorted(labels) == ["vision/digits (rows=500)", "vision/digits (rows=None)"]
    assert {c.seeds for t in report.collect(folder).tasks for c in t.cells if c.seeds} == {(0,), (1,)}
    html = report.write(folder, None, ["html"])[0].read_text()
    assert "rows=500" in html


def test_records_of_an_earlier_grid_in_the_same_store_are_left_out(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    spec = {"role": "attack", "name": "badnets", "version": 1, "params": {"rate": 0.1}}
    edit(folder, "grid.json", grid={"attacks": [spec], "defenses": []})
    edit(folder, "outcomes/v-0-0.json", attack_spec=spec)
    edit(folder, "outcomes/v-1-0.json", attack_spec={**spec, "params": {"rate": 0.2}})
    labels = [a.label for a in report.collect(folder).tasks[0].attacks]
    assert "badnets" in labels and "blended(alpha=0.1)" not in labels


def test_an_unfinished_grid_says_how_much_is_left(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    assert report.collect(folder).missing == 0
    names = {"attacks": [{"name": a.split("(")[0]} for a in report_store.ATTACKS]}
    grid = names | {"tasks": ["vision/digits"], "defenses": list(report_store.DEFENSES), "seeds": [0]}
    edit(folder, "grid.json", grid=grid | {"clean_seeds": [0, 1]})
    assert report.collect(folder).missing == 11
    assert "11 runs of the grid are still to be done" in report.write(folder)[0].read_text()


def test_a_victim_that_failed_is_a_row_that_says_so(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    edit(folder, "outcomes/v-0-0.json", status="failed", reason="RuntimeError: diverged", metrics={}, samples=[])
    for path in (folder / "records").glob("d-v-0-0-*.json"):
        path.unlink()
    found = report.collect(folder)
    badnets = next(a for a in found.tasks[0].attacks if a.label == "badnets")
    assert (badnets.state, badnets.reason) == ("failed", "RuntimeError: diverged")
    assert "the victim was not made: RuntimeError: diverged" in report.write(folder)[0].read_text()


def test_damaged_records_are_named_and_left_out(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    (folder / "records" / "d-v-0-0-strip.json").write_text('{"key": ')
    (folder / "records" / "other.json").write_text("[]")
    found = report.collect(folder)
    assert len(found.problems) == 2 and any("d-v-0-0-strip.json" in p for p in found.problems)
    html = report.write(folder)[0].read_text()
    assert "2 unreadable files" in html and "not run" in html


@pytest.mark.parametrize("seeds", [0, 1])
def test_a_store_with_little_in_it_still_has_a_report(tmp_path: Path, seeds: int) -> None:
    folder = report_store.write(tmp_path / "s", seeds=seeds)
    assert all(p.stat().st_size > 500 for p in report.write(folder, None, ["html", "md"]))


def test_what_cannot_be_reported_says_why(tmp_path: Path, store: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no grid.json"):
        report.write(tmp_path)
    with pytest.raises(UnknownName, match="'html'"):
        report.write(store, tmp_path, ["hmtl"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        report.write(store, tmp_path / "file" / "r.html", ["html"])


def test_intervals_end_where_the_number_ends() -> None:
    """Three AUROCs of which one run failed: ±1.403 would be an interval beyond what an AUROC can be."""
    found, _ = means([{"auroc": v, "rule_fpr": v / 10, "lift": v - 1, "seconds": v} for v in (1.0, 0.98, 0.0)])
    assert (found["auroc"].low, found["auroc"].high) == (0.0, 1.0) and spread(
        "auroc", found["auroc"]
    ) == "[0.000, 1.000]"
    assert found["rule_fpr"].low == found["seconds"].low == 0.0 and found["lift"].low == -1.0
    assert mean_of("asr", [1.0, 1.0, 1.0]) == Interval(1.0, 1.0, 1.0, 3)


def test_a_word_never_contradicts_the_figures_beside_it() -> None:
    def shade(role: str, benign: bool = False, **metrics: float) -> str:
        return word(quality(role, {k: Interval(v, None, None, 1) for k, v in metrics.items()}, benign))

    assert shade("data-filter", auroc=0.99, rule_recall=0.0, rule_fpr=0.09) == "partial"
    assert shade("data-filter", auroc=0.99, rule_recall=0.9, rule_fpr=0.148) == "partial"
    assert shade("data-filter", auroc=0.99, rule_recall=0.9, rule_fpr=0.4) == "weak"
    assert shade("input-detector", auroc=0.99, tpr_at_5=0.2) == "partial"
    assert shade("model-detector", auroc=1.0, flagged=0.0) == "partial"
    assert shade("input-detector", auroc=0.99, rule_recall=0.9, rule_fpr=0.03) == "strong"
    benign = [shade("input-detector", True, rule_fpr=v) for v in (0.09, 0.148, 0.31)]
    assert benign == ["strong", "partial", "weak"]
    assert [shade("repair", True, ca_drop=v) for v in (0.04, 0.06, 0.16)] == ["strong", "partial", "weak"]


@pytest.mark.parametrize("defenses", [["mm-bd"], ["mm-bd", "neural-cleanse"]])
def test_nothing_is_praised_that_is_not_shown_to_beat_chance(tmp_path: Path, defenses: list[str]) -> None:
    """One model with a backdoor against one without: an AUROC of 0 or 1, which says nothing."""
    store = report_store.write(tmp_path / "store", seeds=1)
    for path in (store / "records").iterdir():
        if (told := json.loads(path.read_text()))["role"] == "model-detector" and told["defense"] not in defenses:
            path.unlink()
    said = dict(summary.sentences(report.collect(store)))["Model detectors"]
    assert "shown to do better than chance" in said and "best such figure" not in said and "[" in said
    assert ("none is" in said) == (len(defenses) > 1)


def test_the_mean_is_shaded_no_better_than_the_cells(results: Results) -> None:
    task = results.tasks[0]
    order = ["", "weak", "partial", "strong"]
    for defense in task.of_role("data-filter"):
        words = [word(task.cell(a, defense).quality) for a in task.attacks if a.label in defense.judged]
        assert order.index(footer(task, defense)[2]) <= max(map(order.index, words))


def test_the_table_of_attacks_fits_a_laptop(store: Path, tmp_path: Path) -> None:
    """At 1280 pixels 1,098 are left: nine short columns, intervals on a line of their own; costs have their own table.
    Measured in Chromium 156; this holds what made it fit."""
    page = report.write(store, tmp_path / "r.html", ["html"])[0].read_text()
    table = page.split('id="attacks"')[1].split("</table>")[0]
    heads = re.findall(r"<button[^>]*>([^<]*)</button>", table)
    assert 'class="narrow"' in table and len(heads) == 9 and max(map(len, heads)) <= 18
    assert ".narrow td .pm { display: block; }" in page
    assert "Cost of attacks on" in page

"""The verdict tables as LaTeX, for a paper: they need the package booktabs."""

from __future__ import annotations

from torchbands.core.metric import Interval
from torchbands.core.words import shown

from .glossary import number, spread, term
from .results import Attack, Cell, Defense, Results, TaskResults
from .roles import ROLES
from .table import remarks_on, title_of, unreproduced_of

_STATES = {"invalid": "not taken", "not-applicable": "n/a", "failed": "failed", "missing": "--"}
_EFFECT = ("ca", "asr", "control_asr", "ra")
_SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"},
    **{
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "−": "$-$",
        "±": r"$\pm$",
        "∞": r"$\infty$",
    },
    **{"`": r"\textasciigrave{}", "'": r"\textquotesingle{}", "–": "--"},
}


def render(results: Results) -> str:
    """One table of the attacks of every task, and one of every role of defense; all text is escaped."""
    out = [f"% {shown(results.command, 4000)}", r"% \usepackage{booktabs,textcomp}", ""]
    for task in results.tasks:
        out += _attacks(task)
        for role in task.roles():
            out += _verdicts(task, role)
    return "\n".join(out)


def _attacks(task: TaskResults) -> list[str]:
    rows = [[_name(a), *(_value(n, a.metrics.get(n)) for n in _EFFECT)] for a in task.attacks]
    head = ["attack", *(_safe(term(n).title) for n in _EFFECT)]
    return _table(f"Attacks on {_safe(task.label)}.{_over(task)}", [head], [rows])


def _verdicts(task: TaskResults, role: str) -> list[str]:
    about, mine = ROLES[role], task.of_role(role)
    attacks = [a for a in task.attacks if not a.benign]
    rows = [[_name(a), *(_cell(task.cell(a, d), about.headline) for d in mine)] for a in attacks]
    overall = [
        ["mean", *(_value(about.headline, d.mean) for d in mine)],
        ["worst attack", *(_worst(about.headline, d) for d in mine)],
    ]
    benign = [[_name(a), *(_cell(task.cell(a, d), about.benign) for d in mine)] for a in task.attacks if a.benign]
    better = "lower is better" if about.lower_is_better else "higher is better"
    title = f"{about.title} on {task.label}: {term(about.headline).title}, {better}"
    title += f"; without an attack, {term(about.benign).title}." if benign else "."
    marked = ", ".join(name for name, _ in unreproduced_of([*task.attacks, *mine]))
    note = f" Unreproduced (far from the numbers of its paper): {_safe(marked)}." if marked else ""
    note += "".join(f" {_safe(text)}" for text in remarks_on(role, mine))
    head = ["attack", *(_safe(title_of(d)) for d in mine)]
    return _table(_safe(title) + _over(task) + note, [head], [part for part in (rows, overall, benign) if part])


def _worst(name: str, defense: Defense) -> str:
    return "--" if defense.worst is None else f"{_value(name, defense.worst[1])} ({_safe(defense.worst[0])})"


def _over(task: TaskResults) -> str:
    seeds = max((len(a.seeds) for a in task.attacks), default=0)
    return f" Mean over {seeds} seeds with its 95\\,\\% interval." if seeds > 1 else " One seed: no interval."


def _cell(cell: Cell, name: str) -> str:
    value = cell.metrics.get(name)
    if value is None:
        return _STATES.get(cell.state, "--")
    return _value(name, value) + ("" if cell.state == "done" else f" ({_STATES.get(cell.state, cell.state)})")


def _name(attack: Attack) -> str:
    return _safe(title_of(attack)) + ("" if attack.state == "done" else f" ({_STATES.get(attack.state, attack.state)})")


def _value(name: str, value: Interval | None) -> str:
    if value is None:
        return "--"
    return _safe(" ".join(filter(None, [number(name, value.mean), spread(name, value)])))


def _table(caption: str, head: list[list[str]], parts: list[list[list[str]]]) -> list[str]:
    columns = "l" + "r" * (len(head[0]) - 1)
    out = [r"\begin{table}", r"  \centering\small", f"  \\caption{{{caption}}}", f"  \\begin{{tabular}}{{{columns}}}"]
    out.append(r"    \toprule")
    for at, part in enumerate([head, *parts]):
        out += [r"    \midrule"] * bool(at)
        out += ["    " + " & ".join(row) + r" \\" for row in part]
    return [*out, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""]


def _safe(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in shown(text, 4000))

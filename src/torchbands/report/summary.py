"""The results in a few plain sentences. They say what was found and what was not; they never call a model sound."""

from __future__ import annotations

from .glossary import number, shown
from .results import Defense, Results, TaskResults
from .roles import ROLES, Role

#: The AUROC of a coin toss.
CHANCE = 0.5


def sentences(results: Results) -> list[tuple[str, str]]:
    """What a reader should know before the tables: (what it is about or nothing, the sentence)."""
    out: list[tuple[str, str]] = []
    for task in results.tasks:
        first, *others = _task(task)
        out += [(f"On {task.label}", first[1]) if len(results.tasks) > 1 else first, *others]
    if results.missing:
        text = f"{_count(results.missing, 'run')} of the grid are still to be done; the same command goes on with them."
        out.append(("Unfinished", text))
    out += warnings(results)
    if results.problems:
        out.append(("", f"Left out of the numbers: {_count(len(results.problems), 'unreadable file')} of the store."))
    return out


def warnings(results: Results) -> list[tuple[str, str]]:
    """What a store mixes, or holds besides: numbers that were not made alike are not simply comparable."""
    out: list[tuple[str, str]] = []
    if results.mixed:
        text = (
            f"Not all numbers were made with the same {_join(list(results.mixed))}: compare rows with care; what each "
            "was made with is at the end."
        )
        out.append(("Mixed", text))
    if results.foreign:
        text = (
            f"{_count(results.foreign, 'record')} of the same methods were made with other data, on another kind of "
            "device, in another precision or by another version of the harness, and are left out."
        )
        out.append(("Left out", text))
    return out


def counts(results: Results) -> list[tuple[str, str]]:
    """The size of the experiment: (figure, what it counts)."""
    attacks = [a for t in results.tasks for a in t.attacks]
    planted = [a for a in attacks if not a.benign]
    cells = [c for t in results.tasks for c in t.cells]
    return [
        (str(sum(a.trained for a in attacks)), "models trained"),
        (f"{sum(a.state == 'done' for a in planted)} of {len(planted)}", "attacks that took hold"),
        (str(sum(len(t.defenses) for t in results.tasks)), "defenses"),
        (f"{sum(c.state in ('done', 'invalid') for c in cells)} of {len(cells)}", "combinations with a result"),
    ]


def _task(task: TaskResults) -> list[tuple[str, str]]:
    planted = [a for a in task.attacks if not a.benign]
    plain = sum(a.trained for a in task.attacks if a.benign)
    with_backdoor = _count(sum(a.trained for a in planted), "model")
    asked = (
        f"{with_backdoor} with a planted backdoor ({_count(len(planted), 'attack')}) "
        f"and {_count(plain, 'model')} trained without any attack were put through "
        f"{_count(len(task.defenses), 'defense')}."
    )
    out = [("", asked)]
    idle = [a.label for a in planted if a.state == "invalid"]
    if idle:
        text = f"{_join(idle)} did not take hold; what the defenses did there is shown but counted in no mean."
        out.append(("", text))
    out += [(ROLES[role].title, text) for role in task.roles() if (text := _role(ROLES[role], task.of_role(role)))]
    failed = sum(c.state == "failed" for c in task.cells) + sum(a.state == "failed" for a in task.attacks)
    declined = sum(c.state == "not-applicable" for c in task.cells)
    if failed:
        out.append(("", f"{_count(failed, 'combination')} failed; the notes under the tables say why."))
    if declined:
        text = f"{_count(declined, 'combination')} could not be asked of a method at all (n/a); the notes say why."
        out.append(("", text))
    return out


def _role(role: Role, defenses: tuple[Defense, ...]) -> str:
    """The defense whose worst attack is the least bad: an attacker chooses the attack.

    Only those are ranked that have a value on every attack that any has one on: leaving the hardest out is no merit.
    """
    some = [d for d in defenses if d.worst is not None]
    every = {attack for d in some for attack in d.judged}
    judged = [d for d in some if set(d.judged) == every]
    if not judged:
        return "none has a value on every attack, so none is named best." if some else ""
    sign = 1 if role.lower_is_better else -1
    best = min(judged, key=lambda d: sign * d.worst[1].mean if d.worst else 0.0)
    assert best.worst is not None
    attack, value = best.worst
    at = number(role.headline, value.mean)
    others = len(some) - len(judged)
    left = f" Not ranked, for want of a value on every attack: {others}." if others else ""
    mean = f" ({number(role.headline, best.mean.mean)} on average)" if best.mean else ""
    if not role.lower_is_better and (value.mean <= CHANCE or (value.low is not None and value.low <= CHANCE)):
        who = "none is" if len(judged) > 1 else f"{best.label} is not"
        it = f"the best, {best.label}, has" if len(judged) > 1 else "it has"
        return (
            f"{who} shown to do better than chance on its hardest attack: {it} an AUROC of "
            f"{shown(role.headline, value)} on {attack}{mean}.{left}"
        )
    if role.lower_is_better:
        verdict = f"leaves an attack success of {at} on its hardest attack, {attack}{mean}"
    else:
        verdict = f"reaches an AUROC of {at} on its hardest attack, {attack}{mean}"
    ranked = f": the best such figure of {len(judged)}" if len(judged) > 1 else ""
    return f"{best.label} {verdict}{ranked}.{left}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

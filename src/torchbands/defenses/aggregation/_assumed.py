"""How many of a round's clients a rule takes for malicious, and whether there are enough clients for it."""

from __future__ import annotations

from torchbands.core.errors import InputError


def check(name: str, f: int) -> None:
    """Raise InputError for a number of malicious clients that nobody can mean."""
    if f < 0:
        raise InputError(f"{name}: f={f} malicious clients in a round, expected at least 0")


def assumed(name: str, f: int, excluded: int, n: int, times: int, more: int) -> int:
    """The malicious that a rule, which needs times * f + more clients, assumes among n.

    Clients whose updates were excluded already were some of the f: where too few are left for f, the rule goes on with
    the most that it allows, as long as all f are accounted for. Raises InputError where they are not.
    """
    most = (n - more) // times
    if most < f - excluded:
        raise InputError(
            f"{name}: f={f - excluded} malicious among {n} clients of a round, and the rule needs at least"
            f" {times}f+{more} = {times * (f - excluded) + more} clients",
            hint=f"for {n} clients f is at most {most}: set f={most}" if most >= 0 else "let more clients take part",
        )
    return max(0, min(f, most))

"""The whole outcome as JSON, in ASCII: nothing in it can move a cursor or turn a line around."""

from __future__ import annotations

import json

from torchbands.scanner.alerts import Level
from torchbands.scanner.outcome import Outcome
from torchbands.scanner.verdict import TOOL_ERROR


def render(outcome: Outcome, fail_on: Level, error: str) -> str:
    """Every field of the outcome, the sentence, and the exit code that goes with it."""
    found = outcome.to_json()
    found |= {"fail_on": fail_on, "exit_code": TOOL_ERROR if error else outcome.exit_code(fail_on), "error": error}
    return json.dumps(found, indent=1, allow_nan=False) + "\n"

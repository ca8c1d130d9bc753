"""Effectiveness, stealth and cost: every number in a report is computed here."""

"""The vocabulary that everything else is written in."""

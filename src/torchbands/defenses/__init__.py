"""Published defenses, one folder per role and one file per paper."""

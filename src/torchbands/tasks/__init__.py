"""Real data made into tasks. Recipes only."""

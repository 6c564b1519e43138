"""Array operations: :mod:`.returns` (estimators) and :mod:`.random` (counter-based draws)."""

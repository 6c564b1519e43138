"""Array operations.

:mod:`.returns` (advantages and returns, and the conventions), :mod:`.traces` (off-policy
estimators, eligibility traces) and :mod:`.random` (counter-based draws).
"""

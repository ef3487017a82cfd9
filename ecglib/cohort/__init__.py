"""File → cohort: the contract, building, and where ECGs come from."""

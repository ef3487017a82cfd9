"""Forest and boosting on engineered features, and the published OMI tables."""

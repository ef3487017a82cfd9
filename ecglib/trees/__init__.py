"""Forest and boosting on engineered features, and the published OMI tables.

`TREES` is read without importing scikit-learn.
"""

from ecglib.models import Entry

TREES = {
    "random_forest": Entry(
        "Random Forest",
        "ecglib.trees.forest:random_forest",
        {"setting": ("nature_medicine_2023", "ecg_smart_2024")},
        {("setting", "ecg_smart_2024"): "Random Forest (2024 setting)"},
    ),
    "gradient_boosting": Entry(
        "Gradient boosting",
        "ecglib.trees.forest:gradient_boosting",
        protocol=2,
    ),
}

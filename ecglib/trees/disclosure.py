"""What may be shown of patients' data that nobody licensed: nothing that tells a single one.

Counts below `SMALLEST_CELL` are suppressed, and whatever would give them away.
"""

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

SMALLEST_CELL = 5
RISK_LIMITS = (0.05, 0.20)


def count_text(number: int) -> str:
    """Text of a count; one from 1 to 4 is suppressed."""
    return f"<{SMALLEST_CELL}" if 0 < number < SMALLEST_CELL else str(number)


def risk_groups(label, probability) -> pd.DataFrame:
    """Patients and OMI in the published risk groups: low below 5 %, high from 20 % on; counts are
    text.

    A count is suppressed if it, or the group's patients without OMI, are fewer than
    `SMALLEST_CELL`; if only one is, so is the next smallest, which would give it away together with
    the total.
    """
    group = pd.cut(
        probability,
        [-np.inf, *RISK_LIMITS, np.inf],
        right=False,
        labels=["low", "intermediate", "high"],
    )
    table = (
        pd.DataFrame({"group": group, "omi": label})
        .groupby("group", observed=False)["omi"]
        .agg(["size", "sum"])
    )
    few = table["size"] < SMALLEST_CELL
    patients = _suppressed(table["size"], few)
    few |= (table["sum"] < SMALLEST_CELL) | (table["size"] - table["sum"] < SMALLEST_CELL)
    omi = _suppressed(table["sum"], few)
    known = patients.str.isdigit() & omi.str.isdigit()
    percent = (100 * table["sum"] / table["size"]).round(1).astype(str).where(known, "–")
    return pd.DataFrame({"patients": patients, "omi": omi, "omi_percent": percent})


def _suppressed(counts: pd.Series, hide: pd.Series) -> pd.Series:
    """Text of counts, those to hide and what would give a single one away left out."""
    if hide.sum() == 1:
        hide = hide | (counts.index == counts[~hide].idxmin())
    return (
        counts.astype(str)
        .mask(hide, "–")
        .mask(hide & (counts < SMALLEST_CELL), f"<{SMALLEST_CELL}")
    )


def calibration_bins(label, probability, bins: int = 10) -> pd.DataFrame:
    """Mean predicted and observed share of OMI, with 95 % Wilson interval, in bins of rising
    probability.

    A bin holds about 1 / `bins` of the patients, and at least `SMALLEST_CELL` with and without OMI.
    """
    label, probability = np.asarray(label), np.asarray(probability)
    edges = [np.inf]
    # from the highest down; patients of one probability stay together
    for value in np.unique(probability)[::-1]:
        inside = label[(probability >= value) & (probability < edges[-1])]
        if (
            len(inside) >= len(label) / bins
            and min(inside.sum(), (1 - inside).sum()) >= SMALLEST_CELL
        ):
            edges.append(value)
    edges[-1] = -np.inf  # what is left over joins the last bin
    table = pd.DataFrame({"predicted": probability, "observed": label})
    table = table.groupby(pd.cut(probability, edges[::-1], right=False), observed=True)
    low, high = proportion_confint(
        table["observed"].sum(), table["observed"].count(), method="wilson"
    )
    return (
        table.mean()
        .assign(low=low, high=high, patients=table["observed"].count())
        .reset_index(drop=True)
    )


def dependence(values: pd.Series, effect: pd.Series, bins: int = 8) -> pd.DataFrame:
    """Mean of a feature and of its effect (SHAP) in bins of equal size: a curve with no point per
    patient.
    """
    bin_of = pd.qcut(values, bins, duplicates="drop")
    table = pd.DataFrame({"value": values, "effect": effect}).groupby(bin_of, observed=True)
    return table.mean()[table["value"].count() >= SMALLEST_CELL].reset_index(drop=True)

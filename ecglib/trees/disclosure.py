"""What may be shown of patients' data that nobody licensed: nothing that tells a single one.

Counts below `SMALLEST_CELL` are suppressed, and whatever would give them away.
"""

import numpy as np
import pandas as pd

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

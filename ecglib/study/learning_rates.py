"""Choose the initial learning rate of each network from a grid (paper, section II.B)."""

import pandas as pd

from ecglib.study import places
from ecglib.study.params import StudyError
from ecglib.study.runs import RunError, read_run


def read_grid(study) -> tuple[pd.DataFrame, list[str]]:
    """Best validation score of every run of the grid, and a sentence for each missing one.

    Returns
    -------
    pandas.DataFrame
        ``model, learning_rate, rotation, val_score, label, best_epoch, epochs``.
    list of str
    """
    rows, problems = [], []
    for kind, model, rotation, rate in study.runs:
        if kind != "grid":
            continue
        try:
            facts = read_run(places.run_folder(study.name, model, rotation, rate))
        except RunError as error:
            problems.append(str(error))
            continue
        history = pd.read_csv(facts["folder"] / "history.csv")
        row = {"model": model, "learning_rate": rate, "rotation": rotation}
        row |= {"val_score": history.val_score.max(), "label": study.display_name(model)}
        rows.append(row | {name: facts[name] for name in ("best_epoch", "epochs")})
    if not rows:
        raise StudyError(
            f"Study {study.name} has no finished run of its grid: run "
            f"`make reproduce STUDY=params/{study.name}.yaml`"
        )
    return pd.DataFrame(rows), problems


def choose(scores: pd.DataFrame) -> pd.Series:
    """Choose the learning rate with the highest mean validation score over rotations, for all of
    them, as the paper does.

    It is mildly optimistic, since every validation fold is the test fold of another rotation.

    Parameters
    ----------
    scores : pandas.DataFrame
        ``model, learning_rate, rotation, val_score``.

    Returns
    -------
    pandas.Series
        Model → ``learning_rate``; of equal scores the lower rate wins.
    """
    means = scores.pivot_table("val_score", "model", "learning_rate", sort=False)
    return means.sort_index(axis=1).idxmax(axis=1).rename("learning_rate")


def at_edge(scores: pd.DataFrame, chosen: pd.Series) -> list[str]:
    """A sentence for each chosen rate that is the lowest or highest of those tried: better ones may
    lie beyond.

    `scores` is the table of `read_grid`, `chosen` that of `choose`; a model with one rate has no
    edge.
    """
    told = []
    for model, rate in chosen.items():
        rates = sorted(set(scores.learning_rate[scores.model == model]))
        for end, at in (("lowest", rates[0]), ("highest", rates[-1])) if len(rates) > 1 else ():
            if rate == at:
                told.append(f"{model}: {rate:g} is the {end} of {len(rates)} rates that were tried")
    return told

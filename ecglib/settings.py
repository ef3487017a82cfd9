"""The sections of a study file as typed, closed models: a wrong key, type or value is refused.

A default is the paper's value wherever the paper gives one.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
LabelKind = Literal["angiographic", "proxy", "synthetic"]


class Label(NamedTuple):
    """What a label of 1 means, and its kind, which rules what may be said of a result."""

    kind: LabelKind
    meaning: str

    def __str__(self):
        return f"{self.meaning} [{self.kind} label]"


Duplicates = Annotated[
    Literal["set_apart", "keep"],
    Field(description="ECGs whose beat is also another patient's: all set apart, or all kept"),
]


class Closed(BaseModel):
    """A section in which every key is known: anything else is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Normalisation = Literal["lead_zscore", "millivolt", "lead_max"]
Samples = Literal[400, 200]


class SyntheticCohort(Closed):
    """Simulated recordings that ship with the package (label kind: synthetic)."""

    source: Literal["synthetic"]
    records: int = Field(
        ge=60, le=1_000_000, description="ECGs in all; 10,893 gives the paper's size"
    )
    subtle: float = Field(
        0.67, ge=0, le=1, description="share of the OMI whose ST changes are subtle"
    )
    prevalence: Fraction | None = Field(
        None, description="share of positive ECGs; None: the paper's 8.8 %"
    )

    @property
    def means(self) -> Label:
        """What the cohort's label means."""
        return Label(
            "synthetic", "simulated occlusion of a coronary artery in this patient's episode"
        )


class PtbxlCohort(Closed):
    """PTB-XL with a proxy label read from its annotations (label kind: proxy)."""

    source: Literal["ptbxl"]
    label: Literal["acute_mi", "acute_mi_strict", "mi"] = "acute_mi"
    sampling_rate: Literal[100, 500] = 100
    records: str | None = Field(
        None, description="CSV with a column ecg_id: the cohort's records; None: all of the table"
    )
    allow_missing_records: bool = False
    duplicates: Duplicates = "set_apart"

    @property
    def means(self) -> Label:
        """What the cohort's label means; none of the three is the paper's."""
        meanings = {
            "acute_mi": "acute MI or ischaemic injury statement (proxy)",
            "acute_mi_strict": "acute MI by the stated stage of infarction (proxy)",
            "mi": "any MI statement, acute or old (proxy)",
        }
        return Label("proxy", meanings[self.label])


class AcsEcgCohort(Closed):
    """ACS-ECG: patients who had coronary angiography, with its outcome (label kind: angiographic).

    Of all of them AMI and STEMI are diagnoses, made with the ECG: proxies. In a folder that
    `ecglib.cohort.made_up` wrote every label is synthetic.
    """

    source: Literal["acs_ecg"]
    label: Literal["omi", "ami", "stemi", "nstemi_omi"] = Field(
        "omi", description="nstemi_omi: OMI among the ECGs without STEMI"
    )
    beats: Literal["own", "released"] = Field(
        "own", description="from the recordings by our chain, or the median beats released with it"
    )
    max_hours: float | None = Field(None, gt=0, description="from the ECG to angiography, at most")
    part: Literal["train", "test"] = Field("train", description="labels of test are not public")
    made_up: bool = Field(False, description="the folder was written by make-acs-ecg")
    duplicates: Duplicates = "set_apart"

    @property
    def means(self) -> Label:
        """What the cohort's label means."""
        if self.made_up:
            return Label("synthetic", f"simulated {self.label.upper()} of a made-up ACS-ECG")
        meanings = {
            "omi": "occlusion MI by angiography (TIMI 0-1 before PCI)",
            "nstemi_omi": "occlusion MI by angiography (TIMI 0-1 before PCI), no ECG with STEMI",
            "ami": "acute MI as diagnosed (proxy)",
            "stemi": "STEMI as diagnosed (proxy)",
        }
        return Label("angiographic" if "omi" in self.label else "proxy", meanings[self.label])


class FilesCohort(Closed):
    """A folder of recordings, or ready median beats, with a table of labels: a user's own
    cohort.
    """

    source: Literal["files"]
    name: str
    folder: str = Field(description="where the recordings lie")
    table: str = Field(
        description="CSV or parquet: record_id or path, patient_id, site, age, sex, label"
    )
    label_kind: LabelKind
    label_meaning: str = Field(min_length=10, description="what a label of 1 means, in words")
    beats_unit: Literal["uV", "mV"] | None = Field(
        None, description="set for ready median beats (.npy, .npz)"
    )
    duplicates: Duplicates = "set_apart"

    @property
    def means(self) -> Label:
        """What the cohort's label means, in its owner's words."""
        return Label(self.label_kind, self.label_meaning)


class Signal(Closed):
    """From 10 s to the median beat; defaults from the authors' later code."""

    high_pass_hz: float = Field(0.7, gt=0, le=2)
    low_pass_hz: Literal[100, 150] = 150
    band_hz: float | None = Field(
        None, gt=0, description="filter to what files of twice this rate hold, as other beats do"
    )
    mains_hz: Literal["find", "off", 50, 60] = "find"
    blank_pacing: bool = True
    on_poor_quality: Literal["keep", "flag", "drop"] = "flag"


class Folds(Closed):
    """Patient-stratified folds (paper, section II.B); rotation k validates on fold k and tests on
    fold k+1.

    With ``by: site`` rotation k tests on the k-th largest site instead: see
    `ecglib.folds.build_folds`.
    """

    by: Literal["patient", "site"] = "patient"
    count: int = Field(10, ge=3, le=50)
    rotations: tuple[int, ...] | None = Field(
        None, description="None: all of them; with sites, those to be left out"
    )

    @property
    def equal(self) -> int | None:
        """Number of folds of equal size; None where sites are left out in turn."""
        return self.count if self.by == "patient" else None


class Training(Closed):
    """The paper's protocol (section II.B); defaults are the paper's values."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2, description="before undersampling within the batch")
    plateau_factor: Fraction = 0.8
    plateau_patience: int = Field(3, ge=0)
    early_stopping: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better score"
    )
    normalisation: Normalisation = "lead_zscore"
    samples: Samples = Field(400, description="that a network sees of a beat's 0.8 s")
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32", description="tf32: a GPU's faster float32 products; on a CPU the same as fp32"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    stream: bool = Field(
        False, description="read batches from the memory map: for cohorts larger than memory"
    )


class LearningRates(Closed):
    """A grid of learning rates, from which `ecglib.study.learning_rates.choose` chooses (paper,
    section II.B).
    """

    grid: dict[str, tuple[Annotated[float, Field(gt=0, le=1)], ...]] = Field(min_length=1)
    rotations: tuple[int, ...] | None = Field(None, description="of the grid; None: the study's")


class Model(Closed):
    """One model of a study; the key it stands under names it in tables, runs and predictions."""

    network: str | None = Field(None, description="registered model; None: the key itself")
    learning_rate: float | None = Field(None, gt=0, le=1, description="None: chosen from the grid")
    normalisation: Normalisation | None = Field(None, description="None: that of `training`")
    samples: Samples | None = Field(None, description="None: those of `training`")
    epochs: int | None = Field(None, ge=1, description="None: those of `training`")
    seed: int = Field(0, ge=0, description="of a repetition: another one trains from another start")
    features: Literal["all", "without_age_hr"] = Field(
        "all", description="of a forest or boosting; without: what a network with leads in mV has"
    )
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="options of the model"
    )


class Statistics(Closed):
    """Bootstrap over patients, drawn jointly in all rotations and models."""

    draws: int = Field(2000, ge=100)
    confidence: Fraction = 0.95
    training_noise: str | None = Field(
        None, description="study whose kept runs repeat this one's with other seeds"
    )


OfPtbxl = Literal["strict_label", "human_validated"]
OfAcsEcg = Literal[
    "within_12_h", "within_24_h", "nstemi_only", "without_pacing", "without_earlier_pci"
]
Sensitivity = Literal["without_negatives_of_positive_patients", OfPtbxl, OfAcsEcg]
"""Same models, other test records: see `ecglib.analysis.subgroups.ANALYSES`."""


class Saliency(Closed):
    """Which model is explained, and with how many positives."""

    positives: int | None = Field(
        None, ge=1, description="None: all positives of the test fold, as the paper"
    )


class OmiFeatures(Closed):
    """The two feature tables published with Al-Zaiti et al., Nature Medicine 2023 (label kind:
    angiographic).
    """

    url: str = Field(description="folder on the web that holds both tables")
    derivation_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    external_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    folds: int = Field(10, ge=3, le=50)

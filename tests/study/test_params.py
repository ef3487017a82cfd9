import pytest
import yaml

from ecglib.settings import Signal, SyntheticCohort
from ecglib.study.params import StudyError, load_study
from ecglib.study.places import PARAMS

STUDIES = sorted(file.stem for file in PARAMS.glob("*.yaml"))


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_studies_are_valid(name):
    assert load_study(name).name == name
    assert f"params/{name}.yaml" in (PARAMS / f"{name}.yaml").read_text(), (
        "its head shows its launch command"
    )


def test_a_study_without_models_is_a_cohort_to_look_at():
    assert load_study("smoke_again").steps == ("00_cohort", "01_data_exploration")
    assert len(load_study("smoke").steps) == 8


def test_only_folds_by_patient_are_of_equal_size():
    assert load_study("ptbxl").folds.equal == 10 and load_study("smoke").folds.equal == 3
    assert load_study("ptbxl_sites").folds.equal is None


def test_weights_of_resnet18_may_lie_anywhere(tmp_path):
    content = yaml.safe_load((PARAMS / "smoke.yaml").read_text())
    resnet = {"learning_rate": 1e-3, "options": {"weights": "/there/resnet18.pth"}}
    content |= {"name": "mine", "models": content["models"] | {"resnet18": resnet}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    assert load_study(file).models["resnet18"].options == resnet["options"]
    resnet["options"]["weights"] = 18
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(StudyError, match=r"18 is not one of \['any text'\]"):
        load_study(file)


def test_defaults_are_the_papers():
    study = load_study("paper")
    training, folds = study.training, study.folds
    assert (
        training.epochs,
        training.batch_size,
        training.plateau_factor,
        training.plateau_patience,
    ) == (
        100,
        128,
        0.8,
        3,
    )
    assert folds.count == 10 and study.rotations == tuple(range(10))
    assert study.models["ecg_smart_net"].learning_rate == 1e-5
    assert study.models["mayo_alvd"].learning_rate == 1e-4
    assert training.early_stopping is None and training.normalisation == "lead_zscore"


def broken(tmp_path, change):
    content = yaml.safe_load((PARAMS / "smoke.yaml").read_text()) | {"name": "broken"}
    change(content)
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(StudyError) as error:
        load_study(file)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(trainning={}), ["trainning", "did you mean 'training'"]),
        (lambda s: s["training"].update(epoch=3), ["training.epoch", "did you mean 'epochs'"]),
        (
            lambda s: s["training"].update(epochs=-1),
            ["training.epochs", "-1", "greater than or equal to 1"],
        ),
        (lambda s: s["training"].update(epochs="many"), ["training.epochs", "many", "integer"]),
        (
            lambda s: s["training"].update(normalisation="zscore"),
            ["training.normalisation", "lead_zscore"],
        ),
        (lambda s: s["folds"].update(count=2), ["folds.count", "2", "greater than or equal to 3"]),
        (
            lambda s: s["folds"].update(rotations=[0, 3]),
            ["3 is not a rotation of 3 folds", "0 to 2"],
        ),
        (lambda s: s["cohort"].update(source="ptb"), ["cohort", "ptb", "ptbxl"]),
        (lambda s: s["cohort"].update(recrods=3), ["cohort.recrods", "did you mean 'records'"]),
        (lambda s: s["cohort"].pop("records"), ["cohort.records is missing"]),
        (
            lambda s: s["models"].update(mayo={"learning_rate": 0.1}),
            ["mayo", "did you mean 'mayo_alvd'"],
        ),
        (
            lambda s: s["models"].update(ecg_smart_net={}),
            ["models.ecg_smart_net", "learning_rate is missing"],
        ),
        (
            lambda s: s["learning_rates"]["grid"].update(mayo=[0.1]),
            ["learning_rates.grid", "mayo", "mayo_alvd"],
        ),
        (
            lambda s: s["learning_rates"].update(grdi={}),
            ["learning_rates.grdi", "did you mean 'grid'"],
        ),
        (
            lambda s: s["models"]["random_forest"].update(options={"setting": "ecg_smart"}),
            ["options.setting", "ecg_smart_2024"],
        ),
        (
            lambda s: s["models"]["random_forest"].update(options={"seting": "ecg_smart_2024"}),
            ["seting", "did you mean 'setting'"],
        ),
        (
            lambda s: s["models"]["random_forest"].update(features="without_age"),
            ["models.random_forest.features", "without_age_hr"],
        ),
        (
            lambda s: s["models"]["random_forest"].update(learning_rate=0.1),
            ["models.random_forest.learning_rate: Random Forest takes none"],
        ),
        (
            lambda s: s["models"]["mayo_alvd"].update(features="without_age_hr"),
            ["models.mayo_alvd.features: Mayo Clinic ALVD model takes none"],
        ),
        (lambda s: s.update(selected_model="resnet18"), ["selected_model", "resnet18"]),
        (lambda s: s.update(name="other"), ["other", "broken"]),
        (lambda s: s.pop("models"), ["learning_rates.grid: 'mayo_alvd' is not in models"]),
    ],
)
def test_mistakes_are_named(tmp_path, change, says):
    message = broken(tmp_path, change)
    for part in says:
        assert part in message, message


def test_names_in_tables_say_what_a_models_input_is():
    study = load_study("ptbxl")
    assert study.display_name("ecg_smart_net_millivolt") == "ECG-SMART-NET (mV)"
    assert study.display_name("random_forest_without_age_hr") == "Random Forest (without age, HR)"
    told = "Gradient boosting (without age, HR)"
    assert study.display_name("gradient_boosting_without_age_hr") == told


def test_missing_file_names_the_nearest():
    with pytest.raises(StudyError, match=r"did you mean 'smoke\.yaml'"):
        load_study("params/smok.yaml")


def test_empty_and_unreadable_files(tmp_path):
    for text in ("", "- a\n- b\n", "name: [unclosed"):
        file = tmp_path / "broken.yaml"
        file.write_text(text)
        with pytest.raises(StudyError, match=r"broken\.yaml"):
            load_study(file)


def test_cohort_key_follows_what_shapes_the_cohort(tmp_path):
    one = load_study("smoke")
    other = one.model_copy(update={"seed": 43})
    same = one.model_copy(update={"threads_per_run": 2})
    assert one.cohort_key != other.cohort_key
    assert one.cohort_key == same.cohort_key


def test_a_new_option_at_its_default_leaves_the_cohorts_name():
    class LaterSignal(Signal):
        smooth: bool = False

    class LaterCohort(SyntheticCohort):
        sites: int = 2

    def later(**given):
        now = load_study("smoke")  # a new one: a study remembers its cohort's name
        cohort = LaterCohort(**now.cohort.model_dump(exclude_defaults=True), **given)
        return now.model_copy(update={"signal": LaterSignal(), "cohort": cohort})

    assert later().cohort_key == load_study("smoke").cohort_key
    assert later(sites=3).cohort_key != load_study("smoke").cohort_key

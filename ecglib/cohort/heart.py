"""A heart vector that draws 12-lead beats: healthy, look-alike or with an occluded coronary artery.

The heart is a current dipole in Frank's coordinates: x to the left, y to the feet, z to the back.
Its course over one beat is a sum of waves; each rises, stays and falls along a fixed direction
within a *finite* time, so that every onset and offset is known. The torso is the lead matrix of
Dower et al. (Clin Cardiol 1980;3:87, after Frank's torso), varied from person to person and a
little from ECG to ECG. An occlusion adds one injury vector per culprit artery that acts from the J
point to the end of T: ST elevation over the ischaemic wall, reciprocal depression and terminal QRS
distortion all follow from its direction.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from ecglib.beat import BEAT_SAMPLES, R_SAMPLE, RATE_HZ

DOWER = np.array([  # I, II, V1–V6 of a vector
    [0.632, -0.235, 0.059], [0.235, 1.066, -0.132], [-0.515, 0.157, -0.917], [0.044, 0.164, -1.387],
    [0.882, 0.098, -1.277], [1.213, 0.127, -0.601], [1.125, 0.127, -0.086], [0.831, 0.076, 0.230],
])  # fmt: skip
# potentials of RA, LA, LL, V1–V6 against Wilson's terminal from I, II, V1–V6
ELECTRODES = np.zeros((9, 8))
ELECTRODES[:3, :2] = np.array([[-1, -1], [2, -1], [-1, 2]]) / 3
ELECTRODES[3:, 2:] = np.eye(6)
# the 12 leads from those nine, by Einthoven, Goldberger and Wilson
LEADS_OF_ELECTRODES = np.zeros((12, 9))
LEADS_OF_ELECTRODES[:3, :3] = [[-1, 1, 0], [-1, 0, 1], [0, -1, 1]]
LEADS_OF_ELECTRODES[3:6, :3] = 1.5 * np.eye(3) - 0.5
LEADS_OF_ELECTRODES[6:] = np.c_[np.full((6, 3), -1 / 3), np.eye(6)]
TIMES_MS = (np.arange(BEAT_SAMPLES) - R_SAMPLE) * 1000 / RATE_HZ

# Five lobes of the QRS loop (µV): septum, anteroseptal wall, apex and free wall, lateral wall,
# base.
NORMAL_QRS = np.array(
    [[-110, -30, -150], [260, 130, -330], [1240, 500, 40], [560, 270, 700], [-150, 10, 470]]
)
# the loop where the impulse takes another way, and its duration in ms
BLOCKS = {
    "LBBB": (
        np.array(
            [[200, 100, 100], [520, 200, 780], [560, 180, 1200], [780, 140, 1150], [400, 40, 520]]
        ),
        158,
    ),
    "paced": (
        np.array(
            [
                [150, -350, 220],
                [450, -800, 640],
                [560, -850, 900],
                [480, -650, 800],
                [220, -300, 380],
            ]
        ),
        166,
    ),
}
# parts of the QRS duration
LOBES = np.array([[0, 0.37], [0.12, 0.48], [0.26, 0.65], [0.43, 0.82], [0.58, 1.0]])
NORMAL_T = np.array([335, 100, -245])
NORMAL_ST = np.array([-20, -25, -45])
PERICARDIUM = np.array([0.68, 0.62, -0.35])
INJURY = {"LAD": (0.45, -0.10, -0.88), "RCA": (-0.35, 0.92, 0.05), "LCx": (0.35, 0.55, 0.75)}


@dataclass(frozen=True)
class Heart:
    """The waves of one beat and the torso they are seen through."""

    kinds: np.ndarray  # (waves,): P, PR, QRS, ST, T or injury
    times: np.ndarray  # (waves, 4), ms: onset, start and end of the plateau, offset
    # (waves,): exponent of the rise; above 1 it begins slowly, as a normal T does
    power: np.ndarray
    vectors: np.ndarray  # (waves, 3): direction and size, µV in Frank's coordinates
    torso: np.ndarray  # (8, 3): I, II, V1–V6 of a vector

    def course(self, at: np.ndarray = TIMES_MS) -> np.ndarray:
        """Size of each wave at times in ms, between 0 and 1, shape (waves, samples)."""
        on, top, end, off = self.times.T[:, :, None]
        rise = np.sin(np.pi / 2 * np.clip((at - on) / (top - on), 0, 1)) ** 2
        fall = np.sin(np.pi / 2 * np.clip((off - at) / (off - end), 0, 1)) ** 2
        slow = self.power != 1
        rise[slow] **= self.power[slow, None]
        return rise * fall

    def electrodes(self, *kinds: str, course: np.ndarray | None = None) -> np.ndarray:
        """Potentials of RA, LA, LL, V1–V6 in one isolated beat: µV, (9, samples).

        All waves, or those of some kinds.
        """
        course = self.course() if course is None else course
        keep = np.isin(self.kinds, kinds or self.kinds)
        return ELECTRODES @ self.torso @ (self.vectors[keep].T @ course[keep])

    def leads(self, *kinds: str, course: np.ndarray | None = None) -> np.ndarray:
        """Return the same seen in the 12 leads: µV, (12, samples)."""
        return LEADS_OF_ELECTRODES @ self.electrodes(*kinds, course=course)


def beat_heart(row, patient: np.random.Generator, ecg: np.random.Generator) -> Heart:
    """Draw the heart of one ECG.

    Every random number is drawn whatever the condition, in one order: the same ECG with another
    severity, culprit or mimic is its counterfactual.

    Parameters
    ----------
    row : namedtuple
        ``age, sex, mimic, culprit, severity, rhythm, heart_rate`` of the record.
    patient, ecg : numpy.random.Generator
        Draw what stays the same in all ECGs of the patient, and what differs between them.
    """
    torso = DOWER * (1 + 0.12 * patient.standard_normal((8, 3)))
    torso = torso + 0.04 * patient.standard_normal((8, 3)) + 0.03 * ecg.standard_normal((8, 3))
    spread = np.deg2rad([[9, 12, 22], [10, 12, 12], [12, 12, 14]])
    turn_qrs, turn_t, turn_injury = spread * patient.standard_normal((3, 3))
    lobe_noise = patient.standard_normal((5, 3))
    size, t_size, p_size, wide, pr_dev, qt_dev = np.clip(patient.standard_normal(6), -2.5, 2.5)
    u = patient.random(8)
    # ST and T of a healthy heart differ too
    vague_st, vague_t = patient.standard_normal((2, 3)) * [[22], [45]]
    t_again, injury_again, hyperacute = ecg.standard_normal(3)
    male, old = row.sex == "male", (row.age - 60) / 20
    mimic = "paced" if row.rhythm == "ventricular pacing" else row.mimic

    gain = np.exp(0.22 * size)
    turn_qrs = turn_qrs + np.deg2rad([0, 0, -6 * old])
    qrs = gain * _turn(turn_qrs, NORMAL_QRS + 70 * lobe_noise)
    duration = 97 + 5 * male + 6 * wide
    t = _turn(turn_t + turn_qrs / 3, NORMAL_T) * gain**0.5
    t = t * np.exp(0.25 * t_size - 0.12 * old + 0.08 * t_again) * (1.1 if male else 0.85) + vague_t
    st = NORMAL_ST + 0.08 * male * t + vague_st
    pr = 158 + 20 * pr_dev + 6 * old
    qt = 420 + 16 * qt_dev + 8 * (not male) - 1.75 * (row.heart_rate - 60)
    if mimic in BLOCKS:
        loop, lasts = BLOCKS[mimic]
        qrs, duration = gain * _turn(turn_qrs / 2, loop + 60 * lobe_noise), lasts + 9 * wide
        t = -0.42 * (1 + 0.15 * t_size) * qrs.mean(0) + 0.25 * t
        st, qt = -(0.10 + 0.10 * u[0]) * qrs.mean(0), qt + 45
    elif mimic == "RBBB":
        duration, qt = 143 + 8 * wide, qt + 25
    elif mimic == "LVH with strain":
        duration += 10
    qrs, st, t = _look_alike(mimic, (qrs, st, t), gain, u, turn_injury)
    wall = _turn(turn_injury, _wall(row.culprit, u[3]))
    lost = gain * np.outer([240, 300, 160, 0, 0], wall) * row.severity
    qrs = qrs - lost * max(0, u[4] - 0.45) / 0.55
    injury = 380 * row.severity * gain**0.5 * np.exp(0.15 * injury_again) * wall
    pr_segment = -(30 + 30 * u[1]) * PERICARDIUM if mimic == "pericarditis" else np.zeros(3)
    qt += 10 * (row.culprit in INJURY)

    atrium = np.exp(0.25 * p_size) * np.array([[30, 58, -25], [65, 40, 45]])
    vectors = [*qrs, *atrium, pr_segment, t, st, injury, injury * np.exp(-0.2 + 0.45 * hyperacute)]
    return _heart(_waves(mimic, duration, pr, qt), vectors, torso, row.rhythm)


def _waves(mimic: str, duration: float, pr: float, qt: float) -> list[tuple]:
    """Kind, times in ms after the onset of QRS, and power of each wave."""
    peak = qt - 82 - 0.06 * (qt - 360)
    return [
        *[("QRS", a, (a + b) / 2, (a + b) / 2, b, 1) for a, b in LOBES * duration],
        *[("P", a - pr, a + 42 - pr, a + 42 - pr, a + 90 - pr, 1) for a in (0, 24)],
        ("PR", 90 - pr, 115 - pr, 0, 12, 1),
        ("T", duration + 10, peak, peak, qt, 1.2 if mimic == "early repolarisation" else 2.0),
        ("ST", duration - 18, duration + 4, peak - 40, qt - 10, 1),
        ("injury", duration - 24, duration, peak - 30, qt, 1),
        ("injury", duration, peak, peak, qt, 1.1),
    ]


def _turn(angles: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(angles).apply(vectors)


def _look_alike(mimic: str, healthy: tuple, gain: float, u: np.ndarray, turn: np.ndarray) -> tuple:
    """QRS loop, ST and T of a heart with that look-alike, from those of the same heart without."""
    qrs, st, t = healthy
    if mimic == "RBBB":
        terminal = gain * np.array([-520, -30, -420 + 120 * u[0]])
        qrs = np.vstack([qrs[:3], 0.35 * qrs[3] + 0.55 * terminal, terminal])
        t, st = t + gain * np.array([60, 10, 190]), st + gain * np.array([10, 0, 35])
    elif mimic == "LVH with strain":
        qrs = qrs * (1.5 + 0.4 * u[0]) + np.array([0, -40, 90])
        strain = qrs[2:4].mean(0) * np.array([1, 0.6, 1])
        t, st = 0.35 * t - (0.12 + 0.25 * u[1]) * strain, st - (0.05 + 0.09 * u[1]) * strain
    elif mimic == "early repolarisation":
        t = t * (1.15 + 0.35 * u[0])
        st = st + (70 + 110 * u[1]) * np.array([0.55, 0.40, -0.72])
    elif mimic == "pericarditis":
        t, st = 0.8 * t, st + (90 + 110 * u[0]) * PERICARDIUM
    elif mimic == "non-occlusive ST depression":
        st = st - (60 + 150 * u[0]) * np.array([0.80, 0.50, -0.5 + 0.6 * u[1]])
        t = t * (0.75 - 0.8 * u[2])
    elif mimic == "old infarct":
        scar = _turn(turn, [*INJURY.values()][int(u[0] > 0.6) + int(u[0] > 0.85)])
        qrs = qrs - gain * np.outer([300, 380, 200, 0, 0], scar)
        st, t = st + (50 + 120 * u[1]) * scar, 0.5 * t + (80 - 260 * u[2]) * scar
    return qrs, st, t


def _wall(culprit: str, where: float) -> np.ndarray:
    """Direction of the ischaemic wall, for `where` (0 to 1) along its artery; zero without one."""
    wall = np.array(INJURY.get(culprit, np.zeros(3)))
    if culprit == "LAD":  # before the first diagonal: superior; around the apex: inferior
        wall[1] += 0.8 * (where - 0.6)
    elif culprit == "RCA":  # right ventricle: to the front; posterior wall: to the back
        wall[2] += 0.7 * (where - 0.5)
    elif culprit == "LCx":  # from inferolateral to high lateral and posterior
        wall[1] -= 0.9 * where
    return wall / max(np.linalg.norm(wall), 1e-9)


def _heart(waves: list[tuple], vectors: list, torso: np.ndarray, rhythm: str) -> Heart:
    """Put waves (kind, four times, power) together, with R at time 0; P only if the atria beat."""
    kinds, *numbers = map(np.array, zip(*waves, strict=True))
    atria = rhythm not in ("atrial fibrillation", "ventricular pacing")
    keep = atria | ~np.isin(kinds, ("P", "PR"))
    *times, power = np.array(numbers, float)[:, keep]
    heart = Heart(kinds[keep], np.stack(times, axis=1), power, np.array(vectors)[keep], torso)
    # R is the largest RMS over the 12 leads, on a sample
    within = np.arange(0, 200, 1000 / RATE_HZ)
    r = within[np.square(heart.leads("QRS", course=heart.course(within))).sum(0).argmax()]
    return replace(heart, times=heart.times - r)


def ectopic_heart(heart: Heart, rng: np.random.Generator) -> Heart:
    """Draw a ventricular ectopic beat in the same torso: wide, T against QRS, no P."""
    first = rng.standard_normal(3)
    first *= 1100 / np.linalg.norm(first)
    times = np.array([[-70, -10, -10, 60], [-20, 45, 45, 110], [80, 240, 240, 350]], float)
    vectors = np.array([first, 0.5 * first + 0.4 * np.roll(first, 1), -0.45 * first])
    return Heart(np.array(["QRS", "QRS", "T"]), times, np.ones(3), vectors, heart.torso)

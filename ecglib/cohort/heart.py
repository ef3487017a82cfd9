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
LBBB_QRS = np.array(
    [[200, 100, 100], [520, 200, 780], [560, 180, 1200], [780, 140, 1150], [400, 40, 520]]
)
PACED_QRS = np.array(
    [[150, -350, 220], [450, -800, 640], [560, -850, 900], [480, -650, 800], [220, -300, 380]]
)
# parts of the QRS duration
LOBES = np.array([[0, 0.37], [0.12, 0.48], [0.26, 0.65], [0.43, 0.82], [0.58, 1.0]])
NORMAL_T = np.array([335, 100, -245])
NORMAL_ST = np.array([-20, -25, -45])
INJURY = {"LAD": (0.45, -0.10, -0.88), "RCA": (-0.35, 0.92, 0.05), "LCx": (0.35, 0.55, 0.75)}
MIMICS = (
    "early repolarisation", "LVH with strain", "LBBB", "RBBB", "pericarditis", "old infarct",
    "non-occlusive ST depression",
)  # fmt: skip


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
        """Potentials of RA, LA, LL, V1–V6 in one isolated beat, of all or some kinds of waves: µV,
        (9, samples).
        """
        course = self.course() if course is None else course
        keep = np.isin(self.kinds, kinds) if kinds else slice(None)
        return ELECTRODES @ self.torso @ (self.vectors[keep].T @ course[keep])

    def leads(self, *kinds: str, course: np.ndarray | None = None) -> np.ndarray:
        """Return the same seen in the 12 leads: µV, (12, samples)."""
        return LEADS_OF_ELECTRODES @ self.electrodes(*kinds, course=course)


def beat_heart(row, patient: np.random.Generator, ecg: np.random.Generator) -> Heart:
    """Draw the heart of one ECG.

    Every random number is drawn whatever the condition, in one order: the same ECG with another
    severity, culprit or mimic is its counterfactual. `row` has ``age, sex, mimic, culprit,
    severity, rhythm, heart_rate``; `patient` draws what stays the same in all ECGs of the patient,
    `ecg` what differs between them.
    """
    torso = DOWER * (1 + 0.12 * patient.standard_normal((8, 3))) + 0.04 * patient.standard_normal(
        (8, 3)
    )
    torso = torso + 0.03 * ecg.standard_normal((8, 3))
    spread = np.deg2rad([[9, 12, 22], [10, 12, 12], [12, 12, 14]])
    turn_qrs, turn_t, turn_injury = spread * patient.standard_normal((3, 3))
    lobe_noise = patient.standard_normal((5, 3))
    size, t_size, p_size, wide, pr_dev, qt_dev = np.clip(patient.standard_normal(6), -2.5, 2.5)
    u = patient.random(8)
    # ST and T of a healthy heart differ too
    vague_st, vague_t = patient.standard_normal((2, 3)) * [[22], [45]]
    t_again, injury_again, hyperacute = ecg.standard_normal(3)
    male, old = row.sex == "male", (row.age - 60) / 20

    # ----- healthy
    gain = np.exp(0.22 * size)
    turn_qrs = turn_qrs + np.deg2rad([0, 0, -6 * old])
    qrs = gain * Rotation.from_rotvec(turn_qrs).apply(NORMAL_QRS + 70 * lobe_noise)
    duration = 97 + 5 * male + 6 * wide
    t = Rotation.from_rotvec(turn_t + turn_qrs / 3).apply(NORMAL_T) * gain**0.5
    t = t * np.exp(0.25 * t_size - 0.12 * old + 0.08 * t_again) * (1.1 if male else 0.85) + vague_t
    st, pr_segment, t_power = NORMAL_ST + 0.08 * male * t + vague_st, np.zeros(3), 2.0
    pr, qt = (
        158 + 20 * pr_dev + 6 * old,
        420 + 16 * qt_dev + 8 * (not male) - 1.75 * (row.heart_rate - 60),
    )

    # ----- look-alikes
    if row.rhythm == "ventricular pacing" or row.mimic == "LBBB":
        loop = PACED_QRS if row.rhythm == "ventricular pacing" else LBBB_QRS
        qrs = gain * Rotation.from_rotvec(turn_qrs / 2).apply(loop + 60 * lobe_noise)
        duration = (166 if row.rhythm == "ventricular pacing" else 158) + 9 * wide
        t = -0.42 * (1 + 0.15 * t_size) * qrs.mean(0) + 0.25 * t
        st, qt = -(0.10 + 0.10 * u[0]) * qrs.mean(0), qt + 45
    elif row.mimic == "RBBB":
        duration = 143 + 8 * wide
        terminal = gain * np.array([-520, -30, -420 + 120 * u[0]])
        qrs = np.vstack([qrs[:3], 0.35 * qrs[3] + 0.55 * terminal, terminal])
        t, st, qt = t + gain * np.array([60, 10, 190]), st + gain * np.array([10, 0, 35]), qt + 25
    elif row.mimic == "LVH with strain":
        qrs, duration = qrs * (1.5 + 0.4 * u[0]) + np.array([0, -40, 90]), duration + 10
        strain = qrs[2:4].mean(0) * np.array([1, 0.6, 1])
        t, st = 0.35 * t - (0.12 + 0.25 * u[1]) * strain, st - (0.05 + 0.09 * u[1]) * strain
    elif row.mimic == "early repolarisation":
        t, t_power = t * (1.15 + 0.35 * u[0]), 1.2
        st = st + (70 + 110 * u[1]) * np.array([0.55, 0.40, -0.72])
    elif row.mimic == "pericarditis":
        st = st + (90 + 110 * u[0]) * np.array([0.68, 0.62, -0.35])
        pr_segment, t = -(30 + 30 * u[1]) * np.array([0.68, 0.62, -0.35]), 0.8 * t
    elif row.mimic == "non-occlusive ST depression":
        st = st - (60 + 150 * u[0]) * np.array([0.80, 0.50, -0.5 + 0.6 * u[1]])
        t = t * (0.75 - 0.8 * u[2])
    elif row.mimic == "old infarct":
        scar = np.array(INJURY[("LAD", "RCA", "LCx")[int(u[0] > 0.6) + int(u[0] > 0.85)]])
        scar = Rotation.from_rotvec(turn_injury).apply(scar)
        qrs = qrs - gain * np.outer([300, 380, 200, 0, 0], scar)
        st, t = st + (50 + 120 * u[1]) * scar, 0.5 * t + (80 - 260 * u[2]) * scar

    # ----- occlusion
    injury, t_injury = np.zeros(3), np.zeros(3)
    if row.culprit in INJURY:
        wall = np.array(INJURY[row.culprit])
        if row.culprit == "LAD":  # before the first diagonal: superior; around the apex: inferior
            wall[1] += 0.8 * (u[3] - 0.6)
        elif row.culprit == "RCA":  # right ventricle: to the front; posterior wall: to the back
            wall[2] += 0.7 * (u[3] - 0.5)
        else:  # from inferolateral to high lateral and posterior
            wall[1] -= 0.9 * u[3]
        wall = Rotation.from_rotvec(turn_injury).apply(wall / np.linalg.norm(wall))
        injury = 380 * row.severity * gain**0.5 * np.exp(0.15 * injury_again) * wall
        t_injury = injury * np.exp(-0.2 + 0.45 * hyperacute)
        qrs = (
            qrs
            - gain
            * np.outer([240, 300, 160, 0, 0], wall)
            * row.severity
            * max(0, u[4] - 0.45)
            / 0.55
        )
        qt = qt + 10

    # ----- waves, ms after the onset of QRS
    waves = [
        ("QRS", a, (a + b) / 2, (a + b) / 2, b, 1, v)
        for (a, b), v in zip(LOBES * duration, qrs, strict=True)
    ]
    peak = qt - 82 - 0.06 * (qt - 360)
    if row.rhythm not in ("atrial fibrillation", "ventricular pacing"):
        atrium = np.exp(0.25 * p_size) * np.array([[30, 58, -25], [65, 40, 45]])
        waves += [
            ("P", a - pr, a + 42 - pr, a + 42 - pr, a + 90 - pr, 1, v)
            for a, v in zip((0, 24), atrium, strict=True)
        ]
        waves += [("PR", 90 - pr, 115 - pr, 0, 12, 1, pr_segment)]
    waves += [
        ("T", duration + 10, peak, peak, qt, t_power, t),
        ("ST", duration - 18, duration + 4, peak - 40, qt - 10, 1, st),
        ("injury", duration - 24, duration, peak - 30, qt, 1, injury),
        ("injury", duration, peak, peak, qt, 1.1, t_injury),
    ]
    kinds, *numbers, vectors = zip(*waves, strict=True)
    numbers = np.array(numbers, float)
    heart = Heart(np.array(kinds), numbers[:4].T, numbers[4], np.array(vectors), torso)
    # R is the largest RMS over the 12 leads, on a sample
    within = np.arange(0, 200, 1000 / RATE_HZ)
    r = within[np.square(heart.leads("QRS", course=heart.course(within))).sum(0).argmax()]
    return replace(heart, times=heart.times - r)


def ectopic_heart(heart: Heart, rng: np.random.Generator) -> Heart:
    """Draw a ventricular ectopic beat in the same torso: wide, from somewhere else, T against QRS,
    no P.
    """
    first = rng.standard_normal(3)
    first *= 1100 / np.linalg.norm(first)
    times = np.array([[-70, -10, -10, 60], [-20, 45, 45, 110], [80, 240, 240, 350]], float)
    vectors = np.array([first, 0.5 * first + 0.4 * np.roll(first, 1), -0.45 * first])
    return Heart(np.array(["QRS", "QRS", "T"]), times, np.ones(3), vectors, heart.torso)

"""What a median beat is: its leads, rate, samples, and where R lies in it."""

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Lead order of every array in the package; leads are chosen by name when files are read."""
RATE_HZ = 500
"""Sampling rate of every median beat, in Hz (paper, section II.D)."""
BEAT_SAMPLES = 600
"""Samples of a stored median beat: 1.2 s at 500 Hz (paper, section II.D)."""
R_SAMPLE = 300
"""Sample of the R peak in a stored median beat (paper, Fig. 4)."""

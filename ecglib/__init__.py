"""ecglib: the thin library behind the notebooks that reproduce ECG-SMART-NET.

For research only: nothing in this package is a medical device.
"""

from importlib.metadata import PackageNotFoundError, version

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Lead order of every array in the package; leads are chosen by name when files are read."""

RATE_HZ = 500
"""Sampling rate of every median beat, in Hz (paper, section II.D)."""

BEAT_SAMPLES = 600
"""Samples of a stored median beat: 1.2 s at 500 Hz (paper, section II.D)."""

R_SAMPLE = 300
"""Sample of the R peak in a stored median beat (paper, Fig. 4)."""

try:
    __version__ = version("ecg-smart-net-reproduction")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name):
    if name == "load_model":  # on demand: torch takes seconds to import
        from ecglib.trainer import load_model

        return load_model
    raise AttributeError(f"module 'ecglib' has no attribute '{name}'")

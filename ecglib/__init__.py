"""ecglib: the thin library behind the notebooks that reproduce ECG-SMART-NET.

For research only: nothing in this package is a medical device.
"""

import os
from importlib.metadata import PackageNotFoundError, version

# With AVX-512, numpy's powers and sines end in other bits, and so do beats; read when numpy loads.
os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR")

try:
    __version__ = version("ecg-smart-net-reproduction")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name):
    if name == "load_model":  # on demand: torch takes seconds to import
        from ecglib.trainer import load_model

        return load_model
    raise AttributeError(f"module 'ecglib' has no attribute '{name}'")

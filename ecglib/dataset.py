"""Beats as the networks see them: crop, normalise, and batches undersampled as in the paper
(section II.B, II.D).
"""

import numpy as np
import torch

CROP = slice(150, 550)
"""Samples kept of the 600: the first 150 and the last 50 are dropped (paper, section II.D); R is at
150 then. The last kept lies 0.5 s behind R, so that of fast rhythms the next beat's P, and then its
QRS, are in it: of PTB-XL's ECGs in about 20 % (P) and 5 % (QRS). A network can read the heart rate
there.
"""


def normalise(beats: torch.Tensor, how: str = "lead_zscore", samples: int = 400) -> torch.Tensor:
    """Resample and scale cropped beats for a network.

    Parameters
    ----------
    beats : torch.Tensor
        ``(..., 400)`` in µV, any type.
    how : {'lead_zscore', 'millivolt', 'lead_max'}
        Z-score of each lead of each record (paper, section II.D) with the population SD, where an
        SD of 0 counts as 1; plain mV, which keeps absolute amplitudes; or mV over the largest
        absolute value of the lead, as the authors' later networks have it.
    samples : {400, 200}
        Samples that the network sees of the 0.8 s; fewer are made by `resample`.

    Returns
    -------
    torch.Tensor
        float32, ``(..., samples)``; no unit, or mV.
    """
    millivolt = beats.to(torch.float32) / 1000
    if samples != beats.shape[-1]:
        millivolt = resample(millivolt, samples)
    if how == "millivolt":
        return millivolt
    if how == "lead_max":
        largest = millivolt.abs().amax(dim=-1, keepdim=True)
        return millivolt / largest.masked_fill(largest == 0, 1.0)
    centred = millivolt - millivolt.mean(dim=-1, keepdim=True)
    spread = centred.square().mean(dim=-1, keepdim=True).sqrt()
    # A flat lead's mean is rounded, so its SD may be some 1e-8 mV; one step of 1 µV in 400 samples
    # gives 5e-5 mV.
    return centred / spread.masked_fill(spread < 1e-5, 1.0)


def resample(signals: torch.Tensor, samples: int) -> torch.Tensor:
    """Resample to fewer samples, an even number, by cutting the spectrum: what
    `scipy.signal.resample` does, which the authors' later code calls.
    """
    half, shrunk = samples // 2, samples / signals.shape[-1]
    spectrum = torch.fft.rfft(signals)[..., : half + 1] * shrunk
    spectrum[..., half] *= 2  # the highest frequency left stands for its negative twin, too
    return torch.fft.irfft(spectrum, n=samples)


def seen_as(identity: dict) -> dict:
    """How the network of a run gets its beats, as keywords of `normalise`: the defaults where the
    run doesn't say.
    """
    told = identity.get("training") or {}
    return {"how": told.get("normalisation", "lead_zscore"), "samples": told.get("samples", 400)}


def inputs(beats, identity: dict) -> torch.Tensor:
    """What the network of a run sees of stored beats, ``(n, 12, 600)`` in µV: float32, ``(n, 1, 12,
    samples)``.
    """
    cropped = torch.from_numpy(np.ascontiguousarray(np.asarray(beats)[..., CROP]))
    return normalise(cropped, **seen_as(identity))[:, None]


class BeatBank:
    """Median beats of a cohort, served to a network by index.

    All beats sit on the device once, cropped, as int16; a batch is an index lookup followed by
    `normalise` there. With `stream` they stay in the memory map and each batch is read from it:
    same batches, bit for bit.

    Parameters
    ----------
    beats : numpy.ndarray
        int16 µV, ``(n, 12, 600)``; may be memory-mapped.
    labels : numpy.ndarray
        ``(n,)``, 0 or 1.
    device : torch.device
    stream : bool
    **seen
        Keywords of `normalise`.

    Attributes
    ----------
    place : torch.device
        Where positions are looked up: the device, or the CPU with `stream`. `batch` takes them
        from anywhere; from there it waits for nothing.
    """

    def __init__(self, beats, labels, device, stream=False, **seen):
        self.device, self.seen = device, seen
        self.labels = torch.as_tensor(np.asarray(labels), dtype=torch.long, device=device)
        self.beats, self.place = beats, torch.device("cpu") if stream else device
        if not stream:
            self.beats = torch.from_numpy(np.ascontiguousarray(beats[:, :, CROP])).to(device)

    def __len__(self):
        return len(self.labels)

    def batch(self, positions: torch.Tensor) -> torch.Tensor:
        """Beats at `positions`, ready for a network: float32 ``(batch, 1, 12, samples)``."""
        if isinstance(self.beats, torch.Tensor):
            chosen = self.beats[positions.to(self.device)]
        else:
            chosen = torch.from_numpy(self.beats[positions.cpu().numpy()][:, :, CROP]).to(
                self.device
            )
        return normalise(chosen, **self.seen).unsqueeze(1)


def undersampled_batches(
    labels: np.ndarray, batch_size: int, generator: torch.Generator
) -> list[torch.Tensor]:
    """Batches of one epoch, the majority undersampled within each batch (paper, section II.B).

    All training ECGs are shuffled and cut into batches; of each, every positive is kept, as many
    negatives are drawn without replacement, and the result is shuffled. A batch without positives
    is skipped; the last, short one is kept, unless it holds a single ECG, which batch norm can't
    take. So each epoch sees new negatives, and a batch of 128 at 9 % positives holds about 23 ECGs.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(n,)`` labels of the training ECGs, 0 or 1.
    batch_size : int
        ECGs in a batch before undersampling.
    generator : torch.Generator
        On the CPU; its state is part of a checkpoint.

    Returns
    -------
    list of torch.Tensor
        Positions in `labels`, int64.
    """
    labels = torch.as_tensor(np.asarray(labels))
    batches = []
    for cut in torch.randperm(len(labels), generator=generator).split(batch_size):
        positive, negative = cut[labels[cut] == 1], cut[labels[cut] == 0]
        if len(positive) == 0 or len(cut) == 1:
            continue
        drawn = negative[torch.randperm(len(negative), generator=generator)[: len(positive)]]
        both = torch.cat([positive, drawn])
        batches.append(both[torch.randperm(len(both), generator=generator)])
    return batches

"""What a unit takes of a machine, by what computes its network."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Resources:
    """Of one unit at a time.

    Attributes:
        cpus: processors; decoding, the network and encoding share them.
        gpus: of a GPU, which several units may share.
    """

    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} processors"] + ([f"{self.gpus:g} GPUs"] if self.gpus else [])
        return " and ".join(parts)


# The pipeline of a video has three stages at work; a second processor is nearly used up, a third is not.
_ON_PROCESSORS = Resources(cpus=2)

# A network of this size leaves a GPU time to spare while frames are decoded and encoded.
_ON_A_GPU = Resources(cpus=4, gpus=0.25)

RESOURCES = {
    "litert": _ON_PROCESSORS,
    "onnx": _ON_PROCESSORS,
    "keras": _ON_PROCESSORS,
    "saved_model": _ON_PROCESSORS,
    "ensemble": _ON_PROCESSORS,
    "serving": _ON_PROCESSORS,
    "tensorrt": _ON_A_GPU,
    "cuda": _ON_A_GPU,
    "migraphx": _ON_A_GPU,
}
"""By the provider of ONNX Runtime, or by the engine."""


def of(engine: str, provider: str | None, threads: int | None = None) -> Resources:
    """What a unit takes; `threads` is another number of processors."""
    named = RESOURCES.get(provider or "", RESOURCES.get(engine, _ON_PROCESSORS))
    return named if threads is None else replace(named, cpus=threads)

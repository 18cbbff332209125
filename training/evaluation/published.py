"""Published figures, to stand beside what is measured here in the same protocol.

PSNR, SSIM and PSNR-B of the luma of grey JPEGs (see `stills`), as their papers and FBCNN's comparison print them. A
star marks one model for each quality; the others are one model for all.

References: Dong et al., AR-CNN, ICCV 2015; Zhang et al., DnCNN, TIP 2017; Ehrlich et al., QGAC, ECCV 2020; Jiang et
al., FBCNN, ICCV 2021; Liang et al., SwinIR, ICCVW 2021; Galteri et al. (the method of this package), for the
no-reference figures.
"""

__all__ = ["FIDELITY", "NO_REFERENCE_JPEG_10", "NO_REFERENCE_VIDEO"]

# (set, setting) -> method -> PSNR, SSIM, PSNR-B.
FIDELITY: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = {
    ("live1", "JPEG 10"): {
        "JPEG": (27.77, 0.773, 25.33),
        "AR-CNN*": (28.96, 0.808, 28.68),
        "DnCNN-3": (29.19, 0.812, 28.90),
        "QGAC": (29.51, 0.825, 29.13),
        "FBCNN": (29.75, 0.827, 29.40),
        "SwinIR*": (29.86, 0.829, 29.50),
    },
    ("live1", "JPEG 20"): {
        "JPEG": (30.07, 0.851, 27.57),
        "AR-CNN*": (31.29, 0.873, 30.76),
        "DnCNN-3": (31.59, 0.880, 31.07),
        "QGAC": (31.83, 0.888, 31.25),
        "FBCNN": (32.13, 0.889, 31.57),
        "SwinIR*": (32.25, 0.891, 31.70),
    },
    ("live1", "JPEG 40"): {
        "JPEG": (32.35, 0.904, 29.96),
        "AR-CNN*": (33.61, 0.920, 33.11),
        "DnCNN-3": (33.96, 0.925, 33.28),
        "QGAC": (34.16, 0.929, 33.36),
        "FBCNN": (34.53, 0.931, 33.74),
        "SwinIR*": (34.67, 0.932, 33.88),
    },
    ("classic5", "JPEG 10"): {
        "JPEG": (27.82, 0.760, 25.21),
        "AR-CNN*": (29.03, 0.793, 28.76),
        "DnCNN-3": (29.40, 0.803, 29.13),
        "QGAC": (29.84, 0.812, 29.43),
        "FBCNN": (30.12, 0.822, 29.80),
        "SwinIR*": (30.27, 0.825, 29.95),
    },
    ("classic5", "JPEG 40"): {
        "JPEG": (32.43, 0.885, 29.92),
        "AR-CNN*": (33.32, 0.895, 32.79),
        "DnCNN-3": (33.77, 0.900, 33.23),
        "QGAC": (34.05, 0.905, 33.12),
        "FBCNN": (34.35, 0.907, 33.48),
        "SwinIR*": (34.52, 0.908, 33.66),
    },
}

# The paper's Table 1: NIQE, BRISQUE.
NO_REFERENCE_JPEG_10: dict[str, tuple[float, float]] = {
    "JPEG": (6.36, 53.17),
    "GAN": (4.27, 19.65),
    "original": (4.35, 24.32),
}

# The paper's Table 2: VIIDEO, NIQE, BRISQUE, frames a second at 720p on its GPU.
NO_REFERENCE_VIDEO: dict[str, tuple[float, float, float, float | None]] = {
    "H.264": (0.520, 4.890, 41.93, None),
    "Very Fast": (0.388, 4.574, 25.12, 42.0),
    "Fast": (0.350, 3.714, 16.95, 20.0),
    "Galteri TMM 2019": (0.387, 3.594, 17.58, 4.0),
    "uncompressed": (0.276, 4.329, 23.73, None),
}

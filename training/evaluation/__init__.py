"""The testing protocol: what is measured of a model, and how it is shown. The program is `training.evaluate`."""

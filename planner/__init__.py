"""The diffusion planner: a temporal U-Net whose normalization is a swappable part."""

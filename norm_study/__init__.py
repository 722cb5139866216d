"""The instruments: how a normalization layer carries information through time."""

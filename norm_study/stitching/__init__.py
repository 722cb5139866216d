"""The stitching study: what compositionality each norm leaves in a planner."""

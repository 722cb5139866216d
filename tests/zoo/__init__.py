"""Networks of the kinds people publish, and planted leaks, each with its truth known by construction.

Nothing here imports the audit: the truth comes from formulas (:mod:`zoo.fields`) and is checked by changing inputs.
"""

"""Verification: a model scores the labels of examples without seeing them.

scoring.py         asks for the scores; what follows from them for an example
label_noise.py     the label-noise check, and the calibration of the verifier
verifier_check.py  the check of `filter --verifier`
"""

"""Verification: a model scores the labels of examples without seeing them.

scoring.py      asks for the scores; the label that an example gets by them
label_noise.py  the label-noise check, and the calibration of the verifier
"""

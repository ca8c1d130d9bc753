"""The plug-in's own test: one line per method."""

from torchbands.testing import contract_test

test_quiet = contract_test("quiet")
test_noise_prior = contract_test("noise-prior")

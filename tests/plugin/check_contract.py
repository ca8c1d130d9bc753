"""The plug-in's own test: one line per method, and published methods on its own kind of sample."""

from torchbands.testing import contract_test

test_quiet = contract_test("quiet")
test_noise_prior = contract_test("noise-prior")
test_on_series = contract_test("badnets", "quiet", tasks=("series",))

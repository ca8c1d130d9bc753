"""A stranger's path: a network, a training loop and triggers that torchbands does not know, and what is typed."""

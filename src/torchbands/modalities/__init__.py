"""The kinds of sample. One file each holds all the domain knowledge that methods may use."""

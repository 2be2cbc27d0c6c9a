"""`python -m bench.gpu`: the figures of a CUDA machine, without a network, within a time limit."""

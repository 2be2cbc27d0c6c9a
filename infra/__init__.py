"""How rerankq runs: on one machine, in images, on a cluster."""

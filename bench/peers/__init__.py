"""Other software that scores with the same weights, each in an environment of its own: `make bench-peers`.

The `*_loop` modules run in those environments: they import nothing of this repository except `bench.words`.
"""

"""Everything to run rerankq: on one machine (`local/`), in images (`docker/`), on a cluster (`kubernetes/`)."""

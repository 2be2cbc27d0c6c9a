"""Program that measures sentence-transformers' CrossEncoder with its defaults, without a server."""

import json
import sys

from sentence_transformers import CrossEncoder

from bench.peers.bare_loop import measure


def main() -> None:
    order = json.load(sys.stdin)
    model = CrossEncoder(order["model"], device="cpu", local_files_only=True)
    measure(order, lambda pairs: model.predict(pairs, batch_size=len(pairs), show_progress_bar=False).tolist())


if __name__ == "__main__":
    main()

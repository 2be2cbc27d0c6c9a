"""The worker as a process: what makes its start short, how it is forked, and how it reports its health."""

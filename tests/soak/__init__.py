"""Long runs at a steady load with kills: does anything grow? `python -m tests.soak`."""

"""The vLLM engine: its settings, its step loop, and the only module that imports vLLM."""

"""The vLLM engine: its settings, its step loop, and the two modules that import vLLM."""

"""The whole stack on one machine, for a first look and for development."""

"""The worker as an operating-system process: startup, forking from a standby, heartbeats and the health check."""

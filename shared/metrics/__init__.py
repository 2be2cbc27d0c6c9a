"""What Prometheus metrics are called and mean. Owns definitions that several packages use; counts nothing itself."""

"""`make bench-overload`: what callers get while more work arrives than the service can do."""

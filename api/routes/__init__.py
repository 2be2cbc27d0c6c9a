"""The HTTP routes. Each handler reads a request, calls the service, and renders the answer. Contains no logic."""

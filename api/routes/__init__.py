"""The HTTP routes. Each reads a request, calls the service, and renders: no decision is made here."""

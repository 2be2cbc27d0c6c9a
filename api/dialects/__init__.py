"""How clients speak: each dialect turns its body into the canonical request, and the result into its own shape."""

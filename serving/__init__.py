"""TensorFlow Serving: deployment, configuration and a client. Run from a checkout."""

"""The serving application: Triton's model, the gateway, the feature reader and the registry."""

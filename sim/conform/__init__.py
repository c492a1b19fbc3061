"""What does a mechanism really guarantee? The requirements of scenarios/conformance/, tried at every instant."""
